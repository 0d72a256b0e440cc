"""Typed doors onto object storage: read, read a range, write, create once, sign."""

from fleetbatch.store.base import MissingObject, SignedPut, Store
from fleetbatch.store.opening import open_store
from fleetbatch.store.probing import probe, refuse_lacking

__all__ = ["MissingObject", "SignedPut", "Store", "open_store", "probe", "refuse_lacking"]
