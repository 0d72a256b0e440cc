"""How long row groups take, what a piece is expected to complete, and the tables of a round. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.planner.inputs import UNKNOWN_RUNNING, Bytes, Cars, Floats, Ints, Shards, stays
from fleetbatch.planner.policy import ANY_REGION, GRID_POINTS, GRID_S, Policy, rate_matrix
from fleetbatch.planner.reasons import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """Row groups [start, stop) of shards on cars, any order; car and shard are places in Cars and Shards."""

    car: Ints
    shard: Ints
    start: Ints
    stop: Ints
    begins: Floats
    ends: Floats
    reason: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What cars hold already: it stays where it is."""

    pieces: Pieces
    free: Floats
    """[cars], when each is done with it; infinite where it holds a shard that is not open any more."""


def concat(parts: Sequence[Pieces]) -> Pieces:
    """Return all the pieces as one."""
    return Pieces(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in Pieces.__slots__})


def running(cars: Cars, shards: Shards, policy: Policy) -> Running:
    """Return the pieces under lease, as many of their row groups as will end in time, and when their cars are free."""
    car = np.flatnonzero(cars.running >= 0)
    shard = cars.running[car]
    start = np.maximum(cars.running_from[car], shards.start[shard])
    tau = row_group_s(cars, shards, policy, car, shard)
    room = np.maximum(np.minimum(cars.until[car], shards.deadline[shard]), 0.0)
    left = np.maximum(shards.stop[shard] - start, 0)
    groups = np.minimum(left, np.floor(room / np.maximum(tau, 1e-9) + 1e-9)).astype(np.int64)
    tau = np.where(groups > 0, tau, 0.0)
    free = np.where(cars.running == UNKNOWN_RUNNING, np.inf, 0.0)
    free[car] = np.where(groups > 0, left * tau, np.inf)
    put = groups > 0
    pieces = Pieces(
        car=car[put],
        shard=shard[put],
        start=start[put],
        stop=(start + groups)[put],
        begins=np.zeros(int(put.sum())),
        ends=(groups * tau)[put],
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
        compute = shards.units[shard] / rate
        fetch = np.where(shards.size[shard] > 0.0, shards.size[shard] / link, 0.0)
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


def in_order(pieces: Pieces) -> Pieces:
    """Return the pieces in order of car and time."""
    order = np.lexsort((pieces.begins, pieces.car))
    return Pieces(**{name: getattr(pieces, name)[order] for name in Pieces.__slots__})


def expected_units(cars: Cars, shards: Shards, policy: Policy, pieces: Pieces) -> Floats:
    """Return units times the probability that the car is there at each row group's end, summed over the piece.

    Row groups end at equal steps, the last at `ends`. Between two points of a curve the sum is arithmetic, so a
    piece costs one step for each 15 minutes it spans, whatever its row groups.
    """
    tau = row_group_s(cars, shards, policy, pieces.car, pieces.shard)
    count = (pieces.stop - pieces.start).astype(np.float64)
    first = pieces.ends - (count - 1.0) * tau
    total = np.zeros(len(count))
    done = np.zeros(len(count))
    live = np.flatnonzero(count > 0)
    while len(live):
        at = first[live] + done[live] * tau[live]
        slot = np.minimum(np.floor(at / GRID_S), GRID_POINTS - 2.0)
        edge = np.where(slot >= GRID_POINTS - 2.0, np.inf, (slot + 1.0) * GRID_S)
        inside = np.floor((edge - at) / np.maximum(tau[live], 1e-9) - 1e-9) + 1.0
        here = np.clip(np.minimum(inside, count[live] - done[live]), 1.0, None)
        middle = at + 0.5 * (here - 1.0) * tau[live]
        total[live] += here * stays(cars.survival[pieces.car[live]], middle)
        done[live] += here
        live = live[done[live] < count[live]]
    return total * shards.units[pieces.shard]


def assignments(cars: Cars, shards: Shards, pieces: Pieces, expected: Floats) -> pa.Table:
    """Return pieces that are in order as contract assignments."""
    rows = len(pieces.car)
    first = np.searchsorted(pieces.car, pieces.car)
    nothing = np.zeros(rows, np.uint8)
    table = {
        "car_id": cars.car_id[pieces.car],
        "seq": (np.arange(rows) - first).astype(np.uint16),
        "shard_id": shards.shard_id[pieces.shard],
        "copy": nothing,
        "rg_start": pieces.start.astype(np.uint16),
        "rg_end": pieces.stop.astype(np.uint16),
        "start_s": pieces.begins.astype(np.float32),
        "end_s": pieces.ends.astype(np.float32),
        "p_finish": stays(cars.survival[pieces.car], pieces.ends).astype(np.float32),
        "expected_units": expected.astype(np.float32),
        "speculative": nothing.astype(bool),
        "reason": pieces.reason,
    }
    return conform(pa.table(table), "assignments")
