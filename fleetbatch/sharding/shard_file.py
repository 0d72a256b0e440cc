"""One shard becomes one sealed Parquet file, and the stored file says what it is."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch.contracts import contract
from fleetbatch.ranges import group_range
from fleetbatch.sealing import seal, unseal
from fleetbatch.sharding.group_items import GroupItems
from fleetbatch.sharding.hashed_file import HashedFile
from fleetbatch.sharding.shard_rows import Row, beside, table
from fleetbatch.units import KIB, Sha256, ShardId

FORMAT: Final = "fleetbatch-shard-1"
_PAGE_BYTES: Final = 128 * KIB
_GATHERED_BYTES: Final = 16 * KIB
"""Pages of small columns, and headers, come to our file together; a larger page comes as it is, by itself."""
_ROWS_AT_ONCE: Final = 1
"""Parquet's writer looks at a page's size only after so many rows; a row may be larger than a page should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """What the manifest keeps of a file: [start, stop) are the byte ranges of its row groups."""

    size_bytes: int
    sha256: Sha256
    row_group_rows: tuple[int, ...]
    row_group_start: tuple[int, ...]
    row_group_stop: tuple[int, ...]


def write_shard(
    groups: Iterable[Iterable[Row]],
    items: GroupItems,
    file: HashedFile,
    *,
    shard: ShardId,
    key: bytes,
    footer: Mapping[str, str],
) -> ShardFile:
    """Write rows, by row group, as one sealed Parquet file with a page index; return what the file is.

    A row is asked for once the one before it is in `items`, where it may lie already.
    """
    footers: list[pq.FileMetaData] = []
    first_row = 0
    with _writer(file, key, footers) as writer:
        for group in groups:
            besides = _gather(group, items)
            writer.write_table(table(items.array(), besides, shard, first_row=first_row), row_group_size=len(besides))
            items.empty()
            first_row += len(besides)
        writer.add_key_value_metadata({"format": FORMAT, "schema": schema_hash(), **footer})
    return _described(footers[0], file.tell(), file.sha256())


def holds(data: bytes | memoryview, groups: Iterable[Iterable[Row]], *, shard: ShardId, key: bytes) -> bool:
    """Return whether a stored file holds exactly these rows, by row group; one that does not open holds others.

    All are asked for when it does.
    """
    first_row = 0
    try:
        with pq.ParquetFile(pa.BufferReader(data), decryption_properties=unseal(key)) as file:
            for number, group in enumerate(groups):
                rows = list(group)
                items = pa.array([row.content for row in rows], pa.binary())
                wanted = table(items, [beside(row) for row in rows], shard, first_row=first_row)
                if number == file.num_row_groups or not file.read_row_group(number).equals(wanted):
                    return False
                first_row += len(rows)
            return first_row == file.metadata.num_rows
    except (OSError, pa.ArrowException):
        return False


def describe_shard(data: bytes | memoryview, key: bytes) -> ShardFile:
    """Return what a stored file is, from its own footer and bytes."""
    with pq.ParquetFile(pa.BufferReader(data), decryption_properties=unseal(key)) as file:
        return _described(file.metadata, len(data), Sha256(hashlib.sha256(data).hexdigest()))


def schema_hash() -> str:
    """Return 16 hex digits that change when a column of the shard's contract does."""
    return hashlib.sha256(str(contract("shard").schema).encode()).hexdigest()[:16]


@contextmanager
def _writer(file: HashedFile, key: bytes, footers: list[pq.FileMetaData]) -> Iterator[pq.ParquetWriter]:
    """Begin a sealed file, and end it; then its footer is in `footers`.

    The items are stored as they are: pictures are compressed already, and beside them the other columns are nothing.
    Pages carry no checksum: the seal (AES-GCM) authenticates every one of them. No column has statistics: a car reads
    whole row groups. Pages are small enough to be copied, sealed and hashed inside the processor's second cache.
    """
    schema = contract("shard").schema
    sink = pa.BufferedOutputStream(pa.PythonFile(file, mode="w"), _GATHERED_BYTES)
    writer = pq.ParquetWriter(
        sink,
        schema,
        encryption_properties=seal(key),
        write_page_index=True,
        compression={name: "none" if name == "bytes" else "snappy" for name in schema.names},
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
        data_page_size=_PAGE_BYTES,
        write_batch_size=_ROWS_AT_ONCE,
        metadata_collector=footers,
    )
    try:
        yield writer
    except BaseException:
        for part in (writer, sink):
            with suppress(Exception):  # of a file that failed there is no footer, which must not hide why it failed
                part.close()
        raise
    writer.close()
    sink.close()


def _gather(group: Iterable[Row], items: GroupItems) -> list[tuple[Any, ...]]:
    """Gather a row group's items; return what stands beside each."""
    besides = []
    for row in group:
        items.add(row.content)
        besides.append(beside(row))
    return besides


def _described(footer: pq.FileMetaData, size_bytes: int, sha256: Sha256) -> ShardFile:
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    ranges = [group_range(group) for group in groups]
    return ShardFile(
        size_bytes=size_bytes,
        sha256=sha256,
        row_group_rows=tuple(group.num_rows for group in groups),
        row_group_start=tuple(start for start, _ in ranges),
        row_group_stop=tuple(stop for _, stop in ranges),
    )
