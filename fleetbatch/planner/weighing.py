"""What the pieces of a round are expected to complete, and the table that says so. Pure."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.planner.inputs import CERTAIN, Bytes, Cars, Ints, Shards, Singles, stays, window_s
from fleetbatch.planner.pieces import Pieces
from fleetbatch.planner.policy import GRID_POINTS, GRID_S, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """Pieces in order of car and time, with what is expected of them."""

    pieces: Pieces
    chance: Singles
    """That the car is there until the piece's end."""
    expected: Singles
    """Units."""


AT_A_TIME = 16_384
"""Pieces that are weighed at a time; their intermediate arrays fit into the cache."""


def weighed(cars: Cars, shards: Shards, policy: Policy, pieces: Pieces) -> Weighed:
    """Return pieces that are in order of car and time with what is expected of them.

    A piece stops where its car has left but for a chance of `stay_min`; it is left out where nothing remains. Takes
    the pieces over: what is cut is cut in their own records, which nobody else needs. Looks
    at the cars in their own order and in pieces that stay in the cache: that is half of its cost.
    """
    chance, expected = np.empty(len(pieces), np.float32), np.empty(len(pieces), np.float32)
    for first in range(0, len(pieces), AT_A_TIME):
        part = slice(first, first + AT_A_TIME)
        chance[part], expected[part] = _weigh(cars, shards, policy, Pieces(pieces.records[part]))
    keep = pieces.stop > pieces.start
    if not keep.all():
        some = np.flatnonzero(keep)
        pieces, chance, expected = pieces.some(some), chance.take(some), expected.take(some)
    return Weighed(pieces=pieces, chance=chance, expected=expected)


def _weigh(cars: Cars, shards: Shards, policy: Policy, pieces: Pieces) -> tuple[Singles, Singles]:
    """Cut what must be cut, and return each piece's chance and what is expected of it; 0 for what is not to remain."""
    car = pieces.car.astype(np.int64)
    chance = stays(cars.survival, car, pieces.ends)
    late = np.flatnonzero(chance < policy.stay_min)
    if len(late):
        _cut_off(cars, shards, policy, pieces, late)
        chance[late] = stays(cars.survival, car[late], pieces.ends[late])
    sums = expected_row_groups(cars.survival, car, pieces.ends, pieces.tau, pieces.count())
    return chance, sums * pieces.units


def _cut_off(cars: Cars, shards: Shards, policy: Policy, pieces: Pieces, late: Ints) -> None:
    """Cut off the row groups of `late` pieces that would end when the car has probably left; of some all of them."""
    some, records = pieces.some(late), pieces.records
    over = some.ends - window_s(cars.survival[some.car], policy.stay_min)
    cut = np.clip(np.ceil(over / np.maximum(some.tau, 1e-9) - 1e-9), 0, some.count())
    least = np.minimum(policy.piece_row_groups_min, shards.stop.take(some.shard).astype(np.int64) - some.start)
    cut = np.where(some.count() - cut >= least, cut, some.count())
    records["stop"][late] -= cut.astype(np.uint16)
    records["ends"][late] -= (cut * some.tau).astype(np.float32)
    records["whole"][late] &= cut == 0


def expected_row_groups(survival: Bytes, cars: Ints, ends: Singles, tau: Singles, count: Singles) -> Singles:
    """Return the probabilities that each car is there at the ends of its row groups, summed.

    A curve is its value at a point and its slopes from there on, and each slope counts as often as row groups end
    beyond its slot, and as far: so a piece costs one step for each 15 minutes that it spans, whatever its row groups.
    Pieces that span most come first, so that those still at work are a slice from the front.
    """
    step, last = np.maximum(tau, SHORTEST) / SLOT_S, ends / SLOT_S
    first = np.maximum(last - (count - ONE) * step, np.float32(0.0))
    slot = np.minimum(first.astype(np.int64), GRID_POINTS - 2)
    slots = np.maximum(np.minimum(last.astype(np.int64), GRID_POINTS - 2) - slot, 0).astype(np.uint8)
    order = np.argsort(np.iinfo(np.uint8).max - slots, kind="stable")
    flat, point = survival.reshape(-1), (cars * GRID_POINTS + slot).take(order)
    groups, step, left = count.take(order), step.take(order), (last - slot.astype(np.float32)).take(order)
    half, per_slot, low = step * HALF, ONE / step, flat.take(point).astype(np.float32)
    total, ahead = groups * low, groups * (left + half - half * groups)
    for going in (len(order) - np.cumsum(np.bincount(slots))).tolist():
        point += 1
        high = flat.take(point).astype(np.float32)
        slope = high - low
        left, half, per_slot = left[:going], half[:going], per_slot[:going]
        left -= ONE
        groups = np.ceil(left * per_slot)
        beyond = (left + half - half * groups) * groups
        ahead[:going] -= beyond
        slope *= ahead
        total[: len(slope)] += slope
        point, low, ahead = point[:going], high[:going], beyond
    found = np.empty_like(total)
    found[order] = total
    return np.asarray(found / np.float32(CERTAIN), np.float32)


ONE, HALF, SLOT_S, SHORTEST = (np.float32(number) for number in (1.0, 0.5, GRID_S, 1e-9))


def assignments(cars: Cars, shards: Shards, found: Weighed) -> pa.Table:
    """Return pieces as contract assignments; every record is looked at once, for all columns."""
    count, nothing = len(found.pieces), np.zeros(len(found.pieces), np.uint8)
    columns: dict[str, npt.NDArray[Any]] = {name: np.empty(count, kind) for name, kind in _COLUMNS.items()}
    for first in range(0, count, AT_A_TIME):
        part = slice(first, first + AT_A_TIME)
        some = Pieces(found.pieces.records[part])
        columns["car_id"][part] = cars.car_id.take(some.car)
        columns["shard_id"][part] = shards.shard_id.take(some.shard)
        columns["rg_start"][part], columns["rg_end"][part] = some.start, some.stop
        columns["start_s"][part], columns["end_s"][part] = some.begins, some.ends
        columns["reason"][part] = some.reason
    table = {
        "car_id": columns["car_id"],
        "seq": _seq(columns["car_id"]),
        "shard_id": columns["shard_id"],
        "copy": nothing,
        "rg_start": columns["rg_start"],
        "rg_end": columns["rg_end"],
        "start_s": columns["start_s"],
        "end_s": columns["end_s"],
        "p_finish": found.chance,
        "expected_units": found.expected,
        "speculative": nothing.view(bool),
        "reason": columns["reason"],
    }
    return conform(pa.table(table), "assignments")


_COLUMNS: Final[dict[str, str]] = {
    "car_id": "u8",
    "shard_id": "u8",
    "rg_start": "u2",
    "rg_end": "u2",
    "start_s": "f4",
    "end_s": "f4",
    "reason": "u1",
}


def _seq(car: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint16]:
    """Return each piece's place in its car's queue; the pieces of a car stand together."""
    begins = np.append(np.flatnonzero(np.append(True, car[1:] != car[:-1])), len(car)).astype(np.int32)
    return (np.arange(len(car), dtype=np.int32) - np.repeat(begins[:-1], np.diff(begins))).astype(np.uint16)
