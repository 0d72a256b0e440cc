"""Open work as a few kinds (workload, bytes per unit, who may have it) and tiers (deadline, priority). Pure.

Two passes over the shards in pieces that stay in the cache, and one counting sort; everything after that is small.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.grid import Grid
from fleetbatch.planner.inputs import Floats, Ints, Shards, Singles
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.ranked import Ranked

KINDS_MAX = 24
CHUNK = 16_384
_CODES = 1 << 16
"""5 bits of workload, then 11 of a 32-bit float: eight of exponent, three of mantissa, an eighth of an octave each."""
_SHIFT = 20
SIZES = 4
NO_UNITS = np.float32(1e-30)
LESS = 1.0 - 1e-6
"""Of a bound in 32 bits, which may have been rounded up."""

Claims = tuple[int, int, int]
"""Hardware mask, region, and how many sizes of cars' memories are too small: what else tells who may have a shard."""
MEMORIES_MAX = 16
"""Sizes of memory that are told apart; where cars have more, a kind holds shards that not the same cars may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinds:
    """What the work of a round asks of cars; arrays of one entry a kind."""

    workload: Ints
    hw_mask: Ints
    region: Ints
    memory: Floats
    """The most that any shard of the kind needs: what the plan counts on."""
    memory_least: Floats
    """None needs less: what the bound counts on."""
    bytes_most: Floats
    """No shard of the kind has more bytes a unit: what the plan counts on."""
    bytes_least: Floats
    """None has fewer: what the bound counts on. Usually both are the same, since an order's items are alike."""
    units: Floats
    """Of all its open shards."""

    def __len__(self) -> int:
        """Return the number of kinds."""
        return len(self.workload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Open work by kind, deadline and priority."""

    kinds: Kinds
    demand: Floats
    """[kind, deadline, priority], units left."""
    order: Ranked
    """The open shards by tier, then size in steps of an octave, the largest first, then id.

    Tiers are (kind * deadlines + deadline) * priorities + priority, and the number of tiers for what is not open.
    """
    largest: float
    """No row group has more units."""

    def tiers(self, places: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the tiers of some shards."""
        return np.asarray(self.order.rank.take(places) // SIZES)

    def shards(self) -> Ints:
        """Return how many open shards there are of each tier."""
        return np.asarray(self.order.counts.reshape(-1, SIZES).sum(axis=1))


class _Codes:
    """What one pass over the shards learns of each code."""

    def __init__(self, count: int, needed: tuple[int, int], *, apart: bool) -> None:
        """Know nothing of `count` codes but the least and the most memory that any shard needs.

        Where codes tell needs `apart`, each learns its own.
        """
        self.least = np.full(count, np.inf, np.float32)
        self.most = np.full(count, -1.0, np.float32)
        self.memory: Floats = np.broadcast_to(float(needed[1]), count)
        self.memory_least: Floats = np.broadcast_to(float(needed[0]), count)
        if apart:
            self.memory, self.memory_least = np.zeros(count), np.full(count, np.inf)
        self.largest, self.units = 0.0, 0.0
        """Units of the largest row group, and of all shards."""

    def note_largest(self, units: Singles, groups: npt.NDArray[np.uint16]) -> None:
        """Look for a larger row group among shards; only who has many units can have one."""
        least = self.largest * LESS * float(groups.min())
        if units.max() > least:
            some = np.flatnonzero(units > np.float32(least))
            self.largest = max(self.largest, float(np.max(units.take(some) / groups.take(some), initial=0.0)))

    def note(self, code: npt.NDArray[Any], intensity: Singles) -> None:
        """Look at some shards; after the first few there is little to learn."""
        wide = code.astype(np.int64)
        lower = intensity < self.least.take(wide)
        if lower.any():
            np.minimum.at(self.least, code[lower], intensity[lower])
        higher = intensity > self.most.take(wide)
        if higher.any():
            np.maximum.at(self.most, code[higher], intensity[higher])


def work_of(shards: Shards, memories: npt.NDArray[np.uint64], grid: Grid, policy: Policy) -> Work:
    """Return the round's open work; `memories` are those of the cars."""
    needed = _least_and_most(shards.memory)
    claim, claims = _claims(shards, memories, needed)
    codes = _Codes(len(claims) * _CODES, needed, apart=len(claims) > 1)
    code: npt.NDArray[Any] = np.empty(len(shards.shard_id), np.uint16 if len(claims) == 1 else np.uint32)
    for part in _parts(shards):
        units = shards.work_units[part].astype(np.float32)
        codes.units += float(shards.work_units[part].sum())
        codes.note_largest(units, np.maximum(shards.stop[part], np.uint16(1)))
        intensity = _intensity(shards.size_bytes[part].astype(np.float32), units)
        bits = intensity.view(np.uint32) >> np.uint32(_SHIFT)
        code[part] = bits | (shards.workload[part].astype(np.uint32) << np.uint32(11))
        if len(claims) > 1:
            code[part] += claim[part] * np.uint32(_CODES)
            np.maximum.at(codes.memory, code[part], shards.memory[part])
            np.minimum.at(codes.memory_least, code[part], shards.memory[part])
        codes.note(code[part], intensity)
    groups = _merged(np.flatnonzero(codes.least <= codes.most))
    shape, middle = (len(groups), len(policy.value_per_unit)), codes.units / max(len(code), 1)
    order, units_left = _tiers(shards, (code, [int(group[0]) for group in groups[1:]]), grid, shape, middle)
    return Work(
        kinds=_kinds(codes, groups, claims, units_left.reshape(len(groups), -1).sum(axis=1)),
        demand=units_left.reshape(len(groups), len(grid.deadlines), len(policy.value_per_unit)),
        order=order,
        largest=codes.largest * (1.0 + 1e-6),
    )


def _intensity(size: Singles, units: Singles) -> Singles:
    """Return bytes per unit; a shard without units is all bytes and asks for nothing."""
    if units.min(initial=1.0) > NO_UNITS:
        return np.asarray(size / units)
    return np.divide(size, np.maximum(units, NO_UNITS), out=np.zeros_like(size), where=units > 0.0)


def _parts(shards: Shards) -> Iterator[slice]:
    for first in range(0, len(shards.shard_id), CHUNK):
        yield slice(first, first + CHUNK)


def _open(shards: Shards, part: slice) -> npt.NDArray[np.bool_]:
    return np.asarray(~shards.held[part] & (shards.start[part] < shards.stop[part]) & (shards.deadline[part] > 0.0))


def _claims(
    shards: Shards, memories: npt.NDArray[np.uint64], needed: tuple[int, int]
) -> tuple[npt.NDArray[np.uint32], Sequence[Claims]]:
    """Return each shard's claims as a number, and what the numbers mean; usually there is one for all."""
    if not len(shards.shard_id):
        return np.zeros(0, np.uint32), [(255, 0, 0)]
    small = _small(memories, needed)
    if not len(small) and all(column.min() == column.max() for column in (shards.hw_mask, shards.region)):
        return np.zeros(0, np.uint32), [(int(shards.hw_mask[0]), int(shards.region[0]), 0)]
    memory = np.searchsorted(small, shards.memory).astype(np.uint64)
    mixed = memory | shards.region.astype(np.uint64) << 16 | shards.hw_mask.astype(np.uint64) << 32
    values, number = np.unique(mixed, return_inverse=True)
    claims = [(int(value) >> 32, (int(value) >> 16) & 0xFFFF, int(value) & 0xFFFF) for value in values]
    return number.astype(np.uint32), claims


def _least_and_most(memory: npt.NDArray[np.uint64]) -> tuple[int, int]:
    """Return the least and the most that any shard needs."""
    return int(memory.min(initial=np.iinfo(np.uint64).max)), int(memory.max(initial=0))


def _small(memories: npt.NDArray[np.uint64], needed: tuple[int, int]) -> npt.NDArray[np.uint64]:
    """Return the sizes of cars' memories, rising, that are too small for some shards and not for others."""
    least, most = needed
    if least == most:
        return memories[:0]
    between = np.unique(memories[(memories >= least) & (memories < most)])
    return between[np.unique(np.linspace(0, len(between) - 1, min(len(between), MEMORIES_MAX)).astype(np.int64))]


def _kinds(codes: _Codes, groups: Sequence[Ints], claims: Sequence[Claims], units: Floats) -> Kinds:
    first = np.array([group[0] for group in groups], np.int64)
    claim = [claims[place] for place in first // _CODES]
    return Kinds(
        workload=(first % _CODES) >> 11,
        hw_mask=np.array([mask for mask, _, _ in claim], np.int64),
        region=np.array([region for _, region, _ in claim], np.int64),
        memory=np.array([codes.memory[group].max() for group in groups]),
        memory_least=np.array([codes.memory_least[group].min() for group in groups]),
        bytes_most=np.array([codes.most[group].max() for group in groups], np.float64),
        bytes_least=np.array([codes.least[group].min() for group in groups], np.float64),
        units=units,
    )


def _merged(present: Ints) -> list[Ints]:
    """Join neighbouring codes that differ in bytes per unit only, the lightest first, until few enough are left."""
    groups = [np.array([code]) for code in present]
    while len(groups) > KINDS_MAX:
        pairs = [
            (int(b[-1] - a[0]), place)
            for place, (a, b) in enumerate(itertools.pairwise(groups))
            if a[0] >> 11 == b[0] >> 11
        ]
        if not pairs:
            break
        _, place = min(pairs)
        groups[place : place + 2] = [np.concatenate(groups[place : place + 2])]
    return groups


def _tiers(
    shards: Shards,
    coded: tuple[npt.NDArray[Any], list[int]],
    grid: Grid,
    shape: tuple[int, int],
    middle: float,
) -> tuple[Ranked, Floats]:
    """Return the open shards in order of rank, and the units left of each tier.

    `coded` is each shard's code, and the first code of every kind but the first; `shape` the numbers of kinds and
    levels. Ranks are tiers, and in them sizes, told by the `middle` one: long shards are begun first, so that none is
    left to the end of the night.
    """
    (code, firsts), (kinds, levels) = coded, shape
    deadlines, tiers = len(grid.deadlines), kinds * len(grid.deadlines) * levels
    ranks, any_held = (tiers + 1) * SIZES, bool(shards.held.any())
    rank = np.empty(len(code), np.min_scalar_type(ranks - 1))
    units, counts = np.zeros(ranks), np.zeros(ranks, np.int64)
    for part in _parts(shards):
        start, stop, left = shards.start[part], shards.stop[part], shards.work_units[part]
        deadline, delivered = shards.deadline[part], start.max()
        place = beyond(code[part], [code.dtype.type(first) for first in firsts]).astype(rank.dtype)
        place *= rank.dtype.type(deadlines)
        place += beyond(deadline, [np.float32(edge) for edge in grid.deadlines[1:]])
        place *= rank.dtype.type(levels)
        place += np.minimum(shards.priority[part], np.uint8(levels - 1))
        if any_held or delivered >= stop.min() or not deadline.min() > 0.0:
            place[~_open(shards, part)] = tiers
        place *= rank.dtype.type(SIZES)
        place += np.uint8(SIZES - 1) - beyond(left, [times * middle for times in (0.5, 1.0, 2.0)])
        rank[part] = place
        if delivered > 0:
            left = left * ((stop - start) / np.maximum(stop, 1).astype(np.float64))
        wide = place.astype(np.int64)
        units += np.bincount(wide, weights=left, minlength=ranks)
        counts += np.bincount(wide, minlength=ranks)
    order = Ranked(rank=rank, counts=counts[:-SIZES])
    return order, units.reshape(-1, SIZES).sum(axis=1)[:-1]


def beyond(values: npt.NDArray[Any], edges: Iterable[Any]) -> npt.NDArray[np.uint8]:
    """Return how many of a few edges each value has reached."""
    reached = np.zeros(len(values), np.uint8)
    for edge in edges:
        reached += (values >= edge).view(np.uint8)
    return reached
