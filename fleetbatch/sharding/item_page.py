"""The page of items that is being filled: every item is read to where it is sealed from."""

from typing import Final

from fleetbatch.sharding.parquet_parts import LENGTH, levels, levels_bytes_max
from fleetbatch.sharding.scratch import Scratch
from fleetbatch.units import KIB

_FULL_BYTES: Final = 128 * KIB
"""A page of more items than one stays within the processor's second cache; an item is never split."""


class ItemPage:
    """Items as a page has them, each behind its length, and in front of them which rows have one."""

    def __init__(self, memory: Scratch, *, rows_max: int) -> None:
        """Begin with none, over whatever the memory holds; so many rows come before the page is emptied, or fewer."""
        self._scratch = memory
        self._front = levels_bytes_max(rows_max)
        self._memory = memory.grown(self._front + _FULL_BYTES)
        self._stop = self._front
        self._lent: memoryview | None = None
        self._there: list[bool] = []

    def lend(self, size_bytes: int) -> memoryview:
        """Return so many bytes where the next row's item will lie, to be written to."""
        start = self._stop + LENGTH.size
        if start + size_bytes > len(self._memory):
            self._memory = self._scratch.grown(start + size_bytes, keep_bytes=self._stop)
        return self._memory[start : start + size_bytes]

    def take_back(self, item: memoryview) -> memoryview:
        """Return the beginning of what was lent as an item: a row that has it is added without a copy."""
        self._lent = item
        return item

    def add(self, content: bytes | memoryview | None) -> None:
        """Take the next row's item over, which may go afterwards, or that it has none."""
        self._there.append(content is not None)
        if content is not None:
            if content is not self._lent:
                self.lend(len(content))[:] = content
            LENGTH.pack_into(self._memory, self._stop, len(content))
            self._stop += LENGTH.size + len(content)
        self._lent = None

    @property
    def full(self) -> bool:
        """Whether it is time to seal it."""
        return self._stop - self._front >= _FULL_BYTES

    def __len__(self) -> int:
        """Count its rows."""
        return len(self._there)

    def plain(self) -> memoryview:
        """Return the page; another row spoils it."""
        there = levels(self._there)
        start = self._front - len(there)
        self._memory[start : self._front] = there
        return self._memory[start : self._stop]

    def empty(self) -> None:
        """Begin the next page in the same memory."""
        self._stop, self._there = self._front, []
