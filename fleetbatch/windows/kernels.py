"""Which past stays count how much, and the curve that their departures make when shrunk to the group's. Pure."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from fleetbatch.windows.clock import FloatArray
from fleetbatch.windows.groups import GRID_H, TICK_H
from fleetbatch.windows.past import Pairs

Alignment = Literal["clock", "elapsed", "daily"]
QUARTERS: Final = len(GRID_H)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What a past stay weighs: the more the later, the nearer its plug-in by the clock, the more alike its day."""

    align: Alignment = "clock"
    plug_in_width_h: float = 6.0
    other_day_weight: float = 0.25
    """When one is before a day off and the other is not."""
    other_weekday_weight: float = 1.0
    kept_per_stay: float = 0.97


HABIT: Final = Kernel()
"""As measured in design/windows; the others are variations that the network weighs against each other."""
KERNELS: Final = {
    "habit": HABIT,
    "narrow": Kernel(plug_in_width_h=2.0, other_day_weight=0.1),
    "weekday": Kernel(other_day_weight=0.5, other_weekday_weight=0.1, kept_per_stay=0.985),
    "fresh": Kernel(other_day_weight=0.5, kept_per_stay=0.8),
    "elapsed": Kernel(align="elapsed", plug_in_width_h=3.0),
    "daily": Kernel(align="daily", plug_in_width_h=12.0, other_day_weight=0.2),
}


def departures(laid: Pairs, kernel: Kernel, edges_h: FloatArray) -> FloatArray:
    """Return the weight of past departures in each interval ahead, [moments, len(edges_h)]; the last is all later.

    `edges_h` are the ends of the intervals, whole quarters of an hour, rising to at most 24.
    """
    ahead = {"clock": laid.clock_ahead_h, "elapsed": laid.elapsed_ahead_h, "daily": laid.daily_ahead_h}[kernel.align]
    quarter = np.ceil(ahead * (1 / TICK_H) - 1e-6).astype(np.int32) - 1
    weight = np.where(quarter >= 0, _weights(laid, kernel), 0.0)
    slots = len(edges_h) + 1
    slot_of = np.searchsorted(np.round(edges_h / TICK_H), np.arange(QUARTERS + 1) + 1, side="left")
    flat = np.arange(len(ahead))[:, None] * slots + slot_of[np.clip(quarter, 0, QUARTERS)]
    summed = np.bincount(flat.ravel(), weights=weight.ravel(), minlength=len(ahead) * slots)
    return np.asarray(summed, dtype=np.float64).reshape(len(ahead), slots)


def shrink(left: FloatArray, group_hazard: FloatArray, alpha: float) -> FloatArray:
    """Return log S at the intervals' ends: hazards of `left` and of the group, which counts as `alpha` stays."""
    at_risk = left[:, ::-1].cumsum(axis=1)[:, ::-1]
    hazard = (left[:, :-1] + alpha * group_hazard) / (at_risk[:, :-1] + alpha)
    log_survival: FloatArray = np.log1p(-np.minimum(hazard, 1 - 1e-9)).cumsum(axis=1)
    return log_survival


def _weights(laid: Pairs, kernel: Kernel) -> FloatArray:
    same = laid.daily_same_free if kernel.align == "daily" else laid.same_free
    recency = kernel.kept_per_stay ** np.arange(laid.known.shape[1])
    weight = laid.known * recency * np.exp(laid.apart_h**2 * (-0.5 / kernel.plug_in_width_h**2))
    weight *= np.where(same, 1.0, kernel.other_day_weight)
    if kernel.other_weekday_weight != 1.0:
        weight *= np.where(laid.same_weekday, 1.0, kernel.other_weekday_weight)
    return np.asarray(weight, dtype=np.float64)
