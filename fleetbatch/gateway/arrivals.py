"""What lies under the key of a part: a store's own word about sizes and hashes is not enough, so we read it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from fleetbatch.store import MissingObject, Store, stored_sha256
from fleetbatch.store.local import LocalStore
from fleetbatch.units import Sha256

Found = Literal["whole", "absent", "damaged"]

_READERS: Final = 16
"""How many objects of a store in the network are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What a car says that it put under a key."""

    key: str
    size: int
    sha256: Sha256


def look_at_all(store: Store, size_max: int, uploads: Sequence[Upload]) -> list[Found]:
    """Compare objects with what is said of them; a folder answers in no time, anything else is asked side by side."""
    one = partial(look_at, store, size_max)
    if isinstance(store, LocalStore) or len(uploads) == 1:
        return [one(upload) for upload in uploads]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(one, uploads))


def look_at(store: Store, size_max: int, upload: Upload) -> Found:
    """Compare an object with what is said of it, with a few MiB of it in memory.

    Its length, too, is the store's and not the car's: whatever counts a part's bytes from here on counts what is there.
    """
    size = store.size(upload.key)
    if size is None:
        return "absent"
    if size != upload.size or size > size_max:
        return "damaged"
    try:
        return "whole" if stored_sha256(store, upload.key, size) == upload.sha256 else "damaged"
    except MissingObject:
        return "absent"
