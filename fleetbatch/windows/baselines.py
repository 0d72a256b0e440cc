"""What a forecast has to beat: three simple curves, scored beside the ladder. Pure."""

from typing import Final

import numpy as np

from fleetbatch.windows.clock import FloatArray, wall_h
from fleetbatch.windows.groups import GRID_H, TICK_H, GroupDials, curves_of, log_ahead
from fleetbatch.windows.kernels import Kernel, departures
from fleetbatch.windows.past import pairs, recent
from fleetbatch.windows.stays import Moments, Stays, plugs

WEEK: Final = int(168 / TICK_H)
_FLAT: Final = Kernel(
    align="elapsed", plug_in_width_h=1e6, other_day_weight=1.0, other_weekday_weight=1.0, kept_per_stay=1.0
)
_AT_RISK_MIN: Final = 3


def global_kaplan_meier(known: Stays, moments: Moments) -> FloatArray:
    """Return S on the grid from the time since plug-in alone."""
    nobody = np.zeros(len(known.end_h), np.int64)
    curves = curves_of(nobody, known.lasted_h, np.ones(len(nobody), np.bool_), GroupDials())
    return np.exp(log_ahead(curves, np.zeros(len(moments), np.int64), moments.elapsed_h, GRID_H))


def time_of_week(known: Stays, moments: Moments) -> FloatArray:
    """Return S on the grid from the local clock and weekday alone."""
    begin = known.plugs.day_start_h + known.plugs.clock_h
    first, last = np.ceil(begin / TICK_H).astype(np.int64), np.floor((begin + known.lasted_h) / TICK_H).astype(np.int64)
    leaves = np.bincount(last % WEEK, minlength=WEEK).astype(np.float64)
    at_risk = np.zeros(WEEK)
    weeks, rest = np.divmod(np.maximum(last - first + 1, 0), WEEK)
    for start, whole, more in zip(first, weeks, rest, strict=True):
        at_risk += whole
        at_risk[np.arange(start, start + more) % WEEK] += 1
    hazard = np.minimum((leaves + 1e-2) / (at_risk + 1.0), 0.9)
    summed = np.concatenate([[0.0], np.tile(np.log1p(-hazard), 2).cumsum()])
    now = (wall_h(moments.now_h, moments.stay.zones) / TICK_H) % WEEK
    return np.exp(_at(summed, now[:, None] + np.arange(1, len(GRID_H) + 1)) - _at(summed, now)[:, None])


def user_kaplan_meier(stays: Stays, moments: Moments, otherwise: FloatArray, stays_max: int) -> FloatArray:
    """Return S on the grid from the car's own durations; with fewer than three at risk, what is given."""
    placed = plugs(moments.stay.begin_h, moments.stay.zones)
    left = departures(pairs(stays, moments, placed, recent(stays, moments, stays_max)), _FLAT, GRID_H)
    at_risk = left.sum(axis=1)
    own = 1.0 - left[:, :-1].cumsum(axis=1) / np.maximum(at_risk, 1.0)[:, None]
    return np.where(at_risk[:, None] < _AT_RISK_MIN, otherwise, own)


def _at(summed: FloatArray, at: FloatArray) -> FloatArray:
    low = np.floor(at).astype(np.int64)
    return np.asarray(summed[low] * (1 - (at - low)) + summed[low + 1] * (at - low), dtype=np.float64)
