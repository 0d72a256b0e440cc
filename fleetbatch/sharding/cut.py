"""Where an order's items are cut into shards and row groups, and which cell gets which shard. Pure."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import msgspec

from fleetbatch.errors import RejectedError
from fleetbatch.nouns import Cell, Cutting, OrderKey
from fleetbatch.units import ID_BITS, CellName, ShardId

ROW_GROUPS_MAX: Final = 32_767
"""Parquet counts a sealed file's row groups in 16 bits, one of them the sign; so does the planner, without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One item of a source before it is read."""

    uri: str
    """Where the item is; unique in its source."""
    size_bytes: int
    """How large it is, or an upper bound of it."""
    error: str | None = None
    """Why it cannot be read, when the listing says so already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one shard will hold: its entries by row group, none of them empty."""

    ordinal: int
    """0 for the first shard of the order."""
    row_groups: tuple[tuple[Entry, ...], ...]


class Cut(Enum):
    """What begins with an item."""

    NOTHING = auto()
    ROW_GROUP = auto()
    SHARD = auto()


class Filled(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How full the open shard and its open row group are.

    One is made for every item; a dataclass costs ten times as much.
    """

    rows: int = 0
    size_bytes: int = 0
    row_groups: int = 0
    group_rows: int = 0
    group_bytes: int = 0


def step(filled: Filled, size_bytes: int, dials: Cutting) -> tuple[Cut, Filled]:
    """Return what begins with an item of that size, and how full everything is with it.

        shard:      row group  row group  row group | next shard
                    rows and bytes of each stay within the dials; an item is never split

    An item above the row group's dial is a row group of its own; an item above the shard's dial must not come here.
    """
    group_full = (
        filled.group_rows >= dials.row_group_rows or filled.group_bytes + size_bytes > dials.row_group_bytes
    ) and filled.group_rows > 0
    shard_full = filled.rows > 0 and (
        filled.rows >= dials.shard_rows
        or filled.size_bytes + size_bytes > dials.shard_bytes
        or (group_full and filled.row_groups >= ROW_GROUPS_MAX)
    )
    if filled.rows == 0 or shard_full:
        alone = Filled(rows=1, size_bytes=size_bytes, row_groups=1, group_rows=1, group_bytes=size_bytes)
        return Cut.SHARD, alone
    return (Cut.ROW_GROUP if group_full else Cut.NOTHING), Filled(
        rows=filled.rows + 1,
        size_bytes=filled.size_bytes + size_bytes,
        row_groups=filled.row_groups + group_full,
        group_rows=1 if group_full else filled.group_rows + 1,
        group_bytes=size_bytes if group_full else filled.group_bytes + size_bytes,
    )


def plan_shards(entries: Iterable[Entry], dials: Cutting) -> Iterator[Plan]:
    """Yield the shards in the order of the entries, holding one shard's entries at a time.

    An item that fits no shard becomes a dead letter that says which dial to turn.
    """
    filled, ordinal = Filled(), 0
    groups: list[list[Entry]] = []
    for entry in entries:
        placed = _dead_when_too_large(entry, dials)
        cut, filled = step(filled, placed.size_bytes, dials)
        if cut is Cut.SHARD and groups:
            yield _plan(ordinal, groups)
            ordinal, groups = ordinal + 1, []
        if cut is not Cut.NOTHING:
            groups.append([])
        groups[-1].append(placed)
    if groups:
        yield _plan(ordinal, groups)


def shard_id(key: OrderKey, dials: Cutting, ordinal: int, attempt: int) -> ShardId:
    """Return the id that follows from order, dials and place in the order: a cut that is repeated has the same ids.

    It is known before the shard's first byte is, so that items are read, sealed and hashed while the processor has them
    at hand: an id that follows from the content asks for all of it twice. What an id stood for stays what it stands
    for: where another cut of the order, from a source that changed, took it already, the shard has the next attempt's.
    """
    dialled = f"{dials.shard_rows} {dials.shard_bytes} {dials.row_group_rows} {dials.row_group_bytes}"
    name = f"{key} {dialled} {ordinal} {attempt}"
    digest = hashlib.blake2b(name.encode(), digest_size=8, person=b"fleetbatch-shard").digest()
    return ShardId(int.from_bytes(digest, "big") >> (64 - ID_BITS))


def next_cell(shares: Mapping[CellName, float], given: Mapping[CellName, float], work: float) -> CellName:
    """Return the cell that a shard of that work goes to: the one that would stay furthest below its share.

    `shares` need not sum to one; a cell with share zero gets nothing. Ties go to the first name.
    """
    whole, total = sum(shares.values()), sum(given.values()) + work

    def short_by(cell: CellName) -> float:
        return shares[cell] / whole * total - given.get(cell, 0.0)

    return max(sorted(cell for cell, share in shares.items() if share > 0), key=short_by)


def split_region(region: str, cells: Iterable[Cell], capacity: Mapping[CellName, float]) -> dict[CellName, float]:
    """Return each cell's share (they sum to 1) of an order for `region`, by forecast capacity.

    Work for one region is only ever given to that region's cells; "any" goes to all. Without a forecast for any of
    them the shares are equal. Raises RejectedError when no cell serves the region.
    """
    known = tuple(cells)
    able = [cell.name for cell in known if region in ("any", cell.region)]
    if not able:
        regions = ", ".join(sorted({cell.region for cell in known})) or "none"
        summary = f"no cell serves region {region!r}; cells serve {regions}, and `any` means all of them"
        raise RejectedError(summary)
    forecast = {name: max(capacity.get(name, 0.0), 0.0) for name in able}
    whole = sum(forecast.values())
    return {name: forecast[name] / whole if whole > 0 else 1 / len(able) for name in able}


def _plan(ordinal: int, groups: list[list[Entry]]) -> Plan:
    return Plan(ordinal=ordinal, row_groups=tuple(tuple(group) for group in groups))


def _dead_when_too_large(entry: Entry, dials: Cutting) -> Entry:
    if entry.error is not None:
        return Entry(uri=entry.uri, size_bytes=0, error=entry.error)
    if entry.size_bytes <= dials.shard_bytes:
        return entry
    why = f"larger than a shard may be ({dials.shard_bytes} bytes): make it smaller, or raise cutting.shard_bytes"
    return Entry(uri=entry.uri, size_bytes=0, error=why)
