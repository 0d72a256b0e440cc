"""Typed doors onto object storage: read, read a range, write, create once, sign, hash."""

from fleetbatch.store.base import Arrival, MissingObject, SignedPut, Store
from fleetbatch.store.hashing import stored_sha256
from fleetbatch.store.opening import open_store
from fleetbatch.store.probing import probe, refuse_lacking

__all__ = ["Arrival", "MissingObject", "SignedPut", "Store", "open_store", "probe", "refuse_lacking", "stored_sha256"]
