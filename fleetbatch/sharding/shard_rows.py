"""The rows of a shard before they are written."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import pyarrow as pa

from fleetbatch.contracts import conform, contract
from fleetbatch.units import ShardId, shard_hex

_BESIDE_THE_ITEM: Final = ("format", "width", "height", "attributes", "error")
beside: Final = attrgetter(*_BESIDE_THE_ITEM)
"""Returns what stands in a row beside its item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One item as read."""

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
    return f"{shard_hex(shard)}-{row:06d}"


def dead_row(error: str) -> Row:
    """Return a row that can never be computed, and why."""
    return Row(content=None, error=error)


def columns(besides: Sequence[tuple[Any, ...]], shard: ShardId, *, first_row: int) -> dict[str, Sequence[Any]]:
    """Return, by column, what stands beside the items of rows that are numbered from `first_row` on."""
    ids = [item_id(shard, row) for row in range(first_row, first_row + len(besides))]
    return {"item_id": ids, **dict(zip(_BESIDE_THE_ITEM, zip(*besides, strict=True), strict=True))}


def table(rows: Sequence[Row], shard: ShardId, *, first_row: int) -> pa.Table:
    """Return rows that are numbered from `first_row` on as contract `shard` has them."""
    items = [row.content for row in rows]
    values = {"bytes": items, **columns([beside(row) for row in rows], shard, first_row=first_row)}
    schema = contract("shard").schema
    return conform(pa.table({one.name: pa.array(values[one.name], one.type) for one in schema}), "shard")
