"""What a driven scenario was like, in the field's terms: each measure a function of the trajectory alone. Pure.

Lengths are metres, times seconds, angles radians. A trajectory is sampled at the start and after every step of the
physics, to the end or the first contact. What lasts is integrated over the steps by the trapezoidal rule: a sample
stands for half of the step before it and half of the one after, so that no part of an episode is longer than it, and
what begins or ends between two samples is off by half a step at most and, on the average, not at all. The gap is bumper
to bumper to the vehicle ahead in the own lane, infinite where there is none. Measures that need a vehicle ahead, or
more samples than there are, are None where nothing can be said.

Sources: time to collision after Hayward (1972); time exposed to it (TET) after Minderhoud and Bovy (2001), the integral
over time that their sum over equal steps stands for; deceleration to avoid a crash (DRAC) after Cooper and Ferguson
(1976); the bounds of comfort are those of nuPlan's metrics.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

STANDS_MPS: Final = 1e-3
"""What moves or closes in more slowly stands: times to reach anything would be without meaning."""
CONTACT_M: Final = 0.01
"""A smaller gap is contact: no braking avoids it."""
EXPOSED_BELOW_S: Final = 3.0
"""A time to collision below this counts as exposed."""
LONGITUDINAL_MPS2: Final = (-4.05, 2.40)
LATERAL_MPS2: Final = 4.89
JERK_MPS3: Final = 8.37
YAW_RATE_RADPS: Final = 0.95
DIGEST_DECIMALS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One episode of one vehicle; every array has a row a sample."""

    steps_s: Numbers
    """How long each step from a sample to the next took, [samples - 1]; they may differ."""
    position_m: Numbers
    """[samples, 2]"""
    speed_mps: Numbers
    heading_rad: Numbers
    stretch: npt.NDArray[np.int64]
    """A number for each stretch of road between two junctions; -1 beside the road."""
    lane: npt.NDArray[np.int64]
    """A number for each lane of its stretch."""
    gap_m: Numbers
    ahead_mps: Numbers
    """Speed of the vehicle ahead; 0 where there is none."""
    impact_mps: float | None
    """Speed of one vehicle relative to the other at the first contact; None without one."""


def simulated_s(t: Trajectory) -> float:
    """Return how long it took in the simulated world."""
    return math.fsum(t.steps_s)


def mean_speed_mps(t: Trajectory) -> float:
    """Return the mean over time; of a single sample, its speed."""
    return _lasting(t, t.speed_mps) / simulated_s(t) if t.steps_s.size else float(t.speed_mps[0])


def progress_m(t: Trajectory) -> float:
    """Return the length of the path."""
    return float(np.hypot(*np.diff(t.position_m, axis=0).T).sum())


def acceleration_mps2(t: Trajectory) -> Numbers:
    """Return how speed changes from each sample to the next, [samples - 1]."""
    return np.diff(t.speed_mps) / t.steps_s


def jerk_mps3(t: Trajectory) -> Numbers:
    """Return how acceleration changes from the middle of each step to that of the next, [samples - 2]."""
    return np.diff(acceleration_mps2(t)) / _between_middles_s(t)


def yaw_rate_radps(t: Trajectory) -> Numbers:
    """Return how fast the heading turns from each sample to the next, the short way round, [samples - 1]."""
    turned = np.diff(t.heading_rad)
    return np.asarray((turned + np.pi) % (2 * np.pi) - np.pi) / t.steps_s


def lateral_mps2(t: Trajectory) -> Numbers:
    """Return the sideways acceleration of a turn: speed times yaw rate, [samples - 1]."""
    return t.speed_mps[1:] * yaw_rate_radps(t)


def time_to_collision_s(t: Trajectory) -> Numbers:
    """Return the gap over the closing speed; infinite while nothing is closing, [samples]."""
    closing = t.speed_mps - t.ahead_mps
    return np.where(_meets(t), np.maximum(t.gap_m, 0.0) / np.where(closing > STANDS_MPS, closing, 1.0), np.inf)


def min_ttc_s(t: Trajectory) -> float | None:
    """Return the least time to collision; None when the vehicle never closed in on one ahead."""
    return _least(time_to_collision_s(t))


def min_gap_m(t: Trajectory) -> float | None:
    """Return the least gap; None when there was never a vehicle ahead."""
    return _least(np.maximum(t.gap_m, 0.0))


def min_time_headway_s(t: Trajectory) -> float | None:
    """Return the least time in which the gap is driven; None when no vehicle was ahead of a moving one."""
    moving = t.speed_mps > STANDS_MPS
    return _least(np.where(moving, np.maximum(t.gap_m, 0.0) / np.where(moving, t.speed_mps, 1.0), np.inf))


