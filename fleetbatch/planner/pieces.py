"""How long row groups take, what a piece is expected to complete, and the tables of a round. Pure."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.planner.inputs import (
    CERTAIN,
    UNKNOWN_RUNNING,
    Bytes,
    Cars,
    Floats,
    Ints,
    Shards,
    Singles,
    stays,
    window_s,
)
from fleetbatch.planner.policy import ANY_REGION, GRID_POINTS, GRID_S, Policy, rate_matrix
from fleetbatch.planner.reasons import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """Row groups [start, stop) of shards on cars, any order; car and shard are places in Cars and Shards."""

    car: Ints
    shard: Ints
    start: npt.NDArray[np.int32]
    stop: npt.NDArray[np.int32]
    begins: Singles
    ends: Singles
    tau: Singles
    """Seconds of one row group; they end every tau, the last at `ends`."""
    units: Singles
    """Work of one row group."""
    reason: Bytes

    @classmethod
    def of(cls, **columns: npt.NDArray[Any]) -> Self:
        """Return the columns in the types of a round's tables, half as wide as those that they were worked out in."""
        wide = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32}
        kept = ("car", "shard")
        return cls(
            **{n: c if n in kept else c.astype(wide.get(c.dtype, c.dtype), copy=False) for n, c in columns.items()}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """Pieces in order of car and time, with what is expected of them."""

    pieces: Pieces
    chance: Floats
    """That the car is there until the piece's end."""
    expected: Floats
    """Units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What cars hold already: it stays where it is."""

    pieces: Pieces
    free: Floats
    """[cars], when each is done with it; infinite where it holds a shard that is not open any more."""


def empty(count: int) -> Pieces:
    """Return room for so many pieces."""
    types: dict[str, Any] = {
        "car": np.int64,
        "shard": np.int64,
        "start": np.int32,
        "stop": np.int32,
        "reason": np.uint8,
    }
    return Pieces(**{name: np.empty(count, types.get(name, np.float32)) for name in Pieces.__slots__})


def rows(pieces: Pieces, which: Ints) -> Pieces:
    """Return some of the pieces, in that order."""
    return Pieces(**{name: getattr(pieces, name).take(which) for name in Pieces.__slots__})


def concat(parts: Sequence[Pieces]) -> Pieces:
    """Return all the pieces as one."""
    return Pieces(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in Pieces.__slots__})


def running(cars: Cars, shards: Shards, policy: Policy) -> Running:
    """Return the pieces under lease, as many of their row groups as will end in time, and when their cars are free."""
    car = np.flatnonzero(cars.running >= 0)
    shard = cars.running[car]
    start = np.maximum(cars.running_from[car], shards.start[shard].astype(np.int64))
    tau = row_group_s(cars, shards, policy, car, shard)
    room = np.maximum(np.minimum(cars.until(car, policy.stay_min), shards.deadline[shard]), 0.0)
    left = np.maximum(shards.stop[shard].astype(np.int64) - start, 0)
    groups = np.minimum(left, np.floor(room / np.maximum(tau, 1e-9) + 1e-9)).astype(np.int64)
    tau = np.where(groups > 0, tau, 0.0)
    free = np.where(cars.running == UNKNOWN_RUNNING, np.inf, 0.0)
    free[car] = np.where(groups > 0, left * tau, np.inf)
    put = groups > 0
    pieces = Pieces.of(
        car=car[put],
        shard=shard[put],
        start=start[put],
        stop=(start + groups)[put],
        begins=np.zeros(int(put.sum())),
        ends=(groups * tau)[put],
        tau=tau[put],
        units=shards.units(shard[put]),
        reason=np.full(int(put.sum()), Reason.RUNNING, np.uint8),
    )
    return Running(pieces=pieces, free=free)


def row_group_s(cars: Cars, shards: Shards, policy: Policy, car: Ints, shard: Ints) -> Floats:
    """Return seconds of a row group of each (car, shard) pair, infinite where the car may not or cannot.

    The next row group is fetched while one is computed (dispatch 3.9), so the slower of the two counts.
    """
    rate = rate_matrix(policy)[cars.hw[car], shards.workload[shard]] * cars.speed[car]
    link = cars.link[car].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        compute = shards.units(shard) / rate
        size = shards.bytes(shard)
        fetch = np.where(size > 0.0, size / link, 0.0)
    may = allowed(cars, shards, car, shard) & (rate > 0.0)
    return np.where(may, np.maximum(compute, fetch), np.inf)


def allowed(cars: Cars, shards: Shards, car: Ints, shard: Ints) -> npt.NDArray[np.bool_]:
    """Return where consent, hardware mask, memory and region let the car have the shard."""
    region = shards.region[shard]
    return np.asarray(
        ((cars.consent[car] >> shards.workload[shard].astype(np.uint32)) & 1).astype(bool)
        & ((shards.hw_mask[shard] >> cars.hw[car]) & 1).astype(bool)
        & (cars.memory[car] >= shards.memory[shard])
        & ((region == ANY_REGION) | (region == cars.region[car]))
    )


