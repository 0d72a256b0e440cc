"""Why each shard that has row groups left waits. Pure."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.planner.fill import Given
from fleetbatch.planner.greedy import lists_of
from fleetbatch.planner.inputs import Bytes, Cars, Floats, Ints, Shards
from fleetbatch.planner.kinds import SIZES
from fleetbatch.planner.policy import ANY_REGION, Policy, rate_matrix
from fleetbatch.planner.prices import Solution
from fleetbatch.planner.ranked import looked_up
from fleetbatch.planner.reasons import Reason
from fleetbatch.planner.risk import worth
from fleetbatch.planner.weighing import Placed

Bools = npt.NDArray[np.bool_]


def unassigned(cars: Cars, shards: Shards, policy: Policy, pieces: Placed) -> pa.Table:
    """Return every shard with row groups that no piece covers, in order of id, with its reason."""
    covered = shards.start.astype(np.int64)
    np.maximum.at(covered, pieces.shard, pieces.stop)
    waits = np.flatnonzero(covered < shards.stop)
    reason = np.full(len(shards.shard_id), Reason.LATER, np.uint8)
    for places in lists_of(shards, waits):
        reason[places] = _list_reasons(cars, shards, policy, places)
    reason[shards.deadline <= 0.0] = Reason.DEADLINE_PASSED
    reason[shards.held] = Reason.HELD
    reason[pieces.shard] = Reason.REMAINDER
    return conform(pa.table({"shard_id": shards.shard_id[waits], "reason": reason[waits]}), "unassigned")


def _list_reasons(cars: Cars, shards: Shards, policy: Policy, places: Ints) -> Bytes:
    """Return the reasons of shards that ask the same of a car: the first sieve that no car passes."""
    one = places[0]
    workload = int(shards.workload[one])
    able = np.ones(len(cars.car_id), bool)
    rates = rate_matrix(policy)
    sieves = (
        (Reason.NO_CARS, cars.limit > cars.ready),
        (Reason.NO_REGION, (shards.region[one] == ANY_REGION) | (cars.region == shards.region[one])),
        (Reason.NO_CONSENT, ((cars.consent >> np.uint32(workload)) & 1).astype(bool)),
        (
            Reason.NO_HARDWARE,
            ((shards.hw_mask[one] >> cars.hw) & 1).astype(bool) & (rates[cars.hw, workload] > 0),
        ),
        (Reason.NO_MEMORY, cars.memory >= shards.memory[one]),
    )
    for reason, sieve in sieves:
        able &= sieve
        if not able.any():
            return np.full(len(places), reason, np.uint8)
    return np.where(_fits_anywhere(cars, shards, policy, places, able), Reason.LATER, Reason.TOO_LONG).astype(np.uint8)


def _fits_anywhere(cars: Cars, shards: Shards, policy: Policy, places: Ints, able: Bools) -> Bools:
    """Return whether one row group would end in time on the fastest car, started when the earliest is ready.

    Optimistic on purpose: it takes the best speed, link and window of different cars. What it calls too long is so.
    """
    hw, workload = cars.hw[able], shards.workload[places[0]]
    speed = float(np.max(rate_matrix(policy)[hw, workload] * cars.speed[able]))
    link = float(np.max(cars.link[able]))
    with np.errstate(divide="ignore", invalid="ignore"):
        size = shards.bytes(places)
        fetch = np.where(size > 0.0, size / link, 0.0)
        tau = np.maximum(shards.units(places) / speed, fetch)
    return np.asarray(tau <= _room(cars, policy, able, shards.deadline[places]))


def _room(cars: Cars, policy: Policy, able: Bools, due: npt.NDArray[np.float32]) -> Floats:
    """Return how long the car that has longest may work before each instant; of many never too little."""
    until, ready = cars.until(np.flatnonzero(able), policy.stay_min), cars.ready[able].astype(np.float64)
    different, of = np.unique(due, return_inverse=True)
    if len(different) > DIFFERENT_MAX:
        return np.asarray(np.minimum(float(np.max(until)), due) - float(np.min(ready)))
    return np.array([float(np.max(np.minimum(until, one) - ready)) for one in different.tolist()])[of]


DIFFERENT_MAX = 8
"""Deadlines for each of which every car is looked at; of more it is asked only who stays longest and who is first."""


def unassigned_by_kind(given: Given, solution: Solution | None, pieces: Placed, taken: Bools) -> pa.Table:
    """Return what `unassigned` returns, looking once at each kind, deadline and priority instead of at each shard.

    `taken` are the shards of the pieces.
    """
    shards, rest = given.shards, np.sort(pieces.shard[~pieces.whole])
    waits = shards.start < shards.stop
    np.greater(waits, taken, out=waits)
    waits[rest] = True
    shard_id, reason = _of_tiers(given, waits, _tier_reasons(given, solution), rest)
    doubtful = _doubtful(given)
    if doubtful or int(given.work.order.counts.sum()) < len(waits):
        places = np.flatnonzero(waits)
        _of_shards(given, places, doubtful, reason)
        reason[np.searchsorted(places, rest)] = Reason.REMAINDER
    return conform(pa.table({"shard_id": shard_id, "reason": reason}), "unassigned")


STRETCH = 1 << 16
"""Shards that are looked at at a time, and whose ids are one chunk of the table: half a megabyte, which the
process has already, where one array of all the ids is asked of the kernel page by page."""


def _of_tiers(
    given: Given, waits: Bools, reasons: Bytes, rest: npt.NDArray[np.int32]
) -> tuple["pa.ChunkedArray[Any]", Bytes]:
    """Return the ids of the shards that wait, and the reasons of their tiers; `rest` (rising) are remainders."""
    found, at = np.empty(int(np.count_nonzero(waits)), np.uint8), 0
    ids, by_rank = list[Any](), reasons.repeat(SIZES)
    for first in range(0, len(waits), STRETCH):
        part = slice(first, first + STRETCH)
        some = np.flatnonzero(waits[part])
        ids.append(pa.array(given.shards.shard_id[part].take(some)))
        reason = looked_up(by_rank, given.work.order.rank[part])
        reason[rest[slice(*np.searchsorted(rest, [first, first + STRETCH]).tolist())] - first] = Reason.REMAINDER
        reason.take(some, out=found[at : at + len(some)], mode="clip")
        at += len(some)
    return pa.chunked_array(ids, pa.uint64()), found


def _of_shards(given: Given, waits: Ints, doubtful: list[int], reason: Bytes) -> None:
    """Write down the reasons of shards that wait (places) of which their tier does not say enough."""
    shards, tier = given.shards, given.work.tiers(waits)
    closed = np.flatnonzero(tier == given.work.demand.size)
    reason[closed] = np.where(shards.held[waits[closed]], Reason.HELD, Reason.DEADLINE_PASSED)
    for kind in doubtful:
        asked = np.flatnonzero(tier // given.work.demand[0].size == kind)
        if len(asked):
            found = _list_reasons(given.cars, shards, given.policy, waits[asked])
            reason[asked] = np.where(found == Reason.LATER, reason[asked], found)


def _tier_reasons(given: Given, solution: Solution | None) -> Bytes:
    """Return why shards of each kind, deadline and priority wait that cars could do in time; at the end, any other."""
    reason = np.full(given.work.demand.shape, Reason.LATER, np.uint8)
    if solution is not None:
        value = worth(given.fleet, given.work, given.grid, given.policy)
        usable = given.grid.usable(given.grid.deadlines)
        now = given.grid.edges[:-1] < given.policy.commit_s
        planned = solution.flow[:, now].sum(axis=1)
        later = solution.flow.sum(axis=1) - planned
        price = np.where(usable.T[None], solution.price[:, :, None], np.inf)  # [kind, block, deadline]
        outbid = (price[..., None] > value[None]).all(axis=1)
        cheapest = np.where(usable.T[None], _energy(given)[:, :, None], np.inf).min(axis=1)[..., None]
        reason[(later > SERVED * given.work.demand) & (planned < SERVED * given.work.demand)] = Reason.BETTER_HOURS
        reason[outbid] = Reason.OUTBID
        able = np.isfinite(cheapest)  # where nobody is there in time, no energy would be used
        reason[able & (cheapest > np.asarray(given.policy.value_per_unit))] = Reason.NOT_WORTH
    return np.append(reason.ravel(), np.uint8(Reason.LATER))


SERVED = 0.01
"""A smaller share of what is open is the solver's dust."""


