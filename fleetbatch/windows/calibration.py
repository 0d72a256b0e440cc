"""Per horizon, what a forecast of p turned out to mean lately: two numbers each, fitted on matured forecasts. Pure.

Logistic recalibration (Cox 1958): log-odds' = a + b * log-odds, for every horizon of its own, with a pull towards
a = 0, b = 1 that a thin past cannot overcome. A forecast has matured for a horizon when that horizon has passed.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fleetbatch.windows.clock import FloatArray
from fleetbatch.windows.features import EDGES_H
from fleetbatch.windows.groups import GRID_H

LEAST: Final = 1e-4
NEWTON_STEPS: Final = 6
_STARTS: Final = np.concatenate([[0.0], EDGES_H])


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationDials:
    """How far back, and how many forecasts before they speak."""

    window_days: float = 90.0
    half_life_days: float = 28.0
    pull: float = 100.0
    forecasts_min: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Intercept and slope per horizon of EDGES_H."""

    intercept: FloatArray
    slope: FloatArray


def no_calibration() -> Calibration:
    """Return the calibration that changes nothing."""
    return Calibration(intercept=np.zeros(len(EDGES_H)), slope=np.ones(len(EDGES_H)))


def fit_calibration(
    log_survival: FloatArray, made_h: FloatArray, remaining_h: FloatArray, now_h: float, dials: CalibrationDials
) -> Calibration:
    """Fit on the forecasts (log S at EDGES_H, made at `made_h`) that had matured by `now_h`, newer ones first."""
    age_days = (now_h - made_h) / 24.0
    weight = 0.5 ** (age_days / dials.half_life_days)
    odds = _log_odds(log_survival)
    fitted = []
    for place, horizon in enumerate(EDGES_H):
        ripe = (made_h + horizon <= now_h) & (age_days <= dials.window_days)
        if ripe.sum() < dials.forecasts_min:
            fitted.append((0.0, 1.0))
            continue
        stayed = (remaining_h[ripe] > horizon).astype(np.float64)
        fitted.append(_logistic(odds[ripe, place], stayed, weight[ripe], dials.pull))
    return Calibration(intercept=np.array([a for a, _ in fitted]), slope=np.array([b for _, b in fitted]))


def on_grid(log_survival: FloatArray, calibration: Calibration) -> FloatArray:
    """Return calibrated S on the grid of 96 quarters of an hour, in [0, 1] and never rising.

    Between the horizons of EDGES_H log S is straight, as for a constant hazard.
    """
    odds = calibration.intercept + calibration.slope * _log_odds(log_survival)
    known = -np.logaddexp(0.0, -odds)
    known = np.minimum.accumulate(known, axis=1)
    whole = np.concatenate([np.zeros((len(known), 1)), known], axis=1)
    return np.asarray(np.exp(whole @ _STRAIGHT), dtype=np.float64)


def _log_odds(log_survival: FloatArray) -> FloatArray:
    survival = np.clip(np.exp(np.asarray(log_survival, dtype=np.float64)), LEAST, 1 - LEAST)
    odds: FloatArray = np.log(survival) - np.log1p(-survival)
    return odds


def _logistic(odds: FloatArray, stayed: FloatArray, weight: FloatArray, pull: float) -> tuple[float, float]:
    """Return (a, b) by Newton's method; convex, so a few steps from (0, 1) are enough."""
    a, b = 0.0, 1.0
    for _ in range(NEWTON_STEPS):
        chance = 1.0 / (1.0 + np.exp(-(a + b * odds)))
        error, spread = weight * (stayed - chance), weight * chance * (1 - chance)
        to_a, to_b = error.sum() - pull * a, (error * odds).sum() - pull * (b - 1.0)
        aa, ab, bb = spread.sum() + pull, (spread * odds).sum(), (spread * odds**2).sum() + pull
        determinant = aa * bb - ab * ab
        a, b = a + (bb * to_a - ab * to_b) / determinant, b + (aa * to_b - ab * to_a) / determinant
    return float(a), float(max(b, 0.1))


def _straight() -> FloatArray:
    """Return the matrix that takes log S at 0 and EDGES_H to the grid by straight lines."""
    high = np.searchsorted(_STARTS, GRID_H, side="left")
    share = (GRID_H - _STARTS[high - 1]) / (_STARTS[high] - _STARTS[high - 1])
    matrix = np.zeros((len(_STARTS), len(GRID_H)))
    matrix[high - 1, np.arange(len(GRID_H))] = 1.0 - share
    matrix[high, np.arange(len(GRID_H))] += share
    return matrix


_STRAIGHT: Final = _straight()
