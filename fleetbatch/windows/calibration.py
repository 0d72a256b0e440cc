"""Per horizon, what a forecast of p turned out to mean lately, fitted on matured forecasts. Pure.

Logistic recalibration (Cox 1958): log-odds' = a + b * log-odds + c for each condition that holds (night, a thin past),
for every horizon of its own, with a pull towards a = 0, b = 1, c = 0 that little evidence cannot overcome. A forecast
has matured for a horizon when that horizon has passed.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fleetbatch.windows.clock import FloatArray, IntArray, days_off, wall_h
from fleetbatch.windows.features import EDGES_H
from fleetbatch.windows.groups import GRID_H
from fleetbatch.windows.stays import Moments

CONDITIONS: Final = ("night", "morning", "off_tomorrow", "few_stays", "just_plugged_in")
FEW_STAYS: Final = 20
JUST_H: Final = 3.0
LEAST: Final = 1e-4
NEWTON_STEPS: Final = 6
SLOPE_MIN: Final = 0.1
_NOTHING: Final = np.array([0.0, 1.0] + [0.0] * len(CONDITIONS))
_STARTS: Final = np.concatenate([[0.0], EDGES_H])


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationDials:
    """How far back, and how many forecasts before they speak."""

    window_days: float = 60.0
    half_life_days: float = 10.0
    """Short: nothing is lost while people keep their ways, and a lockdown is followed within weeks."""
    pull: float = 100.0
    forecasts_min: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Per horizon of EDGES_H: intercept, slope, and a shift for each of CONDITIONS."""

    coefficients: FloatArray


def no_calibration() -> Calibration:
    """Return the calibration that changes nothing."""
    return Calibration(coefficients=np.tile(_NOTHING, (len(EDGES_H), 1)))


def conditions_of(moments: Moments, stays_used: IntArray) -> FloatArray:
    """Return which of CONDITIONS hold at each moment, [moments, conditions] of 0 and 1."""
    wall = wall_h(moments.now_h, moments.stay.zones)
    day = np.floor(wall / 24.0).astype(np.int64)
    hour = wall - 24.0 * day
    holds = (
        (hour >= 20.0) | (hour < 4.0),  # noqa: PLR2004 (hours of the clock)
        (hour >= 4.0) & (hour < 10.0),  # noqa: PLR2004 (hours of the clock)
        days_off(day + 1, moments.stay.zones),
        stays_used <= FEW_STAYS,
        moments.elapsed_h < JUST_H,
    )
    return np.stack(holds, axis=1).astype(np.float64)


def fit_calibration(
    log_survival: FloatArray,
    conditions: FloatArray,
    lived: tuple[FloatArray, FloatArray],
    now_h: float,
    dials: CalibrationDials,
) -> Calibration:
    """Fit on the forecasts (log S at EDGES_H) that had matured by `now_h`, newer ones first.

    `lived` is when each was made and how much longer the stay lasted, in hours.
    """
    made_h, remaining_h = lived
    age_days = (now_h - made_h) / 24.0
    weight = 0.5 ** (age_days / dials.half_life_days)
    odds = _log_odds(log_survival)
    coefficients = no_calibration().coefficients
    for place, horizon in enumerate(EDGES_H):
        ripe = (made_h + horizon <= now_h) & (age_days <= dials.window_days)
        if ripe.sum() >= dials.forecasts_min:
            stayed = (remaining_h[ripe] > horizon).astype(np.float64)
            known = np.column_stack([np.ones(int(ripe.sum())), odds[ripe, place], conditions[ripe]])
            coefficients[place] = _logistic(known, stayed, weight[ripe], dials.pull)
    return Calibration(coefficients=coefficients)


def on_grid(log_survival: FloatArray, conditions: FloatArray, calibration: Calibration) -> FloatArray:
    """Return calibrated S on the grid of 96 quarters of an hour, in [0, 1] and never rising.

    Between the horizons of EDGES_H log S is straight, as for a constant hazard.
    """
    intercept, slope, shifts = np.split(calibration.coefficients, [1, 2], axis=1)
    odds = intercept[:, 0] + slope[:, 0] * _log_odds(log_survival) + conditions @ shifts.T
    known = -np.logaddexp(0.0, -odds)
    known = np.minimum.accumulate(known, axis=1)
    whole = np.concatenate([np.zeros((len(known), 1)), known], axis=1)
    return np.asarray(np.exp(whole @ _STRAIGHT), dtype=np.float64)


def _log_odds(log_survival: FloatArray) -> FloatArray:
    survival = np.clip(np.exp(np.asarray(log_survival, dtype=np.float64)), LEAST, 1 - LEAST)
    odds: FloatArray = np.log(survival) - np.log1p(-survival)
    return odds


def _logistic(known: FloatArray, stayed: FloatArray, weight: FloatArray, pull: float) -> FloatArray:
    """Return the coefficients by Newton's method; convex, so a few steps from "as it is" are enough."""
    fitted = _NOTHING.copy()
    for _ in range(NEWTON_STEPS):
        chance = np.exp(-np.logaddexp(0.0, -(known @ fitted)))
        slope = known.T @ (weight * (stayed - chance)) - pull * (fitted - _NOTHING)
        bend = (known * (weight * chance * (1 - chance))[:, None]).T @ known + pull * np.eye(known.shape[1])
        fitted = fitted + np.linalg.solve(bend, slope)
    fitted[1] = max(fitted[1], SLOPE_MIN)
    return np.asarray(fitted, dtype=np.float64)


def _straight() -> FloatArray:
    """Return the matrix that takes log S at 0 and EDGES_H to the grid by straight lines."""
    high = np.searchsorted(_STARTS, GRID_H, side="left")
    share = (GRID_H - _STARTS[high - 1]) / (_STARTS[high] - _STARTS[high - 1])
    matrix = np.zeros((len(_STARTS), len(GRID_H)))
    matrix[high - 1, np.arange(len(GRID_H))] = 1.0 - share
    matrix[high, np.arange(len(GRID_H))] += share
    return matrix


_STRAIGHT: Final = _straight()
