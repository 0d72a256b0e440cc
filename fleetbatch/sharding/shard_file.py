"""One shard becomes one sealed Parquet file, and the stored file says what it is."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch.contracts import conform, contract
from fleetbatch.sealing import seal, unseal
from fleetbatch.units import Sha256, ShardId, shard_hex

FORMAT: Final = "fleetbatch-shard-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One item as read."""

    content: bytes | None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    attributes: str | None = None
    """What only the workload understands, as JSON: for instance the first frame of a segment."""
    error: str | None = None
    answers: int | None = 1
    """Answers that the row must have, unless it turns out dead; None: at least one. It stays on trusted machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """What the manifest keeps of a file: [start, stop) are the byte ranges of its row groups."""

    size_bytes: int
    sha256: Sha256
    row_group_rows: tuple[int, ...]
    row_group_start: tuple[int, ...]
    row_group_stop: tuple[int, ...]


def item_id(shard: ShardId, row: int) -> str:
    """Return the id of a shard's row, unique everywhere."""
    return f"{shard_hex(shard)}-{row:06d}"


def dead_row(error: str) -> Row:
    """Return a row that can never be computed, and why."""
    return Row(content=None, error=error)


def sealed_shard(
    shard: ShardId, row_groups: Iterable[Sequence[Row]], *, key: bytes, footer: Mapping[str, str]
) -> memoryview:
    """Return the rows as one sealed Parquet file with a page index.

    The items are stored as they are: pictures are compressed already. Pages carry no checksum: the seal (AES-GCM)
    authenticates every one of them, and a second sum costs a quarter of the writing.
    """
    schema, sink = contract("shard").schema, pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema,
        encryption_properties=seal(key),
        write_page_index=True,
        compression={name: "none" if name == "bytes" else "zstd" for name in schema.names},
        use_dictionary=["format", "error"],  # type: ignore[arg-type] # the stubs know only yes and no
        write_statistics=["item_id", "format", "width", "height"],
    ) as writer:
        row = 0
        for rows in row_groups:
            writer.write_table(_table(shard, row, rows), row_group_size=len(rows))
            row += len(rows)
        writer.add_key_value_metadata({"format": FORMAT, "schema": schema_hash(), **footer})
    return memoryview(sink.getvalue())


def describe_shard(data: bytes | memoryview, key: bytes) -> ShardFile:
    """Return what a finished file is, from its own footer and bytes."""
    with pq.ParquetFile(pa.BufferReader(data), decryption_properties=unseal(key)) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    ranges = [_range(group) for group in groups]
    return ShardFile(
        size_bytes=len(data),
        sha256=Sha256(hashlib.sha256(data).hexdigest()),
        row_group_rows=tuple(group.num_rows for group in groups),
        row_group_start=tuple(start for start, _ in ranges),
        row_group_stop=tuple(stop for _, stop in ranges),
    )


def schema_hash() -> str:
    """Return 16 hex digits that change when a column of the shard's contract does."""
    return hashlib.sha256(str(contract("shard").schema).encode()).hexdigest()[:16]


def _table(shard: ShardId, first: int, rows: Sequence[Row]) -> pa.Table:
    columns = {
        "item_id": pa.array([item_id(shard, first + number) for number in range(len(rows))], pa.string()),
        "bytes": pa.array([row.content for row in rows], pa.binary()),
        "format": pa.array([row.format for row in rows], pa.string()),
        "width": pa.array([row.width for row in rows], pa.int32()),
        "height": pa.array([row.height for row in rows], pa.int32()),
        "attributes": pa.array([row.attributes for row in rows], pa.string()),
        "error": pa.array([row.error for row in rows], pa.string()),
    }
    return conform(pa.table(columns), "shard")


def _range(group: Any) -> tuple[int, int]:  # noqa: ANN401 # pyarrow's RowGroupMetaData has no public type
    """Return the bytes of a row group: from its first page, dictionary or not, to the end of its last column."""
    columns = [group.column(number) for number in range(group.num_columns)]
    starts = [c.data_page_offset if c.dictionary_page_offset is None else c.dictionary_page_offset for c in columns]
    return min(starts), max(start + c.total_compressed_size for start, c in zip(starts, columns, strict=True))
