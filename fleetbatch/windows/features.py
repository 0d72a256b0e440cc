"""What the network sees of a moment: one row of numbers, each known at that moment. Pure.

`FEATURES` is the contract: order and names travel in the bundle's manifest, and a bundle that asks for anything else
is refused. Nothing of a running stay's end, energy or duration is among them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fleetbatch.windows.clock import FloatArray, days_off, wall_h
from fleetbatch.windows.groups import GroupCurves, group_of, log_ahead
from fleetbatch.windows.kernels import KERNELS, departures, shrink
from fleetbatch.windows.past import Pairs, Recent, pairs, recent
from fleetbatch.windows.shrink import ShrinkDials
from fleetbatch.windows.stays import Moments, Plugs, Stays, plugs

EDGES_H: Final = np.concatenate([[0.25, 0.5, 0.75], np.arange(1.0, 12.25, 0.5), [13, 14, 15, 16, 18, 20, 22, 24]])
"""Ends of the intervals whose hazards the network gives; between them log S is straight."""
SHOWN_H: Final = (
    0.25,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    3.0,
    4.0,
    5.0,
    6.0,
    7.0,
    8.0,
    9.0,
    10.0,
    11.0,
    12.0,
    14.0,
    16.0,
    20.0,
    24.0,
)
"""Horizons at which the network sees the curves of the kernels."""
OPTIONAL: Final = ("soc", "soc_known", "charge_complete", "complete_days")
"""What only some fleets report; 0 where it is not known. A model that never saw it reported cannot be moved by it."""
TYPICAL_LOG_H: Final = 2.2
"""Log of a typical stay (9 h), for a car without a past."""
_SHOWN: Final = np.searchsorted(EDGES_H, SHOWN_H)
_LAST: Final = 3
_DAYS: Final = range(-1, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The network's input for some moments, and what the fallback says of the same."""

    features: npt.NDArray[np.float32]
    """[moments, len(FEATURES)]."""
    base: npt.NDArray[np.float32]
    """Log-odds of L1's hazard in each interval, [moments, len(EDGES_H)]: the network corrects these."""
    stays_used: npt.NDArray[np.int32]


def _names() -> tuple[str, ...]:
    clocks = [f"{what}_{wave}{turn}" for turn in (1, 2) for what in ("now", "plug") for wave in ("sin", "cos")]
    days = [f"weekday_{day}" for day in range(7)] + [f"off_{ahead:+d}" for ahead in _DAYS]
    stay = ["now_clock", "plug_clock", "days_off_ahead", "free_next", "elapsed_days", "elapsed_log"]
    past = ["stays_log", "new", "mean_log", "spread_log", "last_log", "last_log_2", "gap_log", "rate_log", "overnight"]
    past += [f"last_departure_{n}" for n in range(_LAST)] + ["alive"]
    curves = [f"{name}_mass" for name in KERNELS]
    curves += [f"{name}_{horizon:g}h" for name in (*KERNELS, "group") for horizon in SHOWN_H]
    return tuple(clocks + days + stay + past + curves + list(OPTIONAL))


FEATURES: Final = _names()


def see(stays: Stays, moments: Moments, curves: GroupCurves, dials: ShrinkDials) -> Seen:
    """Return the network's input; a moment's row depends on nothing that happened after it."""
    placed = plugs(moments.stay.begin_h, moments.stay.zones)
    past = recent(stays, moments, dials.stays_max)
    laid = pairs(stays, moments, placed, past)
    columns = _clock(moments, placed) | _past(stays, moments, past, laid)
    group = log_ahead(curves, group_of(placed), moments.elapsed_h, np.concatenate([[0.0], EDGES_H]))
    group_hazard = -np.expm1(np.diff(group, axis=1))
    shown: dict[str, FloatArray] = {}
    for name, kernel in KERNELS.items():
        left = departures(laid, kernel, EDGES_H)
        columns[f"{name}_mass"] = np.log1p(left.sum(axis=1))
        shown[name] = shrink(left, group_hazard, dials.alpha)
    columns |= _shown(shown | {"group": group[:, 1:]}) | _optional(moments)
    return Seen(
        features=np.stack([columns[name].astype(np.float32) for name in FEATURES], axis=1),
        base=_hazard_log_odds(shown["habit"]),
        stays_used=past.stays_used.astype(np.int32),
    )


