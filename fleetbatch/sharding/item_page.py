"""The page of items that is being filled: every item is read to where it is sealed from."""

from typing import Final

from fleetbatch.sharding.plain_pages import LEVELS_BYTES_MAX, ROWS_MAX, SIZE_BYTES, levels
from fleetbatch.sharding.scratch import Scratch
from fleetbatch.units import KIB

FULL_BYTES: Final = 128 * KIB
"""A page of so many bytes is full: small enough to be read, sealed and hashed inside the processor's second cache."""


class ItemPage:
    """Items as a page has them, in memory that is used again for every page."""

    def __init__(self, memory: Scratch) -> None:
        """Begin with none, over whatever the memory holds."""
        self._scratch = memory
        self._memory = memory.grown(LEVELS_BYTES_MAX + FULL_BYTES)
        self._stop, self._there = LEVELS_BYTES_MAX, list[bool]()
        self._lent: memoryview | None = None

    @property
    def rows(self) -> int:
        """Return how many rows it has."""
        return len(self._there)

    @property
    def is_full(self) -> bool:
        """Return whether it should be written before another row comes."""
        return self._stop >= FULL_BYTES or len(self._there) >= ROWS_MAX

    def lend(self, size_bytes: int) -> memoryview:
        """Return so many bytes where the next row's item will lie, to be written to."""
        start = self._stop + SIZE_BYTES
        if start + size_bytes > len(self._memory):
            self._memory = self._scratch.grown(start + size_bytes, keep_bytes=self._stop)
        return self._memory[start : start + size_bytes]

    def take_back(self, item: memoryview) -> memoryview:
        """Return the beginning of what was lent as an item: a row that has it is added without a copy."""
        self._lent = item
        return item

    def add(self, content: bytes | memoryview | None) -> None:
        """Take the next row's item over, which may go afterwards, or that it has none."""
        if content is not None:
            size_bytes, start = len(content), self._stop
            if content is not self._lent:
                self.lend(size_bytes)[:] = content
            self._memory[start : start + SIZE_BYTES] = size_bytes.to_bytes(SIZE_BYTES, "little")
            self._stop = start + SIZE_BYTES + size_bytes
        self._lent = None
        self._there.append(content is not None)

    def content(self) -> memoryview:
        """Return the page, without a copy: another row spoils it."""
        before = levels(self._there)
        start = LEVELS_BYTES_MAX - len(before)
        self._memory[start:LEVELS_BYTES_MAX] = before
        return self._memory[start : self._stop]

    def empty(self) -> None:
        """Begin the next page in the same memory."""
        self._stop, self._there = LEVELS_BYTES_MAX, []
