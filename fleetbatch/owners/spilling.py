"""A night's archived rows, laid aside on disk by ranges of shards: what belongs together is read together, and no more.

Leases are archived by car, and the book has them by shard; a whole night of a full cell is millions of leases.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from fleetbatch.units import ID_BITS

_RANGES_MAX: Final = 256
"""Each is an open file while rows are laid aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRanges:
    """All ids of shards, in ranges of equal width; ids are hashes, so that each range has about as many."""

    count: int

    @classmethod
    def of(cls, rows: int, *, at_a_time: int) -> "ShardRanges":
        """Return as many ranges as it takes, 256 at most, to have about `at_a_time` of so many rows in one."""
        return cls(count=max(1, min(_RANGES_MAX, -(-rows // at_a_time))))

    def __iter__(self) -> Iterator[range]:
        """Give the ranges, from the lowest ids to the highest."""
        for number in range(self.count):
            yield range(number * self._width, min((number + 1) * self._width, 1 << ID_BITS))

    def places(self, shard_ids: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Return in which range each id lies."""
        return shard_ids // self._width if self.count > 1 else np.zeros_like(shard_ids)

    @property
    def _width(self) -> int:
        return -(-(1 << ID_BITS) // self.count)


class Spill:
    """Rows of one table that were laid aside, a file a range."""

    def __init__(self, folder: Path, ranges: ShardRanges, tables: Iterable[pa.Table]) -> None:
        """Lay aside what these tables hold, which come one at a time and have a column `shard_id`."""
        self._folder, self._ranges = folder, ranges
        folder.mkdir()
        with ExitStack() as files:
            writers: dict[int, pa.RecordBatchStreamWriter] = {}
            for table in tables:
                for place, rows in self._apart(table):
                    if place not in writers:
                        writers[place] = files.enter_context(pa.ipc.new_stream(str(self._path(place)), rows.schema))
                    writers[place].write_table(rows)

    def rows(self, place: int) -> Iterator[dict[str, Any]]:
        """Give the rows of a range, in the order in which they were laid aside."""
        path = self._path(place)
        if not path.exists():
            return
        with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as batches:
            for batch in batches:
                yield from batch.to_pylist()

    def _apart(self, table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
        places = self._ranges.places(table["shard_id"].to_numpy())
        order = np.argsort(places, kind="stable")
        found, firsts = np.unique(places[order], return_index=True)
        in_order = table.take(order)
        for place, first, stop in zip(found.tolist(), firsts, [*firsts[1:], len(order)], strict=True):
            yield place, in_order.slice(first, stop - first)

    def _path(self, place: int) -> Path:
        return self._folder / f"{place}.arrows"
