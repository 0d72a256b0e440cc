"""One shard becomes one sealed Parquet file, and the stored file says what it is."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch.contracts import contract
from fleetbatch.sealing import seal, unseal
from fleetbatch.sharding.shard_rows import ShardRows
from fleetbatch.units import KIB, Sha256, ShardId

FORMAT: Final = "fleetbatch-shard-1"
_PAGE_BYTES: Final = 128 * KIB
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A file that is not stored yet, and what it is."""

    data: memoryview
    file: ShardFile


def sealed_shard(
    shard: ShardId, rows: ShardRows, groups: Sequence[int], *, key: bytes, footer: Mapping[str, str]
) -> Sealed:
    """Return the rows, so many in each row group, as one sealed Parquet file with a page index, in their own memory.

    It is written over the items, each after it was read: half the memory is half as often fetched by the processor.
    The rows are gone afterwards.

    The items are stored as they are: pictures are compressed already, and beside them the other columns are nothing.
    Pages carry no checksum: the seal (AES-GCM) authenticates every one of them, and a second sum costs a quarter of the
    writing. They are small enough to be copied and sealed inside the processor's second cache. A row group is hashed
    when it is sealed, while half of it is still in there.
    """
    schema = contract("shard").schema
    memory = rows.memory(len(groups))
    hashed, hashed_bytes = hashlib.sha256(), 0
    footers: list[pq.FileMetaData] = []
    sink = pa.FixedSizeBufferWriter(pa.py_buffer(memory))
    with pq.ParquetWriter(
        sink,
        schema,
        encryption_properties=seal(key),
        write_page_index=True,
        compression={name: "none" if name == "bytes" else "snappy" for name in schema.names},
        use_dictionary=False,
        write_statistics=["item_id", "format", "width", "height"],
        data_page_size=_PAGE_BYTES,
        write_batch_size=_ROWS_AT_ONCE,
        metadata_collector=footers,
    ) as writer:
        table = rows.table(shard, groups)
        for start, size in zip(accumulate(groups, initial=0), groups, strict=False):
            writer.write_table(table.slice(start, size), row_group_size=size)
            assert sink.tell() <= rows.place(start + size), "sealed over items that were still to be written"
            hashed.update(memory[hashed_bytes : sink.tell()])
            hashed_bytes = sink.tell()
        writer.add_key_value_metadata({"format": FORMAT, "schema": schema_hash(), **footer})
    data = memory[: sink.tell()]
    hashed.update(data[hashed_bytes:])
    return Sealed(data=data, file=_described(footers[0], len(data), Sha256(hashed.hexdigest())))


def describe_shard(data: bytes | memoryview, key: bytes) -> ShardFile:
    """Return what a stored file is, from its own footer and bytes."""
    with pq.ParquetFile(pa.BufferReader(data), decryption_properties=unseal(key)) as file:
        return _described(file.metadata, len(data), Sha256(hashlib.sha256(data).hexdigest()))


def schema_hash() -> str:
    """Return 16 hex digits that change when a column of the shard's contract does."""
    return hashlib.sha256(str(contract("shard").schema).encode()).hexdigest()[:16]


def _described(footer: pq.FileMetaData, size_bytes: int, sha256: Sha256) -> ShardFile:
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    ranges = [_range(group) for group in groups]
    return ShardFile(
        size_bytes=size_bytes,
        sha256=sha256,
        row_group_rows=tuple(group.num_rows for group in groups),
        row_group_start=tuple(start for start, _ in ranges),
        row_group_stop=tuple(stop for _, stop in ranges),
    )


def _range(group: Any) -> tuple[int, int]:  # noqa: ANN401 # pyarrow's RowGroupMetaData has no public type
    """Return the bytes of a row group: from its first page, dictionary or not, to the end of its last column."""
    columns = [group.column(number) for number in range(group.num_columns)]
    starts = [c.data_page_offset if c.dictionary_page_offset is None else c.dictionary_page_offset for c in columns]
    return min(starts), max(start + c.total_compressed_size for start, c in zip(starts, columns, strict=True))
