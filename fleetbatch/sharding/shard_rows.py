"""The rows of a shard before they are written: gathered one by one, handed over as tables that copy no item."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Final

import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.sharding.scratch import Scratch
from fleetbatch.units import KIB, ShardId, shard_hex

_ROW_BYTES: Final = 1024
_ROW_GROUP_BYTES: Final = 16 * KIB
_FILE_BYTES: Final = 64 * KIB
"""More than Parquet writes around a row but for its texts, around a row group, and around a file."""
_TEXT_BYTES: Final = 1024
"""More than most rows' texts take; it is reserved, not touched."""
_BESIDE_THE_ITEM: Final = {
    "format": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "attributes": pa.string(),
    "error": pa.string(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One item as read."""

    content: bytes | memoryview | None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    attributes: str | None = None
    """What only the workload understands, as JSON: for instance the first frame of a segment."""
    error: str | None = None
    answers: int | None = 1
    """Answers that the row must have, unless it turns out dead; None: at least one. It stays on trusted machines."""


def item_id(shard: ShardId, row: int) -> str:
    """Return the id of a shard's row, unique everywhere."""
    return f"{shard_hex(shard)}-{row:06d}"


def dead_row(error: str) -> Row:
    """Return a row that can never be computed, and why."""
    return Row(content=None, error=error)


def room_around(rows: int, groups: int, texts_bytes: int) -> int:
    """Return a bound of what Parquet writes around the items of so many rows: pages, seals, index and footer."""
    return texts_bytes + _ROW_BYTES * rows + _ROW_GROUP_BYTES * groups + _FILE_BYTES


class ShardRows:
    """The rows of one shard, gathered column by column; their items lie one after the other in scratch memory.

    In front of them is room for all that a sealed file has around its items: so the file can be written to the same
    memory from its beginning, over items that it holds already, and never reaches one that is still to be written.
    """

    def __init__(self, memory: Scratch, size_bytes: int, *, rows: int = 0, groups: int = 0) -> None:
        """Expect so many rows, in so many row groups, with items of about that size in all; more find room too."""
        self._scratch = memory
        self._front = room_around(rows, groups, _TEXT_BYTES * rows)
        self._memory = memory.view(self._front + size_bytes)
        self._stops: list[int] = [0]
        self._lent: memoryview | None = None
        self._there: list[bool] = []
        self._columns: dict[str, list[Any]] = {name: [] for name in (*_BESIDE_THE_ITEM, "answers")}

    def lend(self, size_bytes: int) -> memoryview:
        """Return so many bytes where the next row's item will lie, to be written to."""
        return self._room(size_bytes)

    def take_back(self, item: memoryview) -> memoryview:
        """Return the beginning of what was lent as an item: a row that has it is added without a copy."""
        self._lent = item
        return item

    def add(self, row: Row) -> None:
        """Take a row over; its content may go afterwards."""
        size_bytes = 0 if row.content is None else len(row.content)
        if row.content is not None and row.content is not self._lent:
            self._room(size_bytes)[:] = row.content
        self._lent = None
        self._stops.append(self._stops[-1] + size_bytes)
        self._there.append(row.content is not None)
        for name, values in self._columns.items():
            values.append(getattr(row, name))

    @property
    def answers(self) -> tuple[int | None, ...]:
        """By row: how many it must have, None when only computing it can tell."""
        return tuple(self._columns["answers"])

    @property
    def dead(self) -> int:
        """Count the rows that can never be computed."""
        return len(self) - self._columns["error"].count(None)

    def memory(self, groups: int) -> memoryview:
        """Return memory that holds their file with so many row groups, and in which they lie as far back as it needs.

        Items that lie nearer to its beginning are moved.
        """
        texts = sum(len(text or "") for name in ("attributes", "error") for text in self._columns[name])
        self._lie_behind(room_around(len(self), groups, 4 * texts), self._stops[-1])
        return self._memory

    def place(self, row: int) -> int:
        """Return where in the memory a row's item begins; behind the last row, where the items end."""
        return self._front + self._stops[row]

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._stops) - 1

    def table(self, shard: ShardId, groups: Sequence[int]) -> pa.Table:
        """Return the rows, so many in each row group, as contract `shard` has them; the items are not copied."""
        items = [self._contents(start, stop) for start, stop in pairwise(accumulate(groups, initial=0))]
        columns = {
            "item_id": pa.array([item_id(shard, row) for row in range(len(self))], pa.string()),
            "bytes": pa.chunked_array(items, pa.binary()),
            **{name: pa.array(self._columns[name], kind) for name, kind in _BESIDE_THE_ITEM.items()},
        }
        return conform(pa.table(columns), "shard")

    def _room(self, size_bytes: int) -> memoryview:
        """Return so many bytes behind the last item, in larger memory where there are no more."""
        start = self._front + self._stops[-1]
        if start + size_bytes > len(self._memory):
            self._lie_behind(self._front, 2 * (self._stops[-1] + size_bytes))
        return self._memory[start : start + size_bytes]

    def _lie_behind(self, front: int, size_bytes: int) -> None:
        """Have at least so much room in front of the items, and so much from the first of them on."""
        if front <= self._front and self._front + size_bytes <= len(self._memory):
            return
        front = max(front, self._front)
        filled = self._memory[self._front : self._front + self._stops[-1]]
        self._memory = self._scratch.view(front + size_bytes)
        self._memory[front : front + len(filled)] = filled  # may be the same memory; a memoryview moves it right
        self._front = front

    def _contents(self, start: int, stop: int) -> "pa.Array[Any]":
        """Return the items of rows [start, stop), null where there is none."""
        first, last = self._stops[start], self._stops[stop]
        offsets = pa.array([place - first for place in self._stops[start : stop + 1]], pa.int32())
        there = pa.array(self._there[start:stop], pa.bool_())
        items = self._memory[self._front + first : self._front + last]
        return pa.Array.from_buffers(
            pa.binary(), stop - start, [there.buffers()[1], offsets.buffers()[1], pa.py_buffer(items)]
        )
