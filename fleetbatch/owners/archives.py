"""One car's leases in the nights that left the ledger: of each night's file a footer and a row group are read."""

import datetime as dt
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.errors import RejectedError
from fleetbatch.ledger.book import EndedLease, ended_lease
from fleetbatch.store import Store
from fleetbatch.units import CarId, CellName

_READERS: Final = 8
"""Nights that are read at a time: an object store answers each range after some tens of milliseconds."""
_TAIL_BYTES: Final = 64 << 10
"""Read first, in the hope that it holds the whole footer."""
_GAP_BYTES: Final = 64 << 10
"""Columns that lie nearer to each other are read in one range."""
_LEASE: Final = (
    *("night", "shard_id", "fence", "order_no", "car_id", "credit", "start", "done_through", "busy_s"),
    *("energy_wh", "delivered_wh", "delivered_rows"),
)
_BYTES: Final = ("bytes_read", "bytes_sent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The nights of one cell that were archived."""

    store: Store
    cell: CellName

    def ended_leases(self, car: CarId) -> list[EndedLease]:
        """Return what a car did in archived nights, by night; a night that was archived twice may tell a lease twice.

        Time grows with the number of nights, memory with the car's own leases. Raises RejectedError for a file that
        cannot be read.
        """
        keys = list(self.store.keys(layout.archives(self.cell, "leases")))
        with ThreadPoolExecutor(_READERS) as readers:
            found = list(readers.map(lambda key: self._night(key, car), keys))
        return [lease for night in found for lease in night]

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
        sent: dict[tuple[int, int, int], int] = {}
        for row in self._of(night, "parts", shard_ids, ("shard_id", "fence", "start", "size_bytes")):
            sent[row["shard_id"], row["fence"], row["start"]] = row["size_bytes"]
        return [row | _bytes(row, shards[row["shard_id"]], sent) for row in rows]

    def _of(
        self, night: dt.date, table: str, shard_ids: Sequence[int], columns: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        for key in self.store.keys(layout.archived(self.cell, table, str(night))):
            yield from _rows_with(self.store, key, "shard_id", shard_ids, columns)


def _bytes(lease: dict[str, Any], shard: dict[str, Any], sent: dict[tuple[int, int, int], int]) -> dict[str, int]:
    """Return what the ledger's `archive_leases` says of a lease. Pure."""
    done = lease["done_through"] - lease["start"]
    parts = (
        size for (shard_id, fence, _), size in sent.items() if (shard_id, fence) == (lease["shard_id"], lease["fence"])
    )
    return {"bytes_read": shard["size_bytes"] * done // shard["row_groups"], "bytes_sent": sum(parts)}


def _rows_with(
    store: Store, key: str, column: str, wanted: Sequence[int], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the rows of an object whose column is one of the wanted; columns that it lacks are left out.

    One row group is in memory at a time. Raises RejectedError for an object that is no Parquet file.
    """
    ranges = _Ranges(store, key)
    rows: list[dict[str, Any]] = []
    try:
        with pq.ParquetFile(pa.PythonFile(ranges, mode="r"), pre_buffer=False) as file:
            names = file.schema_arrow.names
            asked = [name for name in columns if name in names]
            for group in _groups(file.metadata, names.index(column), wanted):
                ranges.hold(_spans(file.metadata.row_group(group), frozenset(asked)))
                table = file.read_row_group(group, columns=asked, use_threads=False)
                rows += table.filter(pc.is_in(table[column], pa.array(wanted, pa.int64()))).to_pylist()
    except (pa.ArrowException, ValueError, OSError) as error:
        summary = f"the archive {key} cannot be read ({error}); restore it from a copy of the store"
        raise RejectedError(summary) from error
    return rows


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
        start = min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset)
        stop = start + column.total_compressed_size
        if spans and start - spans[-1][1] <= _GAP_BYTES:
            spans[-1] = spans[-1][0], stop
        else:
            spans.append((start, stop))
    return spans


class _Ranges(io.RawIOBase):
    """An object as a file: reads are served from a few ranges that are held; any other is a range of its own."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key, self._at = store, key, 0
        self._size = store.size(key) or 0
        self._held: list[tuple[int, bytes]] = []
        self.hold([(max(0, self._size - _TAIL_BYTES), self._size)])

    def hold(self, spans: Sequence[tuple[int, int]]) -> None:
        """Read these ranges, and let go of those before."""
        self._held = [(start, self._store.read_range(self._key, start, stop)) for start, stop in spans]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._at + size, self._size)
        first, self._at = self._at, max(stop, self._at)
        for start, data in self._held:
            if start <= first and stop <= start + len(data):
                return data[first - start : stop - start]
        return self._store.read_range(self._key, first, stop) if first < stop else b""
