"""Were the promises kept: the scores of survival curves and of bookings. Pure.

Brier score, and its mean over 0 to 12 h; expected calibration error in 15 bins of equal count; SMAPE of the median
stay at plug-in; the booked share of the hours that an oracle would have used, and the share of bookings evicted.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fleetbatch.windows.clock import BoolArray, FloatArray
from fleetbatch.windows.groups import GRID_H, TICK_H

HORIZONS_H: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
BINS: Final = 15
BOOKED_SLOTS: Final = 48
"""12 hours."""
TAIL_H: Final = 20.0
"""Beyond 24 h the median is read off an exponential tail of this scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What bookings brought, over some of them."""

    booked: float
    """Share of the oracle's usable hours (whole quarters, at most 12 h each)."""
    evicted: float
    """Share of bookings that ended before their time."""
    bookings: int


def brier(survival: FloatArray, remaining_h: FloatArray) -> dict[float, float]:
    """Return the Brier score at each horizon; `survival` is on the grid."""
    return {h: float(((_at(survival, h) - (remaining_h >= h)) ** 2).mean()) for h in HORIZONS_H}


def integrated_brier(survival: FloatArray, remaining_h: FloatArray) -> float:
    """Return the mean Brier score over the 48 quarters of an hour up to 12 h."""
    stayed = remaining_h[:, None] > GRID_H[:BOOKED_SLOTS]
    return float(((survival[:, :BOOKED_SLOTS] - stayed) ** 2).mean())


def calibration_error(survival: FloatArray, remaining_h: FloatArray) -> dict[float, float]:
    """Return at each horizon the mean distance of forecast and outcome over 15 bins of equal count."""
    return {h: _bins_apart(_at(survival, h), remaining_h >= h) for h in HORIZONS_H}


def reliability(survival: FloatArray, remaining_h: FloatArray, horizon_h: float) -> list[tuple[float, float, int]]:
    """Return per bin the mean forecast, the share that stayed, and the count."""
    forecast, stayed = _at(survival, horizon_h), remaining_h >= horizon_h
    bins = np.array_split(np.argsort(forecast, kind="stable"), BINS)
    return [(float(forecast[b].mean()), float(stayed[b].mean()), len(b)) for b in bins if len(b)]


def smape(survival: FloatArray, remaining_h: FloatArray) -> float:
    """Return the symmetric mean absolute percentage error of the median, |y - p| / (y + p), in percent."""
    median = np.maximum(median_h(survival), 0.01)
    return float(100 * np.mean(np.abs(remaining_h - median) / (remaining_h + median)))


def median_h(survival: FloatArray) -> FloatArray:
    """Return where each curve crosses one half, straight between the grid's points."""
    above = (survival >= 0.5).sum(axis=1)  # noqa: PLR2004 (the median)
    last, rows = np.minimum(above, len(GRID_H) - 1), np.arange(len(survival))
    before = np.where(last > 0, survival[rows, np.maximum(last - 1, 0)], 1.0)
    share = np.clip((before - 0.5) / np.maximum(before - survival[rows, last], 1e-6), 0.0, 1.0)
    beyond = GRID_H[-1] + np.log(np.maximum(survival[:, -1], 0.5) / 0.5) * TAIL_H
    return np.asarray(np.where(above < len(GRID_H), (last + share) * TICK_H, beyond), dtype=np.float64)


def kept(booked_h: FloatArray, remaining_h: FloatArray, rows: BoolArray) -> Kept:
    """Return what the bookings of some rows brought; a booking of no time is none."""
    stayed = remaining_h >= booked_h
    oracle_h = np.floor(np.minimum(remaining_h, GRID_H[BOOKED_SLOTS - 1]) / TICK_H) * TICK_H
    made = rows & (booked_h > 0)
    return Kept(
        booked=float((booked_h * stayed)[rows].sum() / max(float(oracle_h[rows].sum()), 1e-9)),
        evicted=float((~stayed[made]).mean()) if made.any() else 0.0,
        bookings=int(made.sum()),
    )


def _at(survival: FloatArray, horizon_h: float) -> FloatArray:
    return np.asarray(survival[:, round(horizon_h / TICK_H) - 1])


def _bins_apart(forecast: FloatArray, stayed: BoolArray) -> float:
    bins = [b for b in np.array_split(np.argsort(forecast, kind="stable"), BINS) if len(b)]
    return float(sum(len(b) * abs(forecast[b].mean() - stayed[b].mean()) for b in bins) / max(len(forecast), 1))
