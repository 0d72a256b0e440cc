"""Who would not end a shard in time gives it to a car that stands idle, or has less urgent work, and will. Pure.

Work stays where it is as long as it ends before its deadline's buffer. Only cars that the round has left idle take it
over, or such as have only less urgent work from this very round, since at full load none is idle; and only where more
row groups are saved than the change costs: of a running shard the row group in work is lost, and the new car fetches
first. What was only just placed moves by the same rule, so that the next round need not.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.greedy import lists_of
from fleetbatch.planner.grid import buffer_from
from fleetbatch.planner.inputs import NONE, Bytes, Cars, Floats, Ints, Shards, stays
from fleetbatch.planner.pieces import Pieces, Queues, in_order, row_group_s
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.reasons import Reason

SOON_S = 60.0
"""A car that begins later than this would leave the shard lying."""
RUNS = -1
ROW_GROUPS_LOST = 1.0
"""What a change of cars costs: the row group in work."""
CANDIDATES = 1 << 13
"""So many of the free cars are looked at, or TRIES a late shard if that is more."""
TRIES = 8
"""Of so many of the fastest cars a shard, those that will probably stay come first."""
STAYS = 0.7

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Race:
    """A car computes a shard from `begins` on, every `tau` a row group."""

    car: Ints
    shard: Ints
    begins: Floats
    tau: Floats
    groups: Ints
    row: Ints
    """Its place among the pieces, RUNS for what runs already."""
    until: Floats
    """When the car must have stopped."""

    def some(self, which: Ints) -> "_Race":
        """Return some of them, in that order."""
        return _Race(**{name: getattr(self, name)[which] for name in _Race.__slots__})

    def ends(self) -> Floats:
        """Return when the last row group ends."""
        return np.asarray(self.begins + self.groups * self.tau)

    def saved(self, cars: Cars, shards: Shards, policy: Policy) -> Floats:
        """Return how many row groups are expected in time; those in the buffer count for a share."""
        deadline = shards.deadline[self.shard].astype(np.float64)
        stop = np.minimum(deadline, self.until)
        early = self._by(np.minimum(stop, buffer_from(deadline, policy)))
        counted = early + policy.buffer_worth * (self._by(stop) - early)
        return np.asarray(counted * stays(cars.survival, self.car, np.minimum(self.ends(), stop)))

    def _by(self, instant: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            count = np.floor((instant - self.begins) / self.tau + 1e-9)
        return np.asarray(np.clip(np.where(np.isfinite(count), count, self.groups), 0, self.groups))


def handed_over(cars: Cars, shards: Shards, policy: Policy, pieces: Pieces) -> Queues:
    """Return the pieces of a round, now in order of car and time, with late shards on cars that end them.

    Idle cars take them, or cars that have only less urgent work from this round, which then waits. The car that gives
    its running shard away has nothing for this round.
    """
    late = _late(shards, policy, _together(_running(cars, shards, policy), _fresh(cars, shards, policy, pieces)))
    car = np.ascontiguousarray(pieces.car)
    old, new = _moves(cars, shards, policy, late, (car, pieces.shard))
    stay, changes = np.ones(len(pieces), bool), np.zeros(len(cars.car_id), bool)
    changes[old.car[old.row == RUNS]], changes[new.car] = True, True
    stay[old.row[old.row != RUNS]] = False
    if len(new.car):
        stay &= ~changes.take(car)
    reason = np.where(old.row == RUNS, Reason.HANDED_OVER, pieces.reason[old.row] if len(pieces) else 0)
    return in_order(pieces, car, stay, _pieces(cars, shards, new, reason.astype(np.uint8)))


def _moves(
    cars: Cars, shards: Shards, policy: Policy, late: _Race, placed: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]
) -> tuple[_Race, _Race]:
    """Return which of the late shards move, as they are and as they will be; `placed` are all pieces' cars, shards."""
    car, shard = placed
    soon = (cars.running == NONE) & (cars.ready <= SOON_S) & (cars.ready < policy.commit_s)
    idle = soon.copy()
    idle[car] = False
    old, new = _pairs_of_lists(cars, shards, policy, late, idle)
    last = len(policy.value_per_unit) - 1
    urgent = np.minimum(shards.priority[late.shard], last)
    levels = np.unique(urgent[urgent < last]).tolist()
    if levels:  # only the least urgent of all gives way: of anything else a less urgent shard of its list might stay
        soon[car.take(np.flatnonzero(shards.priority.take(shard) < last))] = False
    for level in levels:
        mine = late.some(np.flatnonzero((urgent == level) & ~np.isin(late.shard, old.shard)))
        soon[new.car] = False
        more = _pairs_of_lists(cars, shards, policy, mine, soon)
        old, new = _together(old, more[0]), _together(new, more[1])
    return old, new


