"""One car's leases in the nights that left the ledger: of each night's file a footer and a row group are read.

What is read is what was written: the footer has the hash that the file's name tells, and pages have their checksums.
Arrow ends the process over a footer with certain wrong bits, and tells other leases over pages with others.
"""

import datetime as dt
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.errors import RejectedError
from fleetbatch.ledger.book import EndedLease, ended_lease
from fleetbatch.ranges import RangeFile, column_range
from fleetbatch.store import Store, stored_sha256
from fleetbatch.units import CarId, CellName, Sha256

_READERS: Final = 8
"""Nights that are read at a time: an object store answers each range after some tens of milliseconds."""
_GAP_BYTES: Final = 64 << 10
"""Columns that lie nearer to each other are read in one range."""
_DIGITS: Final = 16
"""Of a hash, in a file's name."""
_END: Final = 8
"""Bytes that end a file: how long its footer is, and four letters."""
_LEASE: Final = (
    *("night", "shard_id", "fence", "order_no", "car_id", "credit", "start", "done_through", "busy_s"),
    *("energy_wh", "delivered_wh", "delivered_rows"),
)
_BYTES: Final = ("bytes_read", "bytes_sent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """An archived night of which a file cannot be read, and what an operator does about it."""

    night: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The nights of one cell that were archived."""

    store: Store
    cell: CellName

    def ended_leases(self, car: CarId) -> tuple[list[EndedLease], list[Unreadable]]:
        """Return what a car did in archived nights, by night, and which files could not be read.

        A night that was archived twice may tell a lease twice. Time grows with the number of nights, memory with the
        car's own leases. What a file that is damaged holds of the car nobody knows: its whole night is in doubt.
        """
        keys = list(self.store.keys(layout.archives(self.cell, "leases")))
        with ThreadPoolExecutor(_READERS) as readers:
            found = list(readers.map(lambda key: self._told(key, car), keys))
        leases = [lease for night in found if not isinstance(night, Unreadable) for lease in night]
        return leases, [night for night in found if isinstance(night, Unreadable)]

    def _told(self, key: str, car: CarId) -> list[EndedLease] | Unreadable:
        try:
            return self._night(key, car)
        except RejectedError as error:
            return Unreadable(night=layout.archived_night(key), why=str(error))

    def _night(self, key: str, car: CarId) -> list[EndedLease]:
        rows = _rows_with(self.store, key, "car_id", [car], (*_LEASE, *_BYTES))
        if rows and _BYTES[0] not in rows[0]:
            rows = self._with_bytes(rows)
        return [ended_lease(row) for row in rows]

    def _with_bytes(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Complete the leases of an archive from before it told their bytes, from the night's shards and parts."""
        night, shard_ids = rows[0]["night"], sorted({row["shard_id"] for row in rows})
        shards = {
            row["shard_id"]: row
            for row in self._of(night, "shards", shard_ids, ("shard_id", "size_bytes", "row_groups"))
        }
        parts = {
            (row["shard_id"], row["fence"], row["start"]): row["size_bytes"]  # once, however often it was archived
            for row in self._of(night, "parts", shard_ids, ("shard_id", "fence", "start", "size_bytes"))
        }
        sent: Counter[tuple[int, int]] = Counter()
        for (shard_id, fence, _), size_bytes in parts.items():
            sent[shard_id, fence] += size_bytes
        if lost := set(shard_ids) - set(shards):
            summary = f"the archives of {self.cell} have a lease of shard {min(lost):016x}, night {night}, and no shard"
            raise RejectedError(summary)
        return [row | _bytes(row, shards[row["shard_id"]], sent) for row in rows]

    def _of(
        self, night: dt.date, table: str, shard_ids: Sequence[int], columns: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        for key in self.store.keys(layout.archived(self.cell, table, str(night))):
            yield from _rows_with(self.store, key, "shard_id", shard_ids, columns)


def _bytes(lease: dict[str, Any], shard: dict[str, Any], sent: Counter[tuple[int, int]]) -> dict[str, int]:
    """Return what the ledger's `archive_leases` says of a lease. Pure."""
    done = lease["done_through"] - lease["start"]
    bytes_read = shard["size_bytes"] * done // shard["row_groups"]
    return {"bytes_read": bytes_read, "bytes_sent": sent[lease["shard_id"], lease["fence"]]}


def archive_key(cell: CellName, table: str, night: dt.date, path: Path) -> str:
    """Return under what name a file is archived."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(-_END, io.SEEK_END)
        file.seek(-_footer_bytes(file.read()), io.SEEK_END)
        footer_sha256 = hashlib.sha256(file.read()).hexdigest()
    return layout.archive(cell, table, str(night), Sha256(sha256), Sha256(footer_sha256))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFile:
    """One file of a night's rows."""

    store: Store
    key: str

    def rows(self) -> int:
        """Return how many there are; only the footer is read."""
        with _parquet(self.key, _opened(self.store, self.key)) as file:
            return int(file.metadata.num_rows)

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Give these columns of all rows, a row group at a time.

        Raises RejectedError, before any, when the file is not what was written: its hash is compared as a whole.
        """
        _refuse_changed(self.store, self.key)
        ranges = _opened(self.store, self.key)
        with _parquet(self.key, ranges) as file:
            for group in range(file.metadata.num_row_groups):
                yield _read_group(ranges, file, group, columns)


def _refuse_changed(store: Store, key: str) -> None:
    """Raise RejectedError when an archive is not what was written; a few MiB of it are in memory at a time."""
    sha256 = stored_sha256(store, key, store.size(key) or 0)
    if sha256[:_DIGITS] != layout.archive_hashes(key)[0]:
        raise _damaged(key, "it is not what was written")


def _rows_with(
    store: Store, key: str, column: str, wanted: Sequence[int], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the rows of an archive whose column is one of the wanted; columns that it lacks are left out.

    One row group is in memory at a time. Raises RejectedError for a file that is not what was written.
    """
    ranges = _opened(store, key)
    rows: list[dict[str, Any]] = []
    with _parquet(key, ranges) as file:
        for group in _groups(file.metadata, file.schema_arrow.names.index(column), wanted):
            table = _read_group(ranges, file, group, columns)
            rows += table.filter(pc.is_in(table[column], pa.array(wanted, pa.int64()))).to_pylist()
    return rows


@contextmanager
def _parquet(key: str, ranges: RangeFile) -> Iterator[pq.ParquetFile]:
    """Open an archive; whatever cannot be read of it is a RejectedError."""
    try:
        source = pa.PythonFile(ranges, mode="r")
        with pq.ParquetFile(source, pre_buffer=False, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, ValueError, OSError) as error:
        raise _damaged(key, str(error)) from error


def _read_group(ranges: RangeFile, file: pq.ParquetFile, group: int, columns: Sequence[str]) -> pa.Table:
    """Return those columns of a row group that the file has."""
    asked = [name for name in columns if name in file.schema_arrow.names]
    near = _spans(file.metadata.row_group(group), frozenset(asked))
    ranges.hold(*(ranges.span(start, stop) for start, stop in near))
    return file.read_row_group(group, columns=asked, use_threads=False)


def _opened(store: Store, key: str) -> RangeFile:
    """Return an archive as a file; raise RejectedError for another footer, or for any other bit where none was told."""
    file = RangeFile(partial(store.read_range, key), store.size(key) or 0)
    footer_bytes = _footer_bytes(file.tail.data)
    if footer_bytes > len(file.tail.data):
        file.hold_tail(footer_bytes)
    footer_sha256 = layout.archive_hashes(key)[1]
    if not footer_sha256:
        _refuse_changed(store, key)
    elif hashlib.sha256(file.tail.data[-footer_bytes:]).hexdigest()[:_DIGITS] != footer_sha256:
        raise _damaged(key, "its footer is not what was written")
    return file


def _damaged(key: str, why: str) -> RejectedError:
    return RejectedError(f"the archive {key} cannot be read ({why}); restore it from a copy of the store")


def _footer_bytes(end: bytes) -> int:
    """Return how many of a Parquet file's last bytes its footer is, as the very last say. Pure."""
    return int.from_bytes(end[-_END:-4], "little") + _END


def _groups(metadata: pq.FileMetaData, column: int, wanted: Sequence[int]) -> Iterator[int]:
    """Give the row groups that may hold one of the wanted values, which are sorted. Pure."""
    for group in range(metadata.num_row_groups):
        told = metadata.row_group(group).column(column).statistics
        least, most = (told.min, told.max) if told is not None else (None, None)
        if least is None or most is None or any(least <= value <= most for value in wanted):
            yield group


def _spans(group: pq.RowGroupMetaData, asked: frozenset[str]) -> list[tuple[int, int]]:
    """Return the ranges of an object in which these columns lie, near ones in one. Pure."""
    spans: list[tuple[int, int]] = []
    for n in range(group.num_columns):
        column = group.column(n)
        if column.path_in_schema not in asked:
            continue
        start, stop = column_range(column)
        if spans and start - spans[-1][1] <= _GAP_BYTES:
            spans[-1] = spans[-1][0], stop
        else:
            spans.append((start, stop))
    return spans
