"""How a workload's input becomes rows: which rows an item of a source has, and what stands in one."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Protocol

import msgspec

from fleetbatch.errors import FleetbatchError, RejectedError, in_one_line
from fleetbatch.pixels import FORMATS, Unreadable, look
from fleetbatch.sharding.cut import Entry
from fleetbatch.sharding.group_items import GroupItems
from fleetbatch.sharding.shard_rows import Row, dead_row
from fleetbatch.sharding.sources import FILE, Source, open_source, read_file_into, why_not
from fleetbatch.units import MIB
from fleetbatch.workloads import blamed, workload
from fleetbatch.workloads.bounds import short

PROBE_BYTES = 64 * MIB
"""A larger item is not read to find out whether a source holds anything of use."""
REASONS_SHOWN = 5


class Reader(msgspec.Struct, frozen=True):
    """A source as an opener reads it: item by item, and each to where its row will lie."""

    source: Source
    items: GroupItems | None = None
    """Where the items go; None where they go nowhere."""

    def entries(self) -> Iterator[Entry]:
        """Yield the source's items."""
        return self.source.entries()

    def read(self, uri: str) -> bytes:
        """Return one item; raise OSError when it cannot be read."""
        return self.source.read(uri)

    def view(self, entry: Entry) -> bytes | memoryview:
        """Return one item, like `read`; a file's bytes are other ones once the next item is viewed."""
        if self.items is None or not entry.uri.startswith(FILE):
            return self.source.read(entry.uri)
        room = self.items.lend(entry.size_bytes + 1)  # the file's end shows in one byte more
        size_bytes = read_file_into(entry.uri, room)
        return self.source.read(entry.uri) if size_bytes is None else self.items.take_back(room[:size_bytes])


class Opener(Protocol):
    """Cuts input into rows; it pickles, so that an engine can do it elsewhere.

    A workload names one as `module:name`; that is called with the order's options.
    """

    @property
    def expects(self) -> str:
        """Return what a source must hold, for a person: "pictures (JPEG, PNG)"."""
        ...

    def entries(self, source: Source) -> Iterator[Entry]:
        """Yield what will be rows, in an order that is the same each time; an item may become several, or few read."""
        ...

    def row(self, source: Reader, entry: Entry) -> Row:
        """Read one row; what cannot be used is a row with an error. Raise OSError when it cannot be read.

        Whatever else it raises makes this row a dead letter, too.
        """
        ...


@dataclass(frozen=True, slots=True)
class Files:
    """Every item is a row, its bytes as they are."""

    options: Mapping[str, str]
    expects: str = "files"

    def entries(self, source: Source) -> Iterator[Entry]:
        """Yield the source's items."""
        return source.entries()

    def row(self, source: Reader, entry: Entry) -> Row:
        """Return the bytes; an empty file is a row too."""
        return Row(content=source.view(entry))


@dataclass(frozen=True, slots=True)
class Pictures:
    """Every item is a picture; one whose first bytes are not a picture's is dead."""

    options: Mapping[str, str]
    expects: str = "pictures (JPEG, PNG, BMP, WebP)"

    def entries(self, source: Source) -> Iterator[Entry]:
        """Yield the source's items."""
        return source.entries()

    def row(self, source: Reader, entry: Entry) -> Row:
        """Return the picture and what its header says."""
        content = source.view(entry)
        seen = look(content)
        if isinstance(seen, Unreadable):
            return dead_row(seen.reason)
        kind = seen.format if seen.format in FORMATS else "JPEG"  # Pillow calls a JPEG with a preview beside it MPO
        return Row(content=content, format=kind, width=seen.width, height=seen.height)


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A source and the way in which a workload cuts it."""

    name: str
    """What the order calls the source."""
    source: Source
    opener: Opener

    def entries(self) -> Iterator[Entry]:
        """Yield what will be rows; raise RejectedError for an opener that cannot list them, OSError for a source."""
        try:
            yield from self.opener.entries(self.source)
        except (OSError, FleetbatchError):
            raise
        except Exception as error:
            summary = f"source {self.name}: the workload's opener cannot list it: {in_one_line(error)}"
            raise RejectedError(summary) from error

    def row(self, entry: Entry, *, bytes_max: int, items: GroupItems | None = None) -> Row:
        """Read one row, its content to where it will lie in `items`; never raise for what is in the source."""
        row = self._opened(entry, items) if entry.error is None else dead_row(entry.error)
        if row.error is not None:
            return dead_row(short(row.error))
        if row.content is not None and len(row.content) > bytes_max:
            return dead_row(f"{len(row.content)} bytes when it was read; a shard holds {bytes_max}")
        return row

    def _opened(self, entry: Entry, items: GroupItems | None) -> Row:
        try:
            return self.opener.row(Reader(self.source, items), entry)
        except OSError as error:
            return dead_row(why_not(error))
        except Exception as error:  # noqa: BLE001 (an opener of somebody's own raises whatever it raises)
            return dead_row(f"it cannot be opened: {in_one_line(error)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a source holds, before anything of it is cut."""

    items: int
    size_bytes: int


def open_input(kind: str, source: str, options: Mapping[str, str]) -> Input:
    """Return an order's input; raise RejectedError when its source or its options cannot be used."""
    named = workload(kind).opener
    with blamed(f"workload {kind!r} cannot open its input with {named}"):
        opener: Opener = resolve_name(named)(dict(options))
    return Input(name=source, source=open_source(source, options), opener=opener)


def list_input(given: Input) -> Listing:
    """Count an input's rows and bytes; raise RejectedError when it holds nothing that can be used."""
    usable_row(given)
    items, size_bytes = 0, 0
    for entry in given.entries():
        items += 1
        size_bytes += entry.size_bytes
    return Listing(items=items, size_bytes=size_bytes)


def usable_row(given: Input) -> Row:
    """Return the first row that can be used; raise RejectedError when there is none, or no row at all."""
    items = 0
    reasons: list[str] = []
    for entry in given.entries():
        items += 1
        row = _probe(given, entry)
        if row.error is None:
            return row
        if len(reasons) < REASONS_SHOWN:
            reasons.append(f"{entry.uri}: {row.error}")
    if items == 0:
        summary = f"source {given.name} is empty: put {given.opener.expects} into it, or name another folder"
        raise RejectedError(summary)
    summary = f"source {given.name} holds {items} items and none can be used; expected {given.opener.expects}"
    raise RejectedError(summary, reasons)


def some_rows(given: Input, *, every: int) -> Iterator[Row]:
    """Yield one row of so many, from the first on, where it can be used."""
    for entry in itertools.islice(given.entries(), 0, None, every):
        row = _probe(given, entry)
        if row.error is None:
            yield row


def _probe(given: Input, entry: Entry) -> Row:
    if entry.size_bytes > PROBE_BYTES:
        return dead_row(f"{entry.size_bytes} bytes are too many to try")
    return given.row(entry, bytes_max=PROBE_BYTES)
