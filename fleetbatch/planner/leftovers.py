"""The reason for every shard that waits and for every car that has nothing. Pure."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.planner.greedy import lists_of
from fleetbatch.planner.inputs import NONE, Bytes, Cars, Ints, Shards, window_s
from fleetbatch.planner.pieces import Pieces, row_group_s
from fleetbatch.planner.policy import ANY_REGION, Policy, rate_matrix
from fleetbatch.planner.reasons import Reason

Bools = npt.NDArray[np.bool_]


def unassigned(cars: Cars, shards: Shards, policy: Policy, pieces: Pieces) -> pa.Table:
    """Return every shard with row groups that no piece covers, in order of id, with its reason."""
    covered = shards.start.copy()
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
        (Reason.NO_CARS, cars.until > cars.ready),
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
    return np.where(_fits_anywhere(cars, shards, rates, places, able), Reason.LATER, Reason.TOO_LONG).astype(np.uint8)


def _fits_anywhere(cars: Cars, shards: Shards, rates: npt.NDArray[np.float64], places: Ints, able: Bools) -> Bools:
    """Return whether one row group would end in time on the fastest car, started when the earliest is ready.

    Optimistic on purpose: it takes the best speed, link and window of different cars. What it calls too long is so.
    """
    hw, workload = cars.hw[able], shards.workload[places[0]]
    speed = float(np.max(rates[hw, workload] * cars.speed[able]))
    link = float(np.max(cars.link[able]))
    with np.errstate(divide="ignore", invalid="ignore"):
        fetch = np.where(shards.size[places] > 0.0, shards.size[places] / link, 0.0)
        tau = np.maximum(shards.units[places] / speed, fetch)
    room = np.minimum(float(np.max(cars.until[able])), shards.deadline[places]) - float(np.min(cars.ready[able]))
    return np.asarray(tau <= room)


def car_plan(cars: Cars, shards: Shards, policy: Policy, pieces: Pieces) -> pa.Table:
    """Return one row a car: its queue in brief, or why it has none."""
    count = np.bincount(pieces.car, minlength=len(cars.car_id))
    busy = np.zeros(len(cars.car_id))
    np.maximum.at(busy, pieces.car, pieces.ends)
    reason = _idle_reasons(cars, shards, policy, pieces)
    reason[count > 0] = Reason.HAS_WORK
    table = {
        "car_id": cars.car_id,
        "pieces": count.astype(np.uint16),
        "busy_until_s": busy.astype(np.float32),
        "bookable_s": np.minimum(window_s(cars.survival, 1.0 - policy.window_risk), cars.until).astype(np.float32),
        "reason": reason,
    }
    return conform(pa.table(table), "car_plan")


def _idle_reasons(cars: Cars, shards: Shards, policy: Policy, pieces: Pieces) -> Bytes:
    """Return why each car would have nothing, were it idle; the last that is set is the gravest."""
    open_ = np.flatnonzero(~shards.held & (shards.start < shards.stop) & (shards.deadline > 0.0))
    reason = np.full(len(cars.car_id), Reason.SHORT_WINDOW, np.uint8)
    reason[~_may_any(cars, shards, policy, np.setdiff1d(open_, pieces.shard))] = Reason.ALL_PLACED
    reason[~_may_any(cars, shards, policy, open_)] = Reason.NOTHING_FITS
    reason[cars.ready >= policy.commit_s] = Reason.NOT_READY
    reason[cars.running != NONE] = Reason.BUSY
    return reason


def _may_any(cars: Cars, shards: Shards, policy: Policy, places: Ints) -> Bools:
    """Return which cars may have at least one of the shards."""
    may = np.zeros(len(cars.car_id), bool)
    everyone = np.arange(len(may))
    for alike in lists_of(shards, places):
        may |= row_group_s(cars, shards, policy, everyone, np.full(len(may), alike[0])) < np.inf
    return may
