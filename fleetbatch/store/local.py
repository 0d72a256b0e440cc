"""A folder as a store: complete files appear under their names at once, and what was acknowledged survives a crash."""

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.store.base import MissingObject, SignedPut, checked_key
from fleetbatch.store.signing import PATH, UrlClaim, checked_url, signed_url
from fleetbatch.units import Sha256

_COPIED_AT_ONCE: Final = 1 << 30
_DIRECT: Final = getattr(os, "O_DIRECT", 0)
_BLOCK_BYTES: Final = 4096
_LARGE_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 4 << 20
ARRIVING: Final = ".arriving"
"""Half-written files live here, in the same file system as the objects, so that a link or rename finishes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalStore:
    """Objects are files under `root`; a gateway at `base_url` ("": URLs are paths) serves the URLs that `key` signs."""

    root: Path
    key: bytes
    base_url: str

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        with _reading(key):
            return _whole(self._name(key))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of an object."""
        with _reading(key), self.path(key).open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes, or None."""
        try:
            found = os.stat(self._name(key))  # noqa: PTH116 # pathlib would cost ten times the call
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def write(self, key: str, data: bytes) -> None:
        """Replace an object atomically."""
        path = self.path(key)
        with self._arriving(key) as (file, arriving):
            file.write(data)
            _settle(file)
            arriving.replace(path)
            _sync_folder(path.parent)

    def create(self, key: str, data: bytes | memoryview) -> bool:
        """Put an object unless the key is taken."""
        if self.path(key).exists():
            return False
        with self._arriving(key) as (file, arriving):
            _put(file, data)
            _settle(file)
            return self._link(arriving, key)

    def arrival(self, key: str) -> "LocalArrival":
        """Return an object that comes in pieces."""
        return LocalArrival(key, self._arriving(key), lambda arriving: self._link(arriving, key))

    def create_file(self, key: str, path: Path) -> bool:
        """Put a file's bytes unless the key is taken."""
        if self.path(key).exists():
            return False
        with path.open("rb") as source, self._arriving(key) as (file, arriving):
            _copy(source, file)
            _settle(file)
            return self._link(arriving, key)

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object into a file."""
        with _reading(key), self.path(key).open("rb") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)

    def copy(self, source: str, target: str) -> bool:
        """Link: objects are replaced, never changed in place, so two names may share bytes."""
        with _reading(source):
            origin = self.path(source)
            origin.stat()
        with _writing(target):
            _make_folder(self.path(target).parent)
            return self._link(origin, target)

    def delete(self, key: str) -> None:
        """Remove an object if it is there."""
        with _writing(key):
            self.path(key).unlink(missing_ok=True)

    def keys(self, prefix: str) -> Iterator[str]:
        """Give the keys that begin with a text, sorted."""
        folder = self.root / prefix.rpartition("/")[0]
        found = (p.relative_to(self.root).as_posix() for p in folder.rglob("*") if p.is_file())
        yield from sorted(k for k in found if k.startswith(prefix) and not k.startswith(ARRIVING))

    def uri(self, key: str) -> str:
        """Return the absolute path, which every reader opens."""
        return str(self.path(key))

    def storage_options(self) -> dict[str, str]:
        """Return nothing: a path needs no options."""
        return {}

    def sign_get(self, key: str, *, now: datetime, expires: timedelta) -> str:
        """Return a URL that reads one object."""
        claim = UrlClaim(method="GET", key=checked_key(key), expires_at=now + expires)
        return signed_url(self.key, claim, base_url=self.base_url)

    def sign_put(self, key: str, *, size: int, sha256: Sha256, now: datetime, expires: timedelta) -> SignedPut:
        """Return a URL that creates one object of at most this size and exactly this hash."""
        claim = UrlClaim(method="PUT", key=checked_key(key), expires_at=now + expires, size=size, sha256=sha256)
        headers = {"Content-Length": str(size), "If-None-Match": "*"}
        return SignedPut(url=signed_url(self.key, claim, base_url=self.base_url), headers=headers)

    def refuses(self, url: str, *, now: datetime) -> bool:
        """Check a URL as the gateway does."""
        parts = urlsplit(url)
        key = unquote(parts.path).removeprefix(PATH)
        return not isinstance(checked_url(self.key, "GET", key, dict(parse_qsl(parts.query)), now=now), UrlClaim)

    def path(self, key: str) -> Path:
        """Return where an object lies, or would lie."""
        return self.root / checked_key(key)

    def _name(self, key: str) -> str:
        return f"{self.root}/{checked_key(key)}"

    @contextlib.contextmanager
    def _arriving(self, key: str) -> Iterator[tuple[BinaryIO, Path]]:
        """Give a temporary file, gone afterwards in any case; the object's folder exists."""
        with _writing(key):
            _make_folder(self.path(key).parent)
            arriving = self.root / ARRIVING / os.urandom(12).hex()
            arriving.parent.mkdir(exist_ok=True)
            try:
                with arriving.open("xb") as file:
                    yield file, arriving
            finally:
                arriving.unlink(missing_ok=True)

    def _link(self, origin: Path, key: str) -> bool:
        target = self.path(key)
        try:
            os.link(origin, target)
        except FileExistsError:
            return False
        _sync_folder(target.parent)
        return True


