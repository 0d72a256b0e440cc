"""What an object's hash is, whatever its length, with a few MiB of it in memory."""

import hashlib
from typing import Final

from fleetbatch.store.base import Store
from fleetbatch.units import Sha256

_PIECE_BYTES: Final = 4 << 20
"""What is read at a time; most parts are smaller, and are read in one call."""


def stored_sha256(store: Store, key: str, size_bytes: int) -> Sha256:
    """Return the hash of an object of that size; raise MissingObject when there is none."""
    if size_bytes <= _PIECE_BYTES:
        return Sha256(hashlib.sha256(store.read(key)).hexdigest())
    found = hashlib.sha256()
    for start in range(0, size_bytes, _PIECE_BYTES):
        found.update(store.read_range(key, start, min(size_bytes, start + _PIECE_BYTES)))
    return Sha256(found.hexdigest())
