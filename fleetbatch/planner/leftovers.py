"""The reason for every shard that waits and for every car that has nothing. Pure."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.planner.fill import Given
from fleetbatch.planner.greedy import lists_of
from fleetbatch.planner.inputs import NONE, Bytes, Cars, Ints, Shards
from fleetbatch.planner.pieces import Pieces, row_group_s
from fleetbatch.planner.policy import ANY_REGION, Policy, rate_matrix
from fleetbatch.planner.reasons import Reason

Bools = npt.NDArray[np.bool_]


def unassigned(cars: Cars, shards: Shards, policy: Policy, pieces: Pieces) -> pa.Table:
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
    room = np.minimum(
        float(np.max(cars.until(np.flatnonzero(able), policy.stay_min))), shards.deadline[places]
    ) - float(np.min(cars.ready[able]))
    return np.asarray(tau <= room)


def car_plan(cars: Cars, shards: Shards, policy: Policy, pieces: Pieces) -> pa.Table:
    """Return one row a car: its queue in brief, or why it has none."""
    reason = _idle_reasons(cars, shards, policy, pieces)
    reason[pieces.car] = Reason.HAS_WORK
    return _car_plan(cars, pieces, reason)


def _car_plan(cars: Cars, pieces: Pieces, reason: Bytes) -> pa.Table:
    busy = np.zeros(len(cars.car_id), np.float32)
    busy[pieces.car] = pieces.ends  # in order of time: the last one stays
    table = {
        "car_id": cars.car_id,
        "pieces": np.bincount(pieces.car, minlength=len(cars.car_id)).astype(np.uint16),
        "busy_until_s": busy,
        "reason": reason,
    }
    return conform(pa.table(table), "car_plan")


def _idle_reasons(cars: Cars, shards: Shards, policy: Policy, pieces: Pieces) -> Bytes:
    """Return why each car would have nothing, were it idle; the last that is set is the gravest."""
    open_ = np.flatnonzero(shards.open())
    reason = np.full(len(cars.car_id), Reason.SHORT_WINDOW, np.uint8)
    reason[~_may_any(cars, shards, policy, np.setdiff1d(open_, pieces.shard))] = Reason.ALL_PLACED
    reason[~_may_any(cars, shards, policy, open_)] = Reason.NOTHING_FITS
    reason[cars.ready >= policy.commit_s] = Reason.NOT_READY
    reason[cars.running != NONE] = Reason.BUSY
    reason[_gives_away(cars, pieces)] = Reason.GIVES_AWAY
    return reason


def _gives_away(cars: Cars, pieces: Pieces) -> Bools:
    """Return the cars whose running shard another one has now."""
    gone = pieces.shard[pieces.reason == Reason.HANDED_OVER]
    return np.asarray(np.isin(cars.running, gone)) if len(gone) else np.zeros(len(cars.car_id), bool)


def _may_any(cars: Cars, shards: Shards, policy: Policy, places: Ints) -> Bools:
    """Return which cars may have at least one of the shards."""
    may = np.zeros(len(cars.car_id), bool)
    everyone = np.arange(len(may))
    for alike in lists_of(shards, places):
        may |= row_group_s(cars, shards, policy, everyone, np.full(len(may), alike[0])) < np.inf
    return may


def unassigned_by_kind(given: Given, pieces: Pieces) -> pa.Table:
    """Return what `unassigned` returns, looking once at each kind instead of at each shard."""
    shards, tier = given.shards, given.work.tier
    waits = shards.start < shards.stop
    whole = pieces.stop >= shards.stop[pieces.shard]
    waits[pieces.shard[whole]] = False
    ids = shards.shard_id[waits]
    reason = np.full(len(ids), Reason.LATER, np.uint8)
    doubtful = _doubtful(given)
    if doubtful or len(given.work.order) < len(tier):
        places = np.flatnonzero(waits)
        kind = tier[places] // _tiers_of_kind(given)
        closed = kind == len(given.work.kinds)
        reason[closed] = np.where(shards.held[places[closed]], Reason.HELD, Reason.DEADLINE_PASSED)
        for one in doubtful:
            mine = np.flatnonzero(kind == one)
            if len(mine):
                reason[mine] = _list_reasons(given.cars, shards, given.policy, places[mine])
    reason[np.searchsorted(ids, shards.shard_id[pieces.shard[~whole]])] = Reason.REMAINDER
    return conform(pa.table({"shard_id": ids, "reason": reason}), "unassigned")


def _tiers_of_kind(given: Given) -> int:
    return int(np.prod(given.work.demand.shape[1:]))


def _tiers(given: Given) -> int:
    return len(given.work.kinds) * _tiers_of_kind(given)


def _doubtful(given: Given) -> list[int]:
    """Return the kinds of which not every shard is certain to fit somewhere before its deadline."""
    cars = given.cars
    if not len(cars.car_id):
        return list(range(len(given.work.kinds)))
    found = []
    for kind, rate in enumerate(given.fleet.rate):
        best = float(rate.max())
        able = np.flatnonzero(rate >= 0.5 * best) if best > 0.0 else np.zeros(0, np.int64)
        able = given.fleet.order[able]
        room = min(float(np.max(cars.limit[able] - cars.ready[able], initial=0.0)), float(given.grid.deadlines[0]))
        if best <= 0.0 or given.work.largest / (0.5 * best) > room:
            found.append(kind)
    return found


def car_plan_by_kind(given: Given, pieces: Pieces) -> pa.Table:
    """Return what `car_plan` returns, looking once at each kind."""
    cars, order = given.cars, given.fleet.order
    left = _left_kinds(given, pieces)
    reason = np.full(len(order), Reason.HAS_WORK, np.uint8)
    has = np.zeros(len(order), bool)
    has[pieces.car] = True
    idle = np.flatnonzero(~has[order])
    may, may_left = np.zeros(len(idle), bool), np.zeros(len(idle), bool)
    for kind, rate in enumerate(given.fleet.rate):
        able = rate[idle] > 0.0
        may |= able
        if left[kind]:
            may_left |= able
    place = order[idle]
    why = np.where(may, np.where(may_left, Reason.SHORT_WINDOW, Reason.ALL_PLACED), Reason.NOTHING_FITS)
    why[cars.ready[place] >= given.policy.commit_s] = Reason.NOT_READY
    why[cars.running[place] != NONE] = Reason.BUSY
    why[_gives_away(cars, pieces)[place]] = Reason.GIVES_AWAY
    reason[place] = why
    return _car_plan(cars, pieces, reason)


def _left_kinds(given: Given, pieces: Pieces) -> Bools:
    """Return which kinds have shards that no piece touches."""
    per = _tiers_of_kind(given)
    open_ = given.work.starts[per::per] - given.work.starts[:-1:per]
    fresh = given.work.tier[pieces.shard]
    fresh = fresh[fresh < _tiers(given)]
    return np.asarray(open_ > np.bincount(fresh // per, minlength=len(open_)))
