"""A sealed shard is read by HTTP ranges: its end once, then one request per row group, held sealed until it is read."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch.errors import RejectedError
from fleetbatch.sealing import unseal

TAIL_BYTES: Final = 64 << 10
"""Read first: the footer and the page index of a shard lie in it."""

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


_NOTHING: Final = Span(0, b"")


class RangeFile(io.RawIOBase):
    """A read-only file over `fetch`; at most the tail and one span that was fetched before are held."""

    def __init__(self, fetch: Fetch, size: int) -> None:
        """Fetch the tail at once."""
        super().__init__()
        self._fetch = fetch
        self._size = size
        self._at = 0
        self._tail = self.span(max(0, size - TAIL_BYTES), size)
        self._near = _NOTHING

    def span(self, start: int, stop: int) -> Span:
        """Return the bytes [start, stop), which are fetched in any case; any thread may ask."""
        return Span(start, self._fetch(start, stop))

    def hold(self, span: Span) -> None:
        """Read from this span, in place of the one before, where it has what is asked for."""
        self._near = span

    def let_go(self) -> None:
        """Hold the tail only."""
        self._near = _NOTHING

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
        for span in (self._near, self._tail):
            if span.start <= start and stop <= span.stop:
                return memoryview(span.data)[start - span.start : stop - span.start]
        return memoryview(self._fetch(start, stop) if start < stop else b"")


class RemoteShard:
    """An opened shard whose row groups are read one at a time, and fetched before that by another thread."""

    def __init__(self, fetch: Fetch, size: int, key: bytes) -> None:
        """Read and unseal the footer; raise RejectedError when the key does not fit or a bit was changed."""
        self._file = RangeFile(fetch, size)
        self._sealed: dict[int, Span] = {}
        source = pa.PythonFile(self._file, mode="r")
        try:  # what Arrow itself reads ahead it keeps until the row group after it is read
            self._parquet = pq.ParquetFile(source, decryption_properties=unseal(key), pre_buffer=False)
        except (OSError, pa.ArrowException) as error:
            summary = f"the shard cannot be unsealed: {error}"
            raise RejectedError(summary) from error

    @property
    def row_groups(self) -> int:
        """Return how many there are."""
        return int(self._parquet.metadata.num_row_groups)

    def fetch(self, row_group: int) -> int:
        """Have a row group here in one request, sealed: half of what it takes when it is open. Return its bytes."""
        self._sealed[row_group] = span = self._file.span(*self._range(row_group))
        return len(span.data)

    def read(self, row_group: int) -> pa.Table:
        """Return the rows of one row group, fetched now where it was not before; raise RejectedError for a changed bit.

        Its sealed bytes are let go of.
        """
        if row_group not in self._sealed:
            self.fetch(row_group)
        self._file.hold(self._sealed.pop(row_group))
        try:
            return self._parquet.read_row_group(row_group, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            summary = f"row group {row_group} cannot be unsealed: {error}"
            raise RejectedError(summary) from error
        finally:
            self._file.let_go()

    def group_bytes(self, row_group: int) -> int:
        """Return how large a row group is once it is read."""
        return int(self._parquet.metadata.row_group(row_group).total_byte_size)

    def _range(self, row_group: int) -> tuple[int, int]:
        group = self._parquet.metadata.row_group(row_group)
        columns = [group.column(number) for number in range(group.num_columns)]
        starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
        stops = [start + column.total_compressed_size for start, column in zip(starts, columns, strict=True)]
        return min(starts), max(stops)