def weighed(cars: Cars, shards: Shards, policy: Policy, pieces: Pieces) -> Weighed:
    """Return pieces that are in order of car and time with what is expected of them.

    A piece stops where its car has left but for a chance of `stay_min`; it is left out where nothing remains. Looks
    at the cars in their own order and in pieces that stay in the cache: that is half of its cost.
    """
    chance = _chances(cars, pieces)
    late = np.flatnonzero(chance < policy.stay_min)
    if len(late):
        pieces, keep = _while_there(cars, shards, policy, pieces, late)
        chance[late] = stays(cars.survival, pieces.car[late], pieces.ends[late])
        if not keep.all():
            pieces, chance = rows(pieces, np.flatnonzero(keep)), chance[keep]
    expected = np.empty(len(pieces.car))
    for first in range(0, len(pieces.car), AT_A_TIME):
        part = slice(first, first + AT_A_TIME)
        count = (pieces.stop[part] - pieces.start[part]).astype(np.float64)
        sums = expected_row_groups(cars.survival, pieces.car[part], pieces.ends[part], pieces.tau[part], count)
        expected[part] = sums * pieces.units[part]
    return Weighed(pieces=pieces, chance=chance, expected=expected)


AT_A_TIME = 8192
"""Pieces that are weighed at a time; their intermediate arrays fit into the cache."""


def _chances(cars: Cars, pieces: Pieces) -> Floats:
    """Return the probability that each piece's car is there at its end."""
    chance = np.empty(len(pieces.car))
    for first in range(0, len(pieces.car), AT_A_TIME):
        part = slice(first, first + AT_A_TIME)
        chance[part] = stays(cars.survival, pieces.car[part], pieces.ends[part])
    return chance


def _while_there(
    cars: Cars, shards: Shards, policy: Policy, pieces: Pieces, late: Ints
) -> tuple[Pieces, npt.NDArray[np.bool_]]:
    """Cut off the row groups of `late` pieces that would end when the car has probably left; say what remains."""
    over = pieces.ends[late] - window_s(cars.survival[pieces.car[late]], policy.stay_min)
    cut = np.maximum(np.ceil(over / np.maximum(pieces.tau[late], 1e-9) - 1e-9).astype(np.int64), 0)
    stop, ends = pieces.stop.copy(), pieces.ends.copy()
    stop[late] -= cut.astype(np.int32)
    ends[late] -= (cut * pieces.tau[late]).astype(np.float32)
    least = np.minimum(
        policy.piece_row_groups_min, shards.stop[pieces.shard[late]].astype(np.int64) - pieces.start[late]
    )
    keep = np.ones(len(pieces.car), bool)
    keep[late] = stop[late] - pieces.start[late] >= least
    return replace(pieces, stop=stop, ends=ends), keep


def expected_row_groups(survival: Bytes, cars: Ints, ends: Singles, tau: Singles, count: Floats) -> Floats:
    """Return the probabilities that each car is there at the ends of its row groups, summed.

    Between two points of a curve the sum is arithmetic, so a piece costs one step for each 15 minutes that it spans,
    whatever its row groups. Pieces that span most come first, so that those still at work are a slice from the front.
    Row groups 0 to n - 1 end in a piece's first slots; a boundary's own may count on either side of it.
    """
    step = (np.maximum(tau, 1e-9) / GRID_S).astype(np.float32)
    last = (ends / GRID_S).astype(np.float32)
    at = np.maximum(last - (count.astype(np.float32) - 1.0) * step, np.float32(0.0))
    slot = np.minimum(at.astype(np.int64), GRID_POINTS - 2)
    slots = np.maximum(np.minimum(last.astype(np.int64), GRID_POINTS - 2) - slot, 0).astype(np.uint8)
    order = np.argsort(np.iinfo(np.uint8).max - slots, kind="stable")
    live = len(order) - np.concatenate([[0], np.cumsum(np.bincount(slots))])
    into, step, until = (at - slot.astype(np.float32))[order], step[order], count[order].astype(np.float32)
    point, a_slot = (cars * GRID_POINTS + slot)[order], np.float32(1.0) / step
    half, reached = np.float32(0.5) * step, (np.float32(1.0) - into) * a_slot + np.float32(1.0)
    flat, done, total = survival.reshape(-1), np.zeros(len(order), np.float32), np.zeros(len(order), np.float32)
    low = flat.take(point).astype(np.float32)
    for place, going in itertools.pairwise(live.tolist()):
        point, into, half, until, low = point[:place], into[:place], half[:place], until[:place], low[:place]
        point += 1
        high = flat.take(point).astype(np.float32)
        upto = np.minimum(np.floor(reached[:place]), until)
        upto[going:] = until[going:]
        before = done[:place]
        middle = (upto + before - 1.0) * half
        total[:place] += (upto - before) * (low + (high - low) * (middle + into))
        done, low = upto, high
        into -= 1.0
        reached[:going] += a_slot[:going]
    found = np.empty(len(order))
    found[order] = total
    return found / CERTAIN


def in_order(pieces: Pieces) -> Pieces:
    """Return the pieces in order of car and time."""
    return rows(pieces, np.lexsort((pieces.begins, pieces.car)))


def assignments(cars: Cars, shards: Shards, found: Weighed) -> pa.Table:
    """Return pieces as contract assignments."""
    pieces, count = found.pieces, len(found.pieces.car)
    first = np.concatenate([[0], np.cumsum(np.bincount(pieces.car, minlength=len(cars.car_id)))])
    nothing = np.zeros(count, np.uint8)
    table = {
        "car_id": cars.car_id[pieces.car],
        "seq": (np.arange(count) - first[pieces.car]).astype(np.uint16),
        "shard_id": shards.shard_id[pieces.shard],
        "copy": nothing,
        "rg_start": pieces.start.astype(np.uint16),
        "rg_end": pieces.stop.astype(np.uint16),
        "start_s": pieces.begins.astype(np.float32),
        "end_s": pieces.ends.astype(np.float32),
        "p_finish": found.chance.astype(np.float32),
        "expected_units": found.expected.astype(np.float32),
        "speculative": nothing.astype(bool),
        "reason": pieces.reason,
    }
    return conform(pa.table(table), "assignments")
