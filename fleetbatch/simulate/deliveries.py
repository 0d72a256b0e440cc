"""Everything that was delivered in a simulated night, and what became of it."""

from dataclasses import dataclass, field

import numpy as np

from fleetbatch.simulate.world import Bools, Floats, Ints, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliveries:
    """One row a car, shard and lease: row groups [start, stop) became durable by `at_s`."""

    car: Ints
    """CLOUD for trusted machines."""
    shard: Ints
    start: Ints
    stop: Ints
    at_s: Floats

    def units(self, world: World) -> Floats:
        """Return the work of each row."""
        return np.asarray((self.stop - self.start) * world.work.units[self.shard])

    def where(self, some: Bools) -> "Deliveries":
        """Return some of them."""
        return Deliveries(**{name: getattr(self, name)[some] for name in Deliveries.__slots__})


Row = tuple[Ints, Ints, Ints, Ints, Floats]
"""Cars, shards, first and last row groups, and when."""


@dataclass(slots=True)
class Log:
    """Deliveries as they come, in arrays of any length."""

    rows: list[Row] = field(default_factory=list)

    def add(self, car: Ints, shard: Ints, start: Ints, stop: Ints, at_s: Floats) -> None:
        """Keep those that delivered anything."""
        some = stop > start
        self.rows.append((car[some], shard[some], start[some], stop[some], at_s[some]))

    def refused(self, world: World, shards: Ints, void_s: Floats) -> tuple[Ints, float]:
        """Return the bad cars behind what counted of some shards until now, and the seconds that came to nothing."""
        rows = self._every()
        rows = rows.where(np.isin(rows.shard, shards))
        rows = rows.where(counted(rows, void_s) & (rows.car >= 0))
        tau, _ = world.row_group_s(rows.car, rows.shard)
        return rows.car[world.fleet.bad[rows.car]], float(np.sum((rows.stop - rows.start) * tau))

    def close(self) -> Deliveries:
        """Return them all, in order of shard, time and start."""
        every = self._every()
        order = np.lexsort((every.start, every.at_s, every.shard))
        return Deliveries(**{name: getattr(every, name)[order] for name in Deliveries.__slots__})

    def _every(self) -> Deliveries:
        """Return them all as they came, and keep them as one: agents deliver row by row, which is slow to look at."""
        none: Row = (*(np.zeros(0, np.int64),) * 4, np.zeros(0))
        car, shard, start, stop, at_s = (np.concatenate(column) for column in zip(*[none, *self.rows], strict=True))
        self.rows = [(car, shard, start, stop, at_s)]
        return Deliveries(car=car, shard=shard, start=start, stop=stop, at_s=at_s)


def counted(deliveries: Deliveries, void_s: Floats) -> Bools:
    """Return which deliveries count: those after the last audit that refused their shard."""
    return np.asarray(deliveries.at_s > void_s[deliveries.shard])
