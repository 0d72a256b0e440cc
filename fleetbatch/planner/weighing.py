"""What the pieces of a round are expected to complete, and the table that says so. Pure."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.planner.inputs import CERTAIN, Bytes, Cars, Ints, Shards, Singles, stays, window_s
from fleetbatch.planner.pieces import PIECE, Pieces, Queues
from fleetbatch.planner.policy import GRID_POINTS, GRID_S, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A round's pieces in order of car and time, column by column, as its tables have them."""

    car: npt.NDArray[np.int32]
    seq: npt.NDArray[np.uint16]
    """Its place in its car's queue."""
    shard: npt.NDArray[np.int32]
    start: npt.NDArray[np.uint16]
    stop: npt.NDArray[np.uint16]
    begins: Singles
    ends: Singles
    units: Singles
    reason: Bytes
    whole: npt.NDArray[np.bool_]

    def taken(self, shards: int) -> npt.NDArray[np.bool_]:
        """Return which of so many shards have a piece."""
        taken = np.zeros(shards, bool)
        taken[self.shard] = True
        return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """Pieces in order of car and time, with what is expected of them."""

    pieces: Placed
    chance: Singles
    """That the car is there until the piece's end."""
    expected: Singles
    """Units."""


AT_A_TIME = 16_384
"""Pieces that are weighed at a time; their intermediate arrays fit into the cache."""


def weighed(cars: Cars, shards: Shards, policy: Policy, queues: Queues) -> Weighed:
    """Return the pieces with what is expected of them.

    A piece stops where its car has left but for a chance of `stay_min`; it is left out where nothing remains. Every
    piece is put in its place, weighed and taken apart while it is in the cache: records in order are never there as a
    whole. Looks at the cars in their own order: that is half of its cost.
    """
    columns = {name: np.empty(len(queues), PIECE[name]) for name in Placed.__slots__ if name != "seq"}
    chance, expected, put = np.empty(len(queues), np.float32), np.empty(len(queues), np.float32), 0
    for first in range(0, len(queues), AT_A_TIME):
        pieces = queues.part(first, first + AT_A_TIME)
        sure, sums = _weigh(cars, shards, policy, pieces)
        keep = pieces.stop > pieces.start
        if not keep.all():
            some = np.flatnonzero(keep)
            pieces, sure, sums = pieces.some(some), sure.take(some), sums.take(some)
        part = slice(put, put + len(pieces))
        for name, column in columns.items():
            column[part] = pieces.records[name]
        chance[part], expected[part], put = sure, sums, part.stop
    placed = Placed(seq=_seq(columns["car"][:put]), **{name: column[:put] for name, column in columns.items()})
    return Weighed(pieces=placed, chance=chance[:put], expected=expected[:put])


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
    over = some.ends - window_s(cars.survival, policy.stay_min, some.car.astype(np.int64))
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
    """Return pieces as contract assignments."""
    pieces, nothing = found.pieces, np.zeros(len(found.chance), np.uint8)
    table = {
        "car_id": cars.car_id.take(pieces.car),
        "seq": pieces.seq,
        "shard_id": shards.shard_id.take(pieces.shard),
        "copy": nothing,
        "rg_start": pieces.start,
        "rg_end": pieces.stop,
        "start_s": pieces.begins,
        "end_s": pieces.ends,
        "p_finish": found.chance,
        "expected_units": found.expected,
        "speculative": nothing.view(bool),
        "reason": pieces.reason,
    }
    return conform(pa.table(table), "assignments")


def _seq(car: npt.NDArray[np.int32]) -> npt.NDArray[np.uint16]:
    """Return each piece's place in its car's queue; the pieces of a car stand together.

    Most are the first of their car: only the others are looked at.
    """
    follows = np.flatnonzero(car[1:] == car[:-1]) + 1
    seq = np.zeros(len(car), np.uint16)
    firsts = np.flatnonzero(np.append(True, np.diff(follows) > 1)[: len(follows)])
    run = np.repeat(firsts, np.diff(np.append(firsts, len(follows))))
    seq[follows] = np.arange(1, len(follows) + 1) - run
    return seq
