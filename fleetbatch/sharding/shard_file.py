"""One shard becomes one sealed Parquet file, and the stored file says what it is."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch.contracts import contract
from fleetbatch.ranges import group_range
from fleetbatch.sealing import unseal
from fleetbatch.sharding.hashed_file import HashedFile
from fleetbatch.sharding.item_page import ItemPage
from fleetbatch.sharding.parquet_words import RowGroup
from fleetbatch.sharding.plain_pages import ROWS_MAX, page_of
from fleetbatch.sharding.sealed_parquet import SealedParquet
from fleetbatch.sharding.shard_rows import Row, beside, table
from fleetbatch.units import Sha256, ShardId

FORMAT: Final = "fleetbatch-shard-1"
_ITEMS: Final = "bytes"
_SNAPPY: Final = pa.Codec("snappy")


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
    items: ItemPage,
    file: HashedFile,
    *,
    shard: ShardId,
    key: bytes,
    footer: Mapping[str, str],
) -> ShardFile:
    """Write rows, by row group, as one sealed Parquet file with a page index; return what the file is.

    A row is asked for once the one before it is in `items`, where it may lie already. The items are stored as they are:
    pictures are compressed already, and beside them the other columns are nothing. Pages carry no checksum: the seal
    (AES-GCM) authenticates every one of them. No column has statistics: a car reads whole row groups.
    """
    schema = contract("shard").schema
    sealed = SealedParquet(file, key, schema, {name: "none" if name == _ITEMS else "snappy" for name in schema.names})
    written = list[RowGroup]()
    first_row = 0
    for group in groups:
        besides = _write_items(group, items, sealed)
        missing = pa.nulls(len(besides), pa.binary())  # they are in the file already
        _write_beside(table(missing, besides, shard, first_row=first_row), sealed)
        first_row += len(besides)
        written.append(sealed.end_group())
    sealed.end({"format": FORMAT, "schema": schema_hash(), **footer})
    return ShardFile(
        size_bytes=file.tell(),
        sha256=file.sha256(),
        row_group_rows=tuple(group.rows for group in written),
        row_group_start=tuple(group.start for group in written),
        row_group_stop=tuple(group.stop for group in written),
    )


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


def _write_items(group: Iterable[Row], items: ItemPage, sealed: SealedParquet) -> list[tuple[Any, ...]]:
    """Write a row group's items, page by page as they are read; return what stands beside each."""
    besides = []
    for row in group:
        items.add(row.content)
        besides.append(beside(row))
        if items.is_full:
            _write_page(items, sealed)
    if items.rows:
        _write_page(items, sealed)
    return besides


def _write_page(items: ItemPage, sealed: SealedParquet) -> None:
    page = items.content()
    sealed.add_page(_ITEMS, page, rows=items.rows, unpacked_bytes=len(page))
    items.empty()


def _write_beside(rows: pa.Table, sealed: SealedParquet) -> None:
    """Write a row group's other columns."""
    for field in rows.schema:
        if field.name == _ITEMS:
            continue
        for start in range(0, rows.num_rows, ROWS_MAX):
            values = rows[field.name].slice(start, ROWS_MAX).to_pylist()
            page = page_of(values, nullable=field.nullable)
            packed = _SNAPPY.compress(page, asbytes=True)
            sealed.add_page(field.name, packed, rows=len(values), unpacked_bytes=len(page))


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
