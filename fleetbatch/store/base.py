"""What a store is: bytes under keys, and URLs that carry one right each."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from fleetbatch.errors import FleetbatchError, RejectedError
from fleetbatch.units import Sha256

_AMBIGUOUS: Final = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\\]")
"""An empty segment, `.` or `..`, or a character that some store or shell takes for another."""
_PLAIN: Final = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)*", re.ASCII)
"""What keys usually look like: found good in a quarter of the time, and the same in a URL."""


class MissingObject(FleetbatchError):  # noqa: N818 # said as the rooms say it: "the object is missing"
    """There is no object under this key; whoever asked knows what that means."""

    def __init__(self, key: str) -> None:
        """Keep the key."""
        self.key = key
        super().__init__(f"there is no object {key!r} in the store")

    def __reduce__(self) -> "tuple[type[MissingObject], tuple[str]]":
        """Pickle by the key, so that it passes from a child process to its parent."""
        return (type(self), (self.key,))


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPut:
    """A URL that takes exactly one object, and the headers that must be sent with it."""

    url: str
    headers: dict[str, str]


class Arrival(Protocol):
    """An object that comes in pieces: nobody sees anything of it before it is kept; `drop` must end it in any case.

    One call at a time, from whatever thread.
    """

    @property
    def piece_bytes(self) -> int | None:
        """Return how large pieces should be, the last one aside; None: the object comes whole, as its only piece."""
        ...

    def add(self, piece: bytes | memoryview) -> None:
        """Take what comes next; only an object's one piece must stay as it is until it is kept."""
        ...

    def keep(self) -> bool:
        """Make what came the object, durably; return False, changing nothing, when the key is taken."""
        ...

    def drop(self) -> None:
        """Forget what came; a kept object stays."""
        ...


class Store(Protocol):
    """A flat space of objects; keys come from `layout`. All calls may be made from several threads.

    Reads raise MissingObject; every call raises TransientError when the store is not reachable now, and RejectedError
    when it refuses us for good (rights, an impossible key).
    """

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        ...

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of an object; fewer when it ends before."""
        ...

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes, or None when there is none."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Put or replace an object; a reader sees the old or the new one, whole."""
        ...

    def create(self, key: str, data: bytes | memoryview) -> bool:
        """Put an object that nobody may replace; return False, changing nothing, when the key is taken."""
        ...

    def create_file(self, key: str, path: Path) -> bool:
        """Like `create`, from a file."""
        ...

    def arrival(self, key: str) -> Arrival:
        """Return an object that comes in pieces, or whole where the store takes no pieces; `keep` is like `create`."""
        ...

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object into a file."""
        ...

    def copy(self, source: str, target: str) -> bool:
        """Copy inside the store; return False, changing nothing, when the target is taken."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; removing what is not there is no error."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Give the keys that begin with a text, sorted."""
        ...

    def uri(self, key: str) -> str:
        """Return what polars, DuckDB and deltalake open."""
        ...

    def storage_options(self) -> dict[str, str]:
        """Return what polars and deltalake need beside the URI."""
        ...

    def sign_get(self, key: str, *, now: datetime, expires: timedelta) -> str:
        """Return a URL that reads one object, ranges too, until it expires."""
        ...

    def sign_put(self, key: str, *, size: int, sha256: Sha256, now: datetime, expires: timedelta) -> SignedPut:
        """Return a URL that creates one object of this size and hash, once, until it expires."""
        ...

    def refuses(self, url: str, *, now: datetime) -> bool:
        """Tell whether a signed URL to read is refused, as a forged one must be (the capability probe asks)."""
        ...


def checked_key(key: str) -> str:
    """Return the key; raise RejectedError for one that could mean another place than it says."""
    if _PLAIN.fullmatch(key) is None and _AMBIGUOUS.search(key):
        summary = f"{key!r} is not an object key; keys are names joined by single slashes"
        raise RejectedError(summary)
    return key


def quoted_key(key: str) -> str:
    """Return a checked key as it stands in a URL."""
    return key if _PLAIN.fullmatch(key) else quote(key)
