"""The items of the row group that is being filled: every one is read to where the writer takes it from."""

from array import array
from typing import Any

import pyarrow as pa

from fleetbatch.sharding.scratch import Scratch


class GroupItems:
    """Items one after the other, in memory that is used again for every row group."""

    def __init__(self, memory: Scratch) -> None:
        """Begin with none, over whatever the memory holds."""
        self._scratch, self._memory = memory, memory.view()
        self._stops, self._there = [0], list[bool]()
        self._lent: memoryview | None = None

    def lend(self, size_bytes: int) -> memoryview:
        """Return so many bytes where the next row's item will lie, to be written to."""
        start = self._stops[-1]
        if start + size_bytes > len(self._memory):
            self._memory = self._scratch.grown(start + size_bytes, keep_bytes=start)
        return self._memory[start : start + size_bytes]

    def take_back(self, item: memoryview) -> memoryview:
        """Return the beginning of what was lent as an item: a row that has it is added without a copy."""
        self._lent = item
        return item

    def add(self, content: bytes | memoryview | None) -> None:
        """Take the next row's item over, which may go afterwards, or that it has none."""
        size_bytes = 0 if content is None else len(content)
        if content is not None and content is not self._lent:
            self.lend(size_bytes)[:] = content
        self._lent = None
        self._stops.append(self._stops[-1] + size_bytes)
        self._there.append(content is not None)

    def array(self) -> "pa.Array[Any]":
        """Return the items, null where there is none, without a copy: another row spoils them."""
        there = None if all(self._there) else pa.array(self._there, pa.bool_()).buffers()[1]
        items = pa.py_buffer(self._memory[: self._stops[-1]])
        return pa.Array.from_buffers(
            pa.binary(), len(self._there), [there, pa.py_buffer(array("i", self._stops)), items]
        )

    def empty(self) -> None:
        """Begin the next row group in the same memory."""
        self._stops, self._there = [0], []
