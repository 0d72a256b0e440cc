"""Who would not end a running shard in time gives it to a car that stands idle and will. Pure.

Running work stays where it is as long as it ends before its deadline's buffer. Only cars that the round has left idle
take it over, and only where more row groups are saved than the change costs: the one in work is lost, and the new car
fetches first.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.greedy import lists_of
from fleetbatch.planner.grid import buffer_from
from fleetbatch.planner.inputs import NONE, Cars, Floats, Ints, Shards, stays
from fleetbatch.planner.pieces import Pieces, concat, in_order, row_group_s, rows
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.reasons import Reason

Bools = npt.NDArray[np.bool_]
SOON_S = 60.0
"""A car that begins later than this would leave the shard lying."""
ROW_GROUPS_LOST = 1.0
"""What a change of cars costs: the row group in work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Race:
    """A car computes a shard from `begins` on, every `tau` a row group."""

    car: Ints
    shard: Ints
    begins: Floats
    tau: Floats
    groups: Ints

    def some(self, which: Ints) -> "_Race":
        """Return some of them, in that order."""
        return _Race(**{name: getattr(self, name)[which] for name in _Race.__slots__})

    def ends(self) -> Floats:
        """Return when the last row group ends."""
        return np.asarray(self.begins + self.groups * self.tau)

    def saved(self, cars: Cars, shards: Shards, policy: Policy) -> Floats:
        """Return how many row groups are expected in time; those in the buffer count for a share."""
        deadline = shards.deadline[self.shard].astype(np.float64)
        stop = np.minimum(deadline, cars.until(self.car, policy.stay_min))
        early = self._by(np.minimum(stop, buffer_from(deadline, policy)))
        counted = early + policy.buffer_worth * (self._by(stop) - early)
        return np.asarray(counted * stays(cars.survival, self.car, np.minimum(self.ends(), stop)))

    def _by(self, instant: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            count = np.floor((instant - self.begins) / self.tau + 1e-9)
        return np.asarray(np.clip(np.where(np.isfinite(count), count, self.groups), 0, self.groups))


def handed_over(cars: Cars, shards: Shards, policy: Policy, pieces: Pieces) -> Pieces:
    """Return the pieces of a round, in order of car and time, with late running shards on idle cars.

    The car that gives its shard away has nothing for this round.
    """
    late = _late(cars, shards, policy)
    idle = (cars.running == NONE) & (cars.ready <= SOON_S)
    idle[pieces.car] = False
    row_of = dict(zip(late.shard.tolist(), range(len(late.shard)), strict=True))
    given, taken = [np.zeros(0, np.int64)], []
    for alike in lists_of(shards, np.sort(late.shard)):
        mine = late.some(np.array([row_of[shard] for shard in alike.tolist()], np.int64))
        giver, piece = _pairs(cars, shards, policy, mine, np.flatnonzero(idle))
        idle[piece.car] = False
        given.append(giver)
        taken.append(piece)
    if not sum(len(part.car) for part in taken):
        return pieces
    stay = np.flatnonzero(~np.isin(pieces.car, np.concatenate(given)))
    return in_order(concat([rows(pieces, stay), *taken]))


def _late(cars: Cars, shards: Shards, policy: Policy) -> _Race:
    """Return what runs and will not end before its deadline's buffer, or not at all."""
    car = np.flatnonzero(cars.running >= 0)
    shard = cars.running[car]
    start = np.maximum(cars.running_from[car], shards.start[shard].astype(np.int64))
    race = _Race(
        car=car,
        shard=shard,
        begins=np.zeros(len(car)),
        tau=row_group_s(cars, shards, policy, car, shard),
        groups=np.maximum(shards.stop[shard].astype(np.int64) - start, 0),
    )
    buffer = buffer_from(shards.deadline[shard].astype(np.float64), policy)
    in_time = race.ends() <= np.minimum(buffer, cars.until(car, policy.stay_min))
    return race.some(np.flatnonzero(~in_time & (race.groups > 0) & (shards.deadline[shard] > 0.0)))


def _pairs(cars: Cars, shards: Shards, policy: Policy, late: _Race, idle: Ints) -> tuple[Ints, Pieces]:
    """Pair late shards that ask the same of a car, most work first, with the idle cars that are fastest at it.

    Returns the cars that give their shard away, and the pieces of those that take one.
    """
    one = np.repeat(late.shard[:1], len(idle))
    seconds = row_group_s(cars, shards, policy, idle, one)
    able = idle[np.argsort(seconds, kind="stable")[: int(np.isfinite(seconds).sum())]]
    old = late.some(np.argsort(-late.groups, kind="stable")[: len(able)])
    car, start = able[: len(old.car)], shards.start[old.shard].astype(np.int64)
    ready = np.maximum(cars.ready[car], 0.0)
    new = _Race(
        car=car,
        shard=old.shard,
        begins=ready + _loading_s(cars, shards, policy, car, old.shard),
        tau=row_group_s(cars, shards, policy, car, old.shard),
        groups=shards.stop[old.shard].astype(np.int64) - start,
    )
    gain = new.saved(cars, shards, policy) - old.saved(cars, shards, policy)
    until = np.minimum(cars.until(car, policy.stay_min), shards.deadline[old.shard])
    better = np.flatnonzero((gain > ROW_GROUPS_LOST) & (new.ends() <= until))
    piece = Pieces(
        car=car,
        shard=old.shard,
        start=start,
        stop=start + new.groups,
        begins=ready,
        ends=new.ends(),
        tau=new.tau,
        units=shards.units(old.shard),
        reason=np.full(len(car), Reason.HANDED_OVER, np.uint8),
    )
    return old.car[better], rows(piece, better)


def _loading_s(cars: Cars, shards: Shards, policy: Policy, car: Ints, shard: Ints) -> Floats:
    """Return seconds until each car has the first row group, and the model where it lacks it."""
    link = np.maximum(cars.link[car].astype(np.float64), 1e-9)
    model = np.asarray(policy.model_bytes or np.zeros(256))[shards.workload[shard]]
    has = (cars.cached[car] >> shards.workload[shard].astype(np.uint32)) & 1
    return np.asarray((shards.bytes(shard) + np.where(has, 0.0, model)) / link)
