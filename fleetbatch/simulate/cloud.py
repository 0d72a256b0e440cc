"""The cloud lane in virtual time: it takes what it must, by the auditor's own rule, a shard a worker at a time."""

import heapq
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import numpy as np

from fleetbatch.audit.lane import Lane, due_before
from fleetbatch.simulate.scenario import WORKLOADS
from fleetbatch.simulate.telemetry import NOBODY, Standing, open_shards
from fleetbatch.simulate.world import Floats, Ints, World

UNITS_PER_S: Final = 4.0
"""What one trusted worker does of any workload: four cars of the middle class."""
CARS_PER_WORKER: Final = 100
LANE: Final = Lane(margin=timedelta(minutes=20), last=timedelta(hours=1))
"""A shard of 20 minutes on a car of the middle class keeps one worker busy for five. The cars have the night; a
deadline concerns the lane in its last hour, when cars were to be done."""


@dataclass(slots=True)
class Cloud:
    """Trusted workers, and until when each is busy."""

    world: World
    units: float = 0.0
    busy_until_s: list[float] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with idle workers, as many as the size of the fleet pays for."""
        self.busy_until_s = [0.0] * max(2, self.world.scenario.cars // CARS_PER_WORKER)

    def wanted(self, standing: Standing, at_s: float, to_s: float) -> tuple[Ints, Floats]:
        """Return the shards that it begins before the next round, and when each will be done."""
        work = self.world.work
        due_s = self._due_s(standing, at_s)
        free = np.flatnonzero(standing.open & (standing.holder == NOBODY) & (work.deadline_s <= due_s + 1e-3))
        free = free[np.lexsort((work.shard_id[free], work.priority[free], work.deadline_s[free]))]
        left = (work.row_groups[free] - standing.done[free]) * work.units[free]
        taken, ends = list[int](), list[float]()
        for shard, units in zip(free.tolist(), left.tolist(), strict=True):
            begins = max(self.busy_until_s[0], at_s)
            done = begins + units / UNITS_PER_S
            if begins >= to_s:
                break
            if done <= work.deadline_s[shard]:
                heapq.heapreplace(self.busy_until_s, done)
                taken.append(shard)
                ends.append(done)
                self.units += units
        return np.array(taken, np.int64), np.array(ends, np.float64)

    def _due_s(self, standing: Standing, at_s: float) -> float:
        """Return before which instant all deadlines are due for the lane; nothing is due by 0."""
        starts_at = self.world.scenario.starts_at
        now = starts_at + timedelta(seconds=at_s)
        table = open_shards(self.world, standing, now, at_s)
        speeds = dict.fromkeys(WORKLOADS, UNITS_PER_S)
        due = due_before(table, speeds, len(self.busy_until_s), LANE, now=now)
        return (due - starts_at).total_seconds() if due > now else 0.0
