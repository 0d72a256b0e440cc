"""Memory that a cut uses again for every shard: to get fresh pages costs more than to fill them."""

import mmap
from contextlib import suppress
from typing import Final

_HUGE_PAGES: Final = getattr(mmap, "MADV_HUGEPAGE", None)


class Scratch:
    """Memory that grows to what is asked of it; pages that nobody touched cost nothing."""

    def __init__(self, size_bytes: int = mmap.PAGESIZE) -> None:
        """Have room for so many bytes without other memory, none of it touched yet."""
        self._memory = _pages(size_bytes)

    def view(self) -> memoryview:
        """Return all there is, filled with anything."""
        return memoryview(self._memory)

    def grown(self, size_bytes: int, *, keep_bytes: int = 0) -> memoryview:
        """Return at least so many bytes; where there were fewer it is other memory, with what is kept in front."""
        if size_bytes > len(self._memory):
            before, self._memory = self._memory, _pages(max(size_bytes, 2 * len(self._memory)))
            self._memory[:keep_bytes] = memoryview(before)[:keep_bytes]
        return self.view()


def _pages(size_bytes: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if _HUGE_PAGES is not None:
        with suppress(OSError):  # a kernel that has none
            memory.madvise(_HUGE_PAGES)
    return memory