def exposed_s(t: Trajectory) -> float:
    """Return for how long the time to collision was below EXPOSED_BELOW_S (TET)."""
    return _lasting(t, time_to_collision_s(t) < EXPOSED_BELOW_S)


def max_drac_mps2(t: Trajectory) -> float | None:
    """Return the hardest braking that would just have avoided the vehicle ahead; None when nothing was closing."""
    closing, meets = t.speed_mps - t.ahead_mps, _meets(t) & (t.gap_m > CONTACT_M)
    needed = closing[meets] ** 2 / (2 * t.gap_m[meets])
    return float(needed.max()) if needed.size else None


def rms_jerk_mps3(t: Trajectory) -> float | None:
    """Return the root of the jerk's mean square over time; None below three samples."""
    jerk = jerk_mps3(t)
    return float(np.sqrt(np.average(jerk**2, weights=_between_middles_s(t)))) if jerk.size else None


def lane_changes(t: Trajectory) -> int:
    """Return how often the lane became another one of the same stretch; driving on to the next stretch is none."""
    on_road = t.stretch >= 0
    return int(((np.diff(t.lane[on_road]) != 0) & (np.diff(t.stretch[on_road]) == 0)).sum())


def off_road_s(t: Trajectory) -> float:
    """Return how long the vehicle was beside the road."""
    return _lasting(t, t.stretch < 0)


def is_comfortable(t: Trajectory) -> bool:
    """Return whether every sample keeps nuPlan's bounds of acceleration, jerk and yaw rate."""
    low, high = LONGITUDINAL_MPS2
    along, jerk = acceleration_mps2(t), np.abs(jerk_mps3(t))
    inside = (
        (along >= low).all() and (along <= high).all() and (np.abs(lateral_mps2(t)) <= LATERAL_MPS2).all(),
        (jerk <= JERK_MPS3).all() and (np.abs(yaw_rate_radps(t)) <= YAW_RATE_RADPS).all(),
    )
    return bool(all(inside))


def digest(t: Trajectory) -> str:
    """Return 16 hex digits that stand for the trajectory, rounded to a millimetre and its like."""
    columns = (t.position_m, t.speed_mps[:, None], t.heading_rad[:, None], t.stretch[:, None], t.lane[:, None])
    rounded = np.round(np.hstack(columns), DIGEST_DECIMALS) + 0.0  # no negative zero
    return hashlib.sha256(np.ascontiguousarray(rounded, "<f8").tobytes()).hexdigest()[:16]


def measures(t: Trajectory) -> dict[str, float | int | bool | str | None]:
    """Return the columns of contract answers_scenario that follow from the trajectory."""
    return {
        "collision": t.impact_mps is not None,
        "impact_speed_mps": t.impact_mps,
        "min_ttc_s": min_ttc_s(t),
        "min_gap_m": min_gap_m(t),
        "min_time_headway_s": min_time_headway_s(t),
        "progress_m": progress_m(t),
        "mean_speed_mps": mean_speed_mps(t),
        "max_speed_mps": float(t.speed_mps.max()),
        "max_abs_acceleration_mps2": _most(np.abs(acceleration_mps2(t))),
        "rms_jerk_mps3": rms_jerk_mps3(t),
        "min_acceleration_mps2": _least(acceleration_mps2(t)),
        "max_abs_lateral_mps2": _most(np.abs(lateral_mps2(t))),
        "max_abs_yaw_rate_radps": _most(np.abs(yaw_rate_radps(t))),
        "exposed_s": exposed_s(t),
        "max_drac_mps2": max_drac_mps2(t),
        "lane_changes": lane_changes(t),
        "off_road_s": off_road_s(t),
        "comfortable": is_comfortable(t),
        "trajectory": digest(t),
    }


def _lasting(t: Trajectory, values: Numbers | npt.NDArray[np.bool_]) -> float:
    """Return the integral over time of what each sample has, or of whether it has it."""
    numbers = np.asarray(values, np.float64)
    return math.fsum((numbers[:-1] + numbers[1:]) / 2 * t.steps_s)


def _between_middles_s(t: Trajectory) -> Numbers:
    return np.asarray((t.steps_s[:-1] + t.steps_s[1:]) / 2)


def _meets(t: Trajectory) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(t.gap_m) & (t.speed_mps - t.ahead_mps > STANDS_MPS))


def _least(values: Numbers) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.min()) if known.size else None


def _most(values: Numbers) -> float | None:
    return float(values.max()) if values.size else None
