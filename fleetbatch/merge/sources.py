"""An order's sources, read in the order of its shards: what is held is a shard and a row group, not a file."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import conform, empty
from fleetbatch.errors import RejectedError
from fleetbatch.nouns import OrderKey
from fleetbatch.ranges import RangeFile
from fleetbatch.store import MissingObject, Store
from fleetbatch.units import ShardId, shard_hex

_PROBLEMS_SHOWN: Final = 20


class SourceRows:
    """The rows of some shards that follow each other in the table of sources, taken once, from the first one on."""

    def __init__(self, store: Store, order: OrderKey, first_row: int) -> None:
        """Read the footer only."""
        self._order = order
        self._file = pq.ParquetFile(pa.PythonFile(_opened(store, layout.sources(order)), mode="r"))
        self._group, self._behind = 0, first_row
        """The next row group to read, and how many rows of it come before what is wanted."""
        while self._group < self._file.num_row_groups and self._group_rows(self._group) <= self._behind:
            self._behind -= self._group_rows(self._group)
            self._group += 1
        self._held = empty("sources")

    def refuse_others(self, shards: Sequence[tuple[ShardId, int]]) -> None:
        """Raise RejectedError when the rows that come are not so many of each of these shards, in their order."""
        planned = np.repeat(np.array([shard for shard, _ in shards], np.uint64), [rows for _, rows in shards])
        found = self._shards(planned.size)
        if found.size == planned.size and (found == planned).all():
            return
        known = {shard for shard, _ in shards}
        short = np.unique(planned[: found.size][found != planned[: found.size]])
        odd = {*map(int, short), *({*map(int, np.unique(found))} ^ known)} or known
        summary = f"the sources of {self._order} are not those of its manifest; cut the order again (force)"
        names = sorted(shard_hex(ShardId(shard)) for shard in odd)
        raise RejectedError(summary, [f"shard {name}" for name in names[:_PROBLEMS_SHOWN]])

    def take(self, rows: int) -> pa.Table:
        """Return the next rows by contract `sources`; fewer where there are no more."""
        while self._held.num_rows < rows and self._group < self._file.num_row_groups:
            read = conform(self._file.read_row_group(self._group, use_threads=False), "sources")
            held = [self._held] if self._held.num_rows else []
            self._held = pa.concat_tables([*held, read.slice(self._behind)])
            self._group, self._behind = self._group + 1, 0
        taken, self._held = self._held.slice(0, rows), self._held.slice(rows)
        return taken

    def _shards(self, rows: int) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
        """Return the shards of the next rows, without moving on."""
        stop, there = self._group, -self._behind
        while stop < self._file.num_row_groups and there < rows:
            there += self._group_rows(stop)
            stop += 1
        groups = list(range(self._group, stop))
        column = self._file.read_row_groups(groups, columns=["shard_id"], use_threads=False)["shard_id"]
        return column.slice(self._behind, rows).cast(pa.uint64()).to_numpy()

    def _group_rows(self, group: int) -> int:
        return self._file.metadata.row_group(group).num_rows


def _opened(store: Store, key: str) -> RangeFile:
    size = store.size(key)
    if size is None:
        raise MissingObject(key)
    return RangeFile(partial(store.read_range, key), size)