class LocalArrival:
    """A file of no name of its own until it is kept."""

    def __init__(
        self,
        key: str,
        arriving: contextlib.AbstractContextManager[tuple[BinaryIO, Path]],
        link: Callable[[Path], bool],
    ) -> None:
        """Begin with nothing, and no file; `arriving` will make one, and `link` makes it the object."""
        self._key, self._arriving, self._link = key, arriving, link
        self._temporary = contextlib.ExitStack()
        self._opened: tuple[BinaryIO, Path] | None = None
        self.size = 0
        """Bytes so far."""

    @property
    def piece_bytes(self) -> int:
        """Return what fits into a processor's caches and is worth a write of its own; other sizes are taken too."""
        return _PIECE_BYTES

    def add(self, piece: bytes | memoryview) -> None:
        """Write what comes next."""
        if self._opened is None:
            self._opened = self._temporary.enter_context(self._arriving)
        with _writing(self._key):
            _put(self._opened[0], piece)
            self._opened[0].flush()  # what is written past the cache does not wait for what lies here
        self.size += len(piece)

    def keep(self) -> bool:
        """Make what came the object, durably; return False, changing nothing, when the key is taken."""
        if self._opened is None:
            self.add(b"")
        assert self._opened is not None
        file, arriving = self._opened
        with _writing(self._key):
            _settle(file)
            return self._link(arriving)

    def drop(self) -> None:
        """Remove the temporary file; a kept object stays."""
        self._temporary.close()


def _whole(name: str) -> bytes:
    """Return what a file holds, with half the system calls of an opened file: each lets other threads run instead."""
    descriptor = os.open(name, os.O_RDONLY)
    try:
        left_bytes = os.fstat(descriptor).st_size
        pieces = [os.read(descriptor, left_bytes or 1)]  # of a folder, too, so that it is said to be one
        while pieces[-1] and (left_bytes := left_bytes - len(pieces[-1])) > 0:
            pieces.append(os.read(descriptor, left_bytes))
        return b"".join(pieces)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _reading(key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise MissingObject(key) from error
    except OSError as error:
        raise _sorted(error, key) from error


@contextlib.contextmanager
def _writing(key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _sorted(error, key) from error


def _sorted(error: OSError, key: str) -> RejectedError | TransientError:
    if isinstance(error, PermissionError | NotADirectoryError | IsADirectoryError | FileExistsError):
        return RejectedError(f"the store's folder refuses {key!r}: {error.strerror}; check its owner and rights")
    return TransientError(f"the store's folder cannot serve {key!r} now: {error.strerror or error}")


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each durable in the one above."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    """Copy inside the kernel, and by hand what it cannot (another file system); nothing was read yet."""
    with contextlib.suppress(OSError, AttributeError):
        while os.copy_file_range(source.fileno(), target.fileno(), _COPIED_AT_ONCE):
            pass
    shutil.copyfileobj(source, target, 1 << 20)


def _put(file: BinaryIO, data: bytes | memoryview) -> None:
    file.write(data[_write_past_cache(file.fileno(), data) :])


def _write_past_cache(descriptor: int, data: bytes | memoryview) -> int:
    """Write the whole blocks of a large object to the disk without a copy in memory; return how many bytes that were.

    Shards are read hours later, and together they are larger than memory: a copy would only push out what is needed
    now, and making it costs more than writing. Where file system or place in memory do not allow it, the bytes go the
    usual way.
    """
    size_bytes = len(data) - len(data) % _BLOCK_BYTES
    if size_bytes < _LARGE_BYTES or not _DIRECT:
        return 0
    written, flags = 0, fcntl.fcntl(descriptor, fcntl.F_GETFL)
    with contextlib.suppress(OSError), memoryview(data) as view:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _DIRECT)
        while written < size_bytes:
            written += os.write(descriptor, view[written:size_bytes])
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    return written


def _settle(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
