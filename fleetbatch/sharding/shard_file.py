"""One shard becomes one sealed Parquet file, and the stored file says what it is."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch.contracts import contract
from fleetbatch.sealing import unseal
from fleetbatch.sharding.item_page import ItemPage
from fleetbatch.sharding.parquet_parts import levels, plain_values
from fleetbatch.sharding.sealed_file import RowGroup, SealedFile
from fleetbatch.sharding.shard_rows import Row, beside, columns, table
from fleetbatch.units import Sha256, ShardId

FORMAT: Final = "fleetbatch-shard-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """What the manifest keeps of a file: [start, stop) are the byte ranges of its row groups."""

    size_bytes: int
    sha256: Sha256
    row_group_rows: tuple[int, ...]
    row_group_start: tuple[int, ...]
    row_group_stop: tuple[int, ...]


def write_shard(
    groups: Iterable[Iterable[Row]], page: ItemPage, file: SealedFile, *, shard: ShardId, footer: Mapping[str, str]
) -> ShardFile:
    """Write rows, by row group, as one shard; return what the file is.

    A row is asked for once the one before it is in `page`, where it may lie already.

    The items are stored as they are: pictures are compressed already, and beside them the other columns are nothing.
    Pages carry no checksum: the seal (AES-GCM) authenticates every one of them. No column has statistics: a car reads
    whole row groups.
    """
    first_row, places = 0, {one.name: (place, one) for place, one in enumerate(file.schema)}
    for group in groups:
        besides = _seal_items(group, page, file)
        for name, values in columns(besides, shard, first_row=first_row).items():
            place, one = places[name]
            there = levels([value is not None for value in values]) if one.nullable else b""
            file.page(place, there + plain_values(values, one.type), rows=len(values))
        file.end_group()
        first_row += len(besides)
    file.end({"format": FORMAT, "schema": schema_hash(), **footer})
    return _described(file.row_groups(), len(file.data()), file.sha256())


def holds(data: bytes | memoryview, groups: Iterable[Iterable[Row]], *, shard: ShardId, key: bytes) -> bool:
    """Return whether a stored file holds exactly these rows, by row group; one that does not open holds others.

    All are asked for when it does.
    """
    first_row = 0
    try:
        with pq.ParquetFile(pa.BufferReader(data), decryption_properties=unseal(key)) as file:
            for number, group in enumerate(groups):
                rows = list(group)
                wanted = table(rows, shard, first_row=first_row)
                if number == file.num_row_groups or not file.read_row_group(number).equals(wanted):
                    return False
                first_row += len(rows)
            return first_row == file.metadata.num_rows
    except (OSError, pa.ArrowException):
        return False


def describe_shard(data: bytes | memoryview, key: bytes) -> ShardFile:
    """Return what a stored file is, from its own footer and bytes."""
    with pq.ParquetFile(pa.BufferReader(data), decryption_properties=unseal(key)) as file:
        groups = [_row_group(file.metadata.row_group(number)) for number in range(file.num_row_groups)]
    return _described(groups, len(data), Sha256(hashlib.sha256(data).hexdigest()))


def schema_hash() -> str:
    """Return 16 hex digits that change when a column of the shard's contract does."""
    return hashlib.sha256(str(contract("shard").schema).encode()).hexdigest()[:16]


def _seal_items(group: Iterable[Row], page: ItemPage, file: SealedFile) -> list[tuple[Any, ...]]:
    """Seal a row group's items page by page; return what stands beside each."""
    column, besides = file.schema.names.index("bytes"), []
    for row in group:
        page.add(row.content)
        besides.append(beside(row))
        if page.full:
            file.page(column, page.plain(), rows=len(page))
            page.empty()
    if len(page):
        file.page(column, page.plain(), rows=len(page))
        page.empty()
    return besides


def _described(groups: Sequence[RowGroup], size_bytes: int, sha256: Sha256) -> ShardFile:
    return ShardFile(
        size_bytes=size_bytes,
        sha256=sha256,
        row_group_rows=tuple(group.rows for group in groups),
        row_group_start=tuple(group.start for group in groups),
        row_group_stop=tuple(group.stop for group in groups),
    )


def _row_group(group: Any) -> RowGroup:  # noqa: ANN401 # pyarrow's RowGroupMetaData has no public type
    """Return where a row group lies: from its first page to the end of its last."""
    chunks = [group.column(number) for number in range(group.num_columns)]
    return RowGroup(
        rows=group.num_rows,
        start=min(chunk.data_page_offset for chunk in chunks),
        stop=max(chunk.data_page_offset + chunk.total_compressed_size for chunk in chunks),
    )
