"""The cloud lane in virtual time: it takes what it must, by the auditor's own rule, and computes it in order."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np

from fleetbatch.audit.lane import Lane, due_before
from fleetbatch.simulate.scenario import WORKLOADS
from fleetbatch.simulate.telemetry import NOBODY, Standing, open_shards
from fleetbatch.simulate.world import Floats, Ints, World

UNITS_PER_S: Final = 4.0
"""What one trusted worker does of any workload."""
CARS_PER_WORKER: Final = 100
LANE: Final = Lane()


@dataclass(slots=True)
class Cloud:
    """Trusted workers, and until when they are busy."""

    world: World
    busy_until_s: float = 0.0
    units: float = 0.0

    @property
    def workers(self) -> int:
        """Return how many trusted workers the cell has."""
        return max(2, self.world.scenario.cars // CARS_PER_WORKER)

    def wanted(self, standing: Standing, at_s: float, to_s: float) -> tuple[Ints, Floats]:
        """Return the shards that it begins before the next round, and when each will be done."""
        world = self.world
        now = world.scenario.starts_at + timedelta(seconds=at_s)
        speeds = dict.fromkeys(WORKLOADS, UNITS_PER_S)
        due = due_before(open_shards(world, standing, now, at_s), speeds, self.workers, LANE, now=now)
        due_s = (due - world.scenario.starts_at).total_seconds()
        if due <= now:
            return np.zeros(0, np.int64), np.zeros(0)
        work = world.work
        free = np.flatnonzero(standing.open & (standing.holder == NOBODY) & (work.deadline_s <= due_s + 1e-3))
        free = free[np.lexsort((work.shard_id[free], work.priority[free], work.deadline_s[free]))]
        units = (work.row_groups[free] - standing.done[free]) * work.units[free]
        ends = max(self.busy_until_s, at_s) + np.cumsum(units) / (self.workers * UNITS_PER_S)
        begins = ends - units / (self.workers * UNITS_PER_S)
        mine = (begins < to_s) & (ends <= work.deadline_s[free])
        if mine.any():
            self.busy_until_s = float(ends[mine].max())
            self.units += float(units[mine].sum())
        return free[mine], ends[mine]