def _pairs_of_lists(cars: Cars, shards: Shards, policy: Policy, late: _Race, free: Bools) -> tuple[_Race, _Race]:
    """Pair late shards with free cars, list by list; a car that takes one is free no more."""
    by_shard = np.argsort(late.shard)
    sorted_ = late.shard.take(by_shard)
    old, new = late.some(np.zeros(0, np.int64)), late.some(np.zeros(0, np.int64))
    for alike in lists_of(shards, sorted_):
        mine = late.some(by_shard.take(np.searchsorted(sorted_, alike)))
        some = np.flatnonzero(free)
        step = max(len(some) // max(CANDIDATES, TRIES * len(alike)), 1)
        moved = _pairs(cars, shards, policy, mine, some[::step])
        free[moved[1].car] = False
        old, new = _together(old, moved[0]), _together(new, moved[1])
    return old, new


def _running(cars: Cars, shards: Shards, policy: Policy) -> _Race:
    """Return what runs, to the end of its shard."""
    car = np.flatnonzero(cars.running >= 0)
    shard = cars.running[car]
    start = np.maximum(cars.running_from[car], shards.start[shard].astype(np.int64))
    return _Race(
        car=car,
        shard=shard,
        begins=np.zeros(len(car)),
        tau=row_group_s(cars, shards, policy, car, shard),
        groups=np.maximum(shards.stop[shard].astype(np.int64) - start, 0),
        row=np.full(len(car), RUNS),
        until=cars.until(car, policy.stay_min),
    )


def _fresh(cars: Cars, shards: Shards, policy: Policy, pieces: Pieces) -> _Race:
    """Return the first pieces of cars that were just placed and come late, to the end of their shards."""
    late = ~pieces.whole
    soon = np.flatnonzero(pieces.ends > buffer_from(shards.deadline.min(initial=np.inf, keepdims=True), policy))
    late[soon] |= pieces.ends[soon] > buffer_from(shards.deadline[pieces.shard[soon]].astype(np.float64), policy)
    row = np.flatnonzero(late)
    some = pieces.some(row)
    first = np.flatnonzero((some.turn == 0) & (some.reason != Reason.RUNNING))
    row, some = row.take(first), some.some(first)
    car = some.car.astype(np.int64)
    return _Race(
        car=car,
        shard=some.shard.astype(np.int64),
        begins=some.ends - some.count().astype(np.float64) * some.tau,
        tau=some.tau.astype(np.float64),
        groups=shards.stop[some.shard].astype(np.int64) - some.start,
        row=row,
        until=cars.until(car, policy.stay_min),
    )


def _together(one: _Race, other: _Race) -> _Race:
    return _Race(**{name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in _Race.__slots__})


def _late(shards: Shards, policy: Policy, races: _Race) -> _Race:
    """Return what will not end before its deadline's buffer, or not at all."""
    deadline = shards.deadline[races.shard].astype(np.float64)
    ends = np.minimum(buffer_from(deadline, policy), races.until)
    return races.some(np.flatnonzero(~(races.ends() <= ends) & (races.groups > 0) & (deadline > 0.0)))


def _pairs(cars: Cars, shards: Shards, policy: Policy, late: _Race, idle: Ints) -> tuple[_Race, _Race]:
    """Pair late shards that ask the same of a car, most work first, with the idle cars that are fastest at it.

    Returns the shards that move, as they are and as they will be.
    """
    seconds = row_group_s(cars, shards, policy, idle, late.shard[:1])
    able = idle[_least(seconds, TRIES * len(late.shard))]
    able = able[np.argsort(~_stay(cars, shards, policy, late, able), kind="stable")]
    old = late.some(np.argsort(-late.groups, kind="stable")[: len(able)])
    car = able[: len(old.car)]
    new = _Race(
        car=car,
        shard=old.shard,
        begins=np.maximum(cars.ready[car], 0.0) + _loading_s(cars, shards, policy, car, old.shard),
        tau=row_group_s(cars, shards, policy, car, old.shard),
        groups=shards.stop[old.shard].astype(np.int64) - shards.start[old.shard],
        row=old.row,
        until=cars.until(car, policy.stay_min),
    )
    gain = new.saved(cars, shards, policy) - old.saved(cars, shards, policy)
    until = np.minimum(new.until, shards.deadline[old.shard])
    better = np.flatnonzero((gain > np.where(old.row == RUNS, ROW_GROUPS_LOST, 0.0)) & (new.ends() <= until))
    return old.some(better), new.some(better)


def _stay(cars: Cars, shards: Shards, policy: Policy, late: _Race, car: Ints) -> Bools:
    """Return which cars will probably stay until they have ended the longest of the shards."""
    longest = late.shard[[int(np.argmax(late.groups))]]
    seconds = row_group_s(cars, shards, policy, car, longest) * late.groups.max()
    ends = np.maximum(cars.ready[car], 0.0) + _loading_s(cars, shards, policy, car, longest) + seconds
    in_time = ends <= np.minimum(cars.limit[car], shards.deadline[longest])
    return np.asarray(in_time & (stays(cars.survival, car, ends) >= STAYS))


def _least(seconds: Floats, count: int) -> Ints:
    """Return the places of so many of the smallest finite numbers, rising; equals as they stand."""
    count = min(count, len(seconds))
    most = np.partition(seconds, count - 1)[count - 1] if count else 0.0
    some = np.flatnonzero((seconds <= most) & (seconds < np.inf))
    return np.asarray(some[np.argsort(seconds[some], kind="stable")[:count]])


def _pieces(cars: Cars, shards: Shards, new: _Race, reason: Bytes) -> Pieces:
    return Pieces.of(
        car=new.car,
        shard=new.shard,
        start=shards.stop[new.shard].astype(np.int64) - new.groups,
        stop=shards.stop[new.shard].astype(np.int64),
        begins=np.maximum(cars.ready[new.car], 0.0),
        ends=new.ends(),
        tau=new.tau,
        units=shards.units(new.shard),
        reason=reason,
        whole=np.ones(len(reason), bool),
    )


def _loading_s(cars: Cars, shards: Shards, policy: Policy, car: Ints, shard: Ints) -> Floats:
    """Return seconds until each car has the first row group, and the model where it lacks it."""
    link = np.maximum(cars.link[car].astype(np.float64), 1e-9)
    model = np.asarray(policy.model_bytes or np.zeros(256))[shards.workload[shard]]
    has = (cars.cached[car] >> shards.workload[shard].astype(np.uint32)) & 1
    return np.asarray((shards.bytes(shard) + np.where(has, 0.0, model)) / link)