def _energy(given: Given) -> Floats:
    """Return [kind, block], the least that a unit's energy costs on any class of cars, in value."""
    made, seconds = given.fleet.work, given.fleet.seconds[:, :, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        per_unit = np.where(made > 0.0, given.cost[:, :, None] * seconds / made, np.inf)
    return np.asarray(per_unit.min(axis=0, initial=np.inf).T)


def _doubtful(given: Given) -> list[int]:
    """Return the kinds of which not every shard is certain to fit somewhere before its deadline."""
    cars = given.cars
    if not len(cars.car_id):
        return list(range(len(given.work.kinds)))
    found = []
    step = max(len(cars.car_id) // WITNESSES, 1)
    for kind, rates in enumerate(given.fleet.rate):
        rate = rates[::step]
        best = float(rate.max())
        able = np.flatnonzero(rate >= 0.5 * best) * step if best > 0.0 else np.zeros(0, np.int64)
        able = given.fleet.order[able]
        until = np.minimum(cars.limit[able], given.grid.deadlines[0])
        room = float(np.max(until - cars.ready[able], initial=0.0))
        if best <= 0.0 or given.work.largest / (0.5 * best) > room:
            found.append(kind)
    return found


WITNESSES = 16_384
"""Cars that are asked whether all of a kind fits somewhere; where they are too few, every shard is looked at."""
