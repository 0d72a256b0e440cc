"""A stored object as a file that Arrow reads: of it are held its end, and the ranges that were asked for."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pyarrow.parquet as pq

TAIL_BYTES: Final = 64 << 10
"""Read first: the footer of a usual Parquet file lies in it."""

Fetch = Callable[[int, int], bytes]
"""(start, stop) to the bytes in between."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a file, from `start` on."""

    start: int
    data: bytes

    @property
    def stop(self) -> int:
        """Return where it ends."""
        return self.start + len(self.data)


class RangeFile(io.RawIOBase):
    """A read-only file over `fetch`; at most the tail and some spans that were fetched before are held."""

    def __init__(self, fetch: Fetch, size: int) -> None:
        """Fetch the tail at once."""
        super().__init__()
        self._fetch = fetch
        self._size = size
        self._at = 0
        self._near: tuple[Span, ...] = ()
        self.tail = self.hold_tail(TAIL_BYTES)

    def hold_tail(self, tail_bytes: int) -> Span:
        """Fetch another tail, in place of the one before; return it."""
        self.tail = self.span(max(0, self._size - tail_bytes), self._size)
        return self.tail

    def span(self, start: int, stop: int) -> Span:
        """Return the bytes [start, stop), which are fetched in any case; any thread may ask."""
        return Span(start, self._fetch(start, stop))

    def hold(self, *spans: Span) -> None:
        """Read from these spans, in place of those before, where one has what is asked for; the tail is held, too."""
        self._near = spans

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def seekable(self) -> bool:
        """Return that it is."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> memoryview:  # Arrow takes a view: a copy less
        """Return the next bytes, from what is held where possible."""
        stop = self._size if size < 0 else min(self._size, self._at + size)
        start, self._at = self._at, max(self._at, stop)
        for span in (*self._near, self.tail):
            if span.start <= start and stop <= span.stop:
                return memoryview(span.data)[start - span.start : stop - span.start]
        return memoryview(self._fetch(start, stop) if start < stop else b"")


def column_range(column: pq.ColumnChunkMetaData) -> tuple[int, int]:
    """Return where a row group's column lies in its file."""
    start = column.dictionary_page_offset or column.data_page_offset
    return start, start + column.total_compressed_size


def group_range(group: pq.RowGroupMetaData) -> tuple[int, int]:
    """Return where a row group lies in its file: from its first page to the end of its last."""
    ranges = [column_range(group.column(number)) for number in range(group.num_columns)]
    return min(start for start, _ in ranges), max(stop for _, stop in ranges)
