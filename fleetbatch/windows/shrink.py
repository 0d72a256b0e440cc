"""L1: a car's own past departures, aligned by the clock and shrunk to its group. Pure.

The weighted departures in each quarter of an hour and the group's hazard as `alpha` pseudo-stays make the hazard;
without past stays that is the group's curve itself (L0). It needs no model and is what everything falls back to.
"""

from dataclasses import dataclass

import numpy as np

from fleetbatch.windows.clock import FloatArray
from fleetbatch.windows.groups import GRID_H, GroupCurves, group_of, log_ahead
from fleetbatch.windows.kernels import HABIT, Kernel, departures, shrink
from fleetbatch.windows.past import Recent, pairs, recent
from fleetbatch.windows.stays import Moments, Stays, plugs


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrinkDials:
    """How much of a past is looked at, and how many stays the group counts as."""

    stays_max: int = 60
    alpha: float = 4.0
    kernel: Kernel = HABIT


def shrunk_log_survival(
    stays: Stays, moments: Moments, curves: GroupCurves, dials: ShrinkDials
) -> tuple[FloatArray, Recent]:
    """Return log S of every moment on the grid, [moments, 96], and the past stays behind it."""
    placed = plugs(moments.stay.begin_h, moments.stay.zones)
    from_now = np.concatenate([[0.0], GRID_H])
    group = log_ahead(curves, group_of(placed), moments.elapsed_h, from_now)
    past = recent(stays, moments, dials.stays_max)
    left = departures(pairs(stays, moments, placed, past), dials.kernel, GRID_H)
    return shrink(left, -np.expm1(np.diff(group, axis=1)), dials.alpha), past
