"""The rows of a shard before they are written."""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec
import pyarrow as pa

from fleetbatch.contracts import conform, contract
from fleetbatch.units import ShardId, shard_hex

_BESIDE_THE_ITEM: Final = ("format", "width", "height", "attributes", "error")
beside: Final = attrgetter(*_BESIDE_THE_ITEM)
"""Returns what stands in a row beside its item."""


class Row(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One item as read; no dataclass, which costs ten times as much."""

    content: bytes | memoryview | None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    attributes: str | None = None
    """What only the workload understands, as JSON: for instance the first frame of a segment."""
    error: str | None = None
    answers: int | None = 1
    """Answers that the row must have, unless it turns out dead; None: at least one. It stays on trusted machines."""


def item_id(shard: ShardId, row: int) -> str:
    """Return the id of a shard's row, unique everywhere."""
    return item_ids(shard, (row,))[0]


def item_ids(shard: ShardId, rows: Iterable[int]) -> list[str]:
    """Return the ids of a shard's rows."""
    shards_own = shard_hex(shard)
    return [f"{shards_own}-{row:06d}" for row in rows]


def dead_row(error: str) -> Row:
    """Return a row that can never be computed, and why."""
    return Row(content=None, error=error)


def table(items: "pa.Array[Any]", besides: Sequence[tuple[Any, ...]], shard: ShardId, *, first_row: int) -> pa.Table:
    """Return items, with what stands beside each, as the rows from `first_row` on that contract `shard` describes."""
    kinds = contract("shard").schema
    ids = item_ids(shard, range(first_row, first_row + len(besides)))
    values = {"item_id": ids, **dict(zip(_BESIDE_THE_ITEM, zip(*besides, strict=True), strict=True))}
    arrays = [items if field.name == "bytes" else pa.array(values[field.name], field.type) for field in kinds]
    return conform(pa.table(arrays, schema=kinds), "shard")