def _clock(moments: Moments, placed: Plugs) -> dict[str, FloatArray]:
    now = wall_h(moments.now_h, moments.stay.zones)
    day = np.floor(now / 24.0).astype(np.int64)
    clock, elapsed = now - 24.0 * day, moments.elapsed_h
    columns: dict[str, FloatArray] = {}
    for turn in (1, 2):
        for name, at in (("now", clock), ("plug", placed.clock_h)):
            angle = 2 * np.pi * turn * at / 24.0
            columns |= {f"{name}_sin{turn}": np.sin(angle), f"{name}_cos{turn}": np.cos(angle)}
    off = {ahead: days_off(day + ahead, moments.stay.zones).astype(np.float64) for ahead in range(-1, 6)}
    columns |= {f"weekday_{n}": ((day + 3) % 7 == n).astype(np.float64) for n in range(7)}
    columns |= {f"off_{ahead:+d}": off[ahead] for ahead in _DAYS}
    run = np.cumprod(np.stack([off[ahead] for ahead in range(1, 6)]), axis=0).sum(axis=0)
    columns |= {"now_clock": clock, "plug_clock": placed.clock_h, "days_off_ahead": run}
    return columns | {
        "free_next": placed.free_next.astype(np.float64),
        "elapsed_days": elapsed / 24.0,
        "elapsed_log": np.log1p(elapsed),
    }


def _past(stays: Stays, moments: Moments, past: Recent, laid: Pairs) -> dict[str, FloatArray]:
    """Return how long, how regularly and how lately the car stayed before."""
    known, rows = past.known, past.rows
    lasted, begins, ends = (
        a[rows] if len(a) else rows * 0.0 + 1.0 for a in (stays.lasted_h, stays.closed.begin_h, stays.end_h)
    )
    weight = 0.96 ** np.arange(rows.shape[1]) * known
    total = np.maximum(weight.sum(axis=1), 1e-9)
    logs = np.log(np.maximum(np.where(known, lasted, 1.0), 1 / 60))
    mean = (weight * logs).sum(axis=1) / total
    spread = np.sqrt((weight * (logs - mean[:, None]) ** 2).sum(axis=1) / total)
    near = weight * np.exp(-0.5 * (laid.apart_h / 6.0) ** 2)
    count, one = past.stays_used, np.arange(len(moments))
    since = moments.stay.begin_h - begins[one, np.maximum(count - 1, 0)]
    gap = np.where(known[:, 0], moments.stay.begin_h - ends[:, 0], 48.0)
    ahead = laid.clock_ahead_h
    overnight = known & _overnight(stays, rows)
    columns = {
        "stays_log": np.log1p(count),
        "new": (count == 0).astype(np.float64),
        "mean_log": np.where(count > 0, mean, TYPICAL_LOG_H),
        "spread_log": np.where(count > 0, spread, 1.0),
        "last_log": np.where(known[:, 0], logs[:, 0], TYPICAL_LOG_H),
        "last_log_2": np.where(known[:, 1], logs[:, 1], TYPICAL_LOG_H),
        "gap_log": np.log(np.clip(gap, 0.02, 2000.0)),
        "rate_log": np.where(count > 0, np.log((count + 1) / np.maximum(since / 168.0, 0.5) + 0.1), 0.8),
        "overnight": (weight * overnight).sum(axis=1) / total,
        "alive": np.where(count > 0, (near * (ahead > 0)).sum(axis=1) / np.maximum(near.sum(axis=1), 1e-9), 0.5),
    }
    return columns | {
        f"last_departure_{n}": np.where(known[:, n], np.clip(ahead[:, n], -12.0, 24.0), 0.0) / 12.0
        for n in range(_LAST)
    }


def _overnight(stays: Stays, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Say which past stays began after noon and lasted to the next logical day."""
    if len(stays.closed.begin_h) == 0:
        return rows > 0
    return (stays.plugs.clock_h[rows] >= 8.0) & (stays.left_clock_h[rows] >= 24.0)  # noqa: PLR2004 (hours)


def _shown(curves: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    columns: dict[str, FloatArray] = {}
    for name, log_survival in curves.items():
        survival = np.clip(np.exp(log_survival[:, _SHOWN]), 2e-3, 1 - 2e-3)
        odds = np.log(survival / (1 - survival))
        columns |= {f"{name}_{horizon:g}h": odds[:, n] for n, horizon in enumerate(SHOWN_H)}
    return columns


def _hazard_log_odds(log_survival: FloatArray) -> npt.NDArray[np.float32]:
    hazard = -np.expm1(np.diff(log_survival, axis=1, prepend=0.0))
    hazard = np.clip(hazard, 1e-4, 1 - 1e-4)
    return np.asarray(np.log(hazard / (1 - hazard)), dtype=np.float32)


def _optional(moments: Moments) -> dict[str, FloatArray]:
    """Return the state of charge at the plug-in, and whether and since when charging is complete by now.

    That charging will be complete later is the future: before that it is as if nothing was known.
    """
    stay = moments.stay
    since_h = moments.now_h - stay.complete_at_h
    complete = since_h >= 0.0
    told = (
        np.clip(np.nan_to_num(stay.soc, nan=0.0), 0.0, 1.0),
        np.isfinite(stay.soc),
        complete,
        np.where(complete, np.minimum(since_h / 24.0, 2.0), 0.0),
    )
    return {name: np.asarray(value, np.float64) for name, value in zip(OPTIONAL, told, strict=True)}
