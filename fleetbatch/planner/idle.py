"""Why each car that has nothing has nothing. Pure."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.planner.classes import each_car
from fleetbatch.planner.fill import Given
from fleetbatch.planner.greedy import lists_of
from fleetbatch.planner.inputs import NONE, UNKNOWN_RUNNING, Bytes, Cars, Floats, Ints, Shards
from fleetbatch.planner.kinds import SIZES
from fleetbatch.planner.pieces import row_group_s
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.prices import Solution
from fleetbatch.planner.reasons import Reason
from fleetbatch.planner.weighing import Placed

Bools = npt.NDArray[np.bool_]


def car_plan(cars: Cars, shards: Shards, policy: Policy, pieces: Placed) -> pa.Table:
    """Return one row a car: its queue in brief, or why it has none."""
    reason = _idle_reasons(cars, shards, policy, pieces)
    reason[pieces.car] = Reason.HAS_WORK
    return _car_plan(cars, pieces, reason)


def _car_plan(cars: Cars, pieces: Placed, reason: Bytes) -> pa.Table:
    busy, queue = np.zeros(len(cars.car_id), np.float32), np.zeros(len(cars.car_id), np.uint16)
    busy[pieces.car], queue[pieces.car] = pieces.ends, pieces.seq + np.uint16(1)  # in order of time: the last one stays
    table = {
        "car_id": cars.car_id,
        "pieces": queue,
        "busy_until_s": busy,
        "reason": reason,
    }
    return conform(pa.table(table), "car_plan")


def _idle_reasons(cars: Cars, shards: Shards, policy: Policy, pieces: Placed) -> Bytes:
    """Return why each car would have nothing, were it idle."""
    open_ = np.flatnonzero(shards.open())
    if not len(open_):
        return _gravest(cars, policy, pieces, np.full(len(cars.car_id), Reason.NO_WORK, np.uint8))
    reason = np.full(len(cars.car_id), Reason.SHORT_WINDOW, np.uint8)
    reason[~_may_any(cars, shards, policy, np.setdiff1d(open_, pieces.shard))] = Reason.ALL_PLACED
    reason[~_may_any(cars, shards, policy, open_)] = Reason.NOTHING_FITS
    return _gravest(cars, policy, pieces, reason)


def _gravest(cars: Cars, policy: Policy, pieces: Placed, reason: Bytes) -> Bytes:
    """Return the reasons after what no open work could change; the last that is set is the gravest."""
    np.copyto(reason, np.uint8(Reason.NOT_READY), where=cars.ready >= policy.commit_s)
    runs = np.flatnonzero(cars.running != NONE)
    if len(runs):
        shard = cars.running[runs]
        gone = pieces.shard[pieces.reason == Reason.HANDED_OVER]
        gives = np.where(np.isin(shard, gone), Reason.GIVES_AWAY, Reason.RUNS_LATE)
        reason[runs] = np.where(shard == UNKNOWN_RUNNING, Reason.BUSY, gives)
    return reason


def _may_any(cars: Cars, shards: Shards, policy: Policy, places: Ints) -> Bools:
    """Return which cars may have at least one of the shards."""
    may = np.zeros(len(cars.car_id), bool)
    everyone = np.arange(len(may))
    for alike in lists_of(shards, places):
        may |= row_group_s(cars, shards, policy, everyone, np.full(len(may), alike[0])) < np.inf
    return may


def car_plan_by_kind(given: Given, solution: Solution | None, pieces: Placed, taken: Bools) -> pa.Table:
    """Return what `car_plan` returns, looking once at each kind; `taken` are the shards of the pieces."""
    cars, order = given.cars, given.fleet.order
    reason = _gravest(cars, given.policy, pieces, np.zeros(len(order), np.uint8))
    reason[pieces.car] = Reason.HAS_WORK
    idle = np.flatnonzero(reason[order] == 0)
    reason[order[idle]] = _reasons_of_idle(given, solution, taken, idle)
    return _car_plan(cars, pieces, reason)


def _reasons_of_idle(given: Given, solution: Solution | None, taken: Bools, idle: Ints) -> Bytes:
    """Return what keeps each idle car (places in class order) from every kind of work that waits."""
    fleet = given.fleet
    if not given.work.order.counts.any():
        return np.full(len(idle), Reason.NO_WORK, np.uint8)
    least = _shortest_row_groups(given, taken)
    cost = each_car(given.cost[:, 0], fleet.starts).take(idle)
    price = np.full(len(least), np.finfo(np.float64).max) if solution is None else solution.price[:, 0]
    cars, link = fleet.order[idle], fleet.link.take(idle)
    room = given.cars.until(cars, given.policy.stay_min) - given.cars.ready[cars]
    may, left, stays, pays = (np.zeros(len(idle), bool) for _ in range(4))
    for kind, units in enumerate(least):
        rate = fleet.rate[kind].take(idle)
        able = rate > 0.0
        may |= able
        if not np.isfinite(units):
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            seconds = units / rate + units * given.work.kinds.bytes_most[kind] / link
        fits = able & (seconds <= room)
        left |= able
        stays |= fits
        pays |= fits & (price[kind] >= cost / np.maximum(rate, 1e-30))
    steps = [~may, ~left, ~stays, ~pays]
    said = [Reason.NOTHING_FITS, Reason.ALL_PLACED, Reason.SHORT_WINDOW, Reason.BETTER_LATER]
    return np.select(steps, said, Reason.TOO_SLOW).astype(np.uint8)


STRETCH = 1 << 16
"""Shards among which the shortest row group of a kind is looked for, from the end on, and more only where none of them
waits."""


def _shortest_row_groups(given: Given, taken: Bools) -> Floats:
    """Return the units of the shortest row group that waits of each kind, infinite where none does."""
    work, shards = given.work, given.shards
    rank, width = work.order.rank, work.demand[0].size * SIZES
    least = np.full(len(work.kinds), np.inf)
    for kind, count in enumerate(work.shards().reshape(len(least), -1).sum(axis=1).tolist()):
        if not count:
            continue
        first = rank.dtype.type(kind * width)
        for end in range(len(rank), 0, -STRETCH):
            part = slice(max(end - STRETCH, 0), end)
            waits = np.flatnonzero((rank[part] - first < width) & ~taken[part]) + part.start
            if len(waits):
                least[kind] = float(shards.units(waits).min())
                break
    return least
