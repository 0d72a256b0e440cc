"""Looks on while a world of highway-env is driven, and keeps the trajectory of its vehicle."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fleetbatch.workloads.trajectory import Trajectory


@dataclass(slots=True, kw_only=True)
class Watch:
    """Looks at the vehicle of a highway-env world after every step of its physics, not only of the policy."""

    world: Any
    rows: list[tuple[float, ...]] = field(default_factory=list)
    impact_mps: float | None = None
    steps_s: list[float] = field(default_factory=list)
    stretches: dict[Any, int] = field(default_factory=dict)

    @classmethod
    def of(cls, world: Any) -> "Watch | None":  # noqa: ANN401 (any environment)
        """Begin to watch; None where there is no road with one vehicle of ours on it."""
        road: Any = getattr(world, "road", None)
        vehicle: Any = getattr(world, "vehicle", None)
        if not all(hasattr(road, name) for name in ("step", "vehicles")) or not hasattr(vehicle, "lane_index"):
            return None
        watch = cls(world=world)
        watch._look()
        step: Any = road.step

        def watched(seconds: float) -> None:
            step(seconds)
            watch._look(after_s=seconds)

        road.step = watched
        return watch

    def time_stands(self) -> bool:
        """Return whether a step took no time, or there was none though nothing was hit at the start."""
        return not all(step > 0 for step in self.steps_s) or not (self.steps_s or self.impact_mps is not None)

    def trajectory(self) -> Trajectory:
        """Return what was seen, from the start to the end or the first contact."""
        columns = np.array(self.rows, dtype=np.float64)
        return Trajectory(
            steps_s=np.array(self.steps_s, dtype=np.float64),
            position_m=columns[:, :2],
            speed_mps=columns[:, 2],
            heading_rad=columns[:, 3],
            stretch=columns[:, 4].astype(np.int64),
            lane=columns[:, 5].astype(np.int64),
            gap_m=columns[:, 6],
            ahead_mps=columns[:, 7],
            impact_mps=self.impact_mps,
        )

    def _look(self, *, after_s: float | None = None) -> None:
        if self.impact_mps is not None:
            return  # what physics makes of the wreck says nothing of the driving
        if after_s is not None:
            self.steps_s.append(after_s)
        own = self.world.vehicle
        ahead, _ = self.world.road.neighbour_vehicles(own, own.lane_index)
        gap = np.inf if ahead is None else own.lane_distance_to(ahead) - (own.LENGTH + ahead.LENGTH) / 2
        *between, lane = own.lane_index
        stretch = self.stretches.setdefault(tuple(between), len(self.stretches)) if own.on_road else -1
        speed_ahead = 0.0 if ahead is None else ahead.speed
        self.rows.append((*own.position, own.speed, own.heading, stretch, lane, gap, speed_ahead))
        if own.crashed:
            self.impact_mps = _impact_mps(own, self.world.road)


def _impact_mps(own: Any, road: Any) -> float:  # noqa: ANN401 (highway-env ships no types)
    """Return the speed relative to the nearest other thing that is in a crash; to the ground when there is none."""
    others = [one for one in (*road.vehicles, *road.objects) if one is not own and getattr(one, "crashed", False)]
    nearest = min(others, key=lambda one: float(np.hypot(*(one.position - own.position))), default=None)
    theirs = getattr(nearest, "velocity", np.zeros(2))
    return float(np.hypot(*(own.velocity - theirs)))
