"""A sealed shard is read by HTTP ranges: its end once, then one request per row group, held sealed until it is read."""

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch.errors import RejectedError
from fleetbatch.ranges import Fetch, RangeFile, Span, group_range
from fleetbatch.sealing import unseal


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
        self._sealed[row_group] = span = self._file.span(*group_range(self._parquet.metadata.row_group(row_group)))
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
            self._file.hold()

    def group_bytes(self, row_group: int) -> int:
        """Return how large a row group is once it is read."""
        return int(self._parquet.metadata.row_group(row_group).total_byte_size)
