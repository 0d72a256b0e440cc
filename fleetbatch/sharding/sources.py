"""Where items come from: a folder, a list of files, or a generator named in the order."""

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol
from urllib.parse import parse_qsl, quote_from_bytes, unquote_to_bytes, urlsplit

from fleetbatch.errors import RejectedError
from fleetbatch.sharding import drive, road_signs
from fleetbatch.sharding.cut import Entry
from fleetbatch.sharding.sweep import DIALS as SWEEP_DIALS
from fleetbatch.sharding.sweep import sweep

FILE = "file://"
_UNQUOTED: Final = re.compile(r"[\w.~/-]*", re.ASCII)
"""A path that is its own quotation."""
GENERATOR = "generator:"
GENERATORS: Final[Mapping[str, Collection[str]]] = {
    "road-signs": road_signs.DIALS,
    "drive": drive.DIALS,
    "scenarios": SWEEP_DIALS,
}
"""Name to dials."""


class Source(Protocol):
    """A function that yields items; every implementation pickles, so that an engine can read it elsewhere."""

    def entries(self) -> Iterator[Entry]:
        """Yield every item in an order that is the same each time, none of them read."""
        ...

    def read(self, uri: str) -> bytes:
        """Return one item; raise OSError when it cannot be read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Every file under a folder, by name, folder by folder; names that begin with a dot are not items."""

    root: Path

    def entries(self) -> Iterator[Entry]:
        """Yield the files; a folder that cannot be listed is an item with an error, not silence."""
        return _walk(self.root)

    def read(self, uri: str) -> bytes:
        """Return a file's bytes."""
        return _read(uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileList:
    """The files that a text file names, one a line, relative to it; blank lines and # lines do not count."""

    listing: Path

    def entries(self) -> Iterator[Entry]:
        """Yield the files in the list's order; a name that is there twice is two items."""
        with self.listing.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in (raw.strip() for raw in lines):
                if line and not line.startswith("#"):
                    yield _listed(self.listing.parent / line)

    def read(self, uri: str) -> bytes:
        """Return a file's bytes."""
        return _read(uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoadSigns:
    """Drawn road signs (road_signs.py): as many as asked, the last `broken` of every hundred spoiled on purpose."""

    dials: road_signs.Drawing

    def entries(self) -> Iterator[Entry]:
        """Yield the pictures that will be drawn; their size is an upper bound."""
        for uri in road_signs.uris(self.dials):
            yield Entry(uri=uri, size_bytes=road_signs.SIZE_BYTES_MAX)

    def read(self, uri: str) -> bytes:
        """Draw one picture."""
        return road_signs.picture_file(uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """Videos of a drawn drive (drive.py)."""

    dials: drive.Driving

    def entries(self) -> Iterator[Entry]:
        """Yield the clips that will be drawn; their size is an estimate."""
        for uri in drive.uris(self.dials):
            yield Entry(uri=uri, size_bytes=self.dials.frames * drive.FRAME_BYTES)

    def read(self, uri: str) -> bytes:
        """Draw and encode one clip."""
        return drive.clip_file(uri)


def open_source(source: str, options: Mapping[str, str] = MappingProxyType({})) -> Source:
    """Return what an order's `source` names; raise RejectedError that says what it should be.

    A generator takes its dials from the order's options, of which others may be the workload's, and from its own query
    string, which wins and must hold nothing else.
    """
    if source.startswith(GENERATOR):
        return _generator(source, options)
    path = Path(source).expanduser().absolute()
    if path.is_dir():
        return Folder(root=path)
    if path.is_file():
        return FileList(listing=path)
    summary = f"source {source}: there is no such folder or file list; name a folder"
    raise RejectedError(summary)


def _generator(source: str, options: Mapping[str, str]) -> Source:
    parts = urlsplit(source.removeprefix(GENERATOR))
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    own = dict(pairs)
    if len(own) < len(pairs):
        twice = sorted(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        summary = f"source {source!r} says {', '.join(twice)} more than once"
        raise RejectedError(summary)
    told = {**{name: text for name, text in options.items() if name in dials_of(source)}, **own}
    match parts.path:
        case "road-signs":
            return RoadSigns(dials=road_signs.drawing(told))
        case "drive":
            return Drive(dials=drive.driving(told))
        case "scenarios":
            return sweep(told)
        case _:
            summary = f"source {source!r}: there is no generator {parts.path!r}; there are {', '.join(GENERATORS)}"
            raise RejectedError(summary)


def dials_of(source: str) -> frozenset[str]:
    """Return the options that are a source's, not its workload's: a generator's dials."""
    name = source.removeprefix(GENERATOR).partition("?")[0] if source.startswith(GENERATOR) else ""
    return frozenset(GENERATORS.get(name, ()))


def why_not(error: OSError) -> str:
    """Return in words why a file was not read, without its path: the row names it already."""
    return f"cannot be read: {error.strerror or error}"


def _walk(folder: Path) -> Iterator[Entry]:
    uri = _uri(os.fspath(folder))
    try:
        with os.scandir(folder) as found:
            children = sorted((e for e in found if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        yield Entry(uri=uri, size_bytes=0, error=f"the folder {why_not(error)}")
        return
    inside = uri.rstrip("/")
    for child in children:
        if child.is_dir(follow_symlinks=False):
            yield from _walk(folder / child.name)
        else:
            yield _entry(f"{inside}/{_quoted(child.name)}", child.stat)


def _listed(path: Path) -> Entry:
    path = path.absolute()
    return _entry(_uri(os.fspath(path)), path.stat)


def _entry(uri: str, look: Callable[[], os.stat_result]) -> Entry:
    try:
        status = look()
    except OSError as error:
        return Entry(uri=uri, size_bytes=0, error=why_not(error))
    except ValueError:
        return Entry(uri=uri, size_bytes=0, error="not the name of a file")
    if stat.S_ISDIR(status.st_mode):
        return Entry(uri=uri, size_bytes=0, error="a folder, or a link to one, which is not followed")
    if not stat.S_ISREG(status.st_mode):
        return Entry(uri=uri, size_bytes=0, error="not a regular file")
    return Entry(uri=uri, size_bytes=status.st_size)


def read_file_into(uri: str, memory: memoryview) -> int | None:
    """Read a file to the beginning of writable memory; return its size, or None where it has no end in there."""
    descriptor = os.open(_name_of(uri), os.O_RDONLY)  # `open` asks the kernel three things more
    try:
        size_bytes = 0
        while size_bytes < len(memory):
            got = os.readv(descriptor, (memory[size_bytes:],))
            if not got:
                return size_bytes
            size_bytes += got
    finally:
        os.close(descriptor)
    return None


def _read(uri: str) -> bytes:
    with open(_name_of(uri), "rb", buffering=0) as file:  # noqa: PTH123 # pathlib would cost more than the call
        return file.read()


def _uri(path: str) -> str:
    """Return the uri of an absolute path, as pathlib would, at a fifth of its price."""
    return FILE + _quoted(path)


def _quoted(path: str) -> str:
    return path if _UNQUOTED.fullmatch(path) else quote_from_bytes(os.fsencode(path))


def _name_of(uri: str) -> str:
    name = uri.removeprefix(FILE)
    return os.fsdecode(unquote_to_bytes(name)) if "%" in name else name


def path_of(uri: str) -> Path:
    """Return where the file lies that a uri of a folder or a list names."""
    return Path(_name_of(uri))
