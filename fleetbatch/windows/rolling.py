"""A model as it would have been run, day after day: nothing is used before it is known. Pure.

Every few days the calibration is fitted anew on the forecasts that have matured; every day the bookings that have
matured move the thresholds. The same loop scores a model on old sessions and sets tonight's calibration and thresholds.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from fleetbatch.windows.calibration import (
    Calibration,
    CalibrationDials,
    conditions_of,
    fit_calibration,
    no_calibration,
    on_grid,
)
from fleetbatch.windows.clock import BoolArray, FloatArray, IntArray, wall_h
from fleetbatch.windows.conformal import (
    LONGEST_H,
    Kind,
    PromiseDials,
    Thresholds,
    first_thresholds,
    kind_of,
    learn,
    longest,
    risks,
)
from fleetbatch.windows.groups import GRID_H
from fleetbatch.windows.heed import HeedDials, heed, trust_in_statements
from fleetbatch.windows.landmarks import Landmarks
from fleetbatch.windows.stays import Stays

DAY_H: Final = 24.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingDials:
    """How often what is tuned."""

    calibration: CalibrationDials = field(default_factory=CalibrationDials)
    promise: PromiseDials = field(default_factory=PromiseDials)
    heed: HeedDials = field(default_factory=HeedDials)
    calibrate_every_days: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """What was said and booked at each landmark, and the state after the last day."""

    survival: FloatArray
    """On the grid, as forecast at the time."""
    booked_h: FloatArray
    calibration: Calibration
    thresholds: Thresholds


def roll(
    marks: Landmarks, said: FloatArray, stays_used: IntArray, past: Stays, *, calibrated: bool, dials: RollingDials
) -> Rolled:
    """Run the landmarks, sorted by instant, through their days.

    `said` is log S at EDGES_H where `calibrated`, else S on the grid, which is then not calibrated. What owners stated
    bends the curves, by how statements turned out in those `past` stays that had ended by then. A stay that is lost
    from sight counts as one that goes on until then, and for nothing afterwards.
    """
    now, remaining = marks.moments.now_h, marks.remaining_h
    kind = kind_of(stays_used, wall_h(now, marks.moments.stay.zones) % DAY_H)
    asked, conditions = ~marks.at_plug_in, conditions_of(marks.moments, stays_used)
    survival, booked = np.ones((len(marks), len(GRID_H))), np.zeros(len(marks))
    calibration, thresholds = no_calibration(), first_thresholds(dials.promise)
    trust = trust_in_statements(past, dials.heed, by_h=-np.inf)
    pending = np.zeros(0, np.int64)
    for number, (start_h, today) in enumerate(_days(now)):
        ripe = now[pending] + booked[pending] <= start_h
        told = pending[ripe & (marks.ended[pending] | (remaining[pending] >= booked[pending]))]
        thresholds = _after(thresholds, (booked, kind, remaining >= booked), told, dials.promise)
        if number % dials.calibrate_every_days == 0:
            trust = trust_in_statements(past, dials.heed, by_h=start_h)
        if calibrated and number % dials.calibrate_every_days == 0:
            first = np.searchsorted(now, start_h - dials.calibration.window_days * DAY_H)
            known = first + np.flatnonzero(asked[first : today[0]])
            known = known[marks.ended[known] | (now[known] + remaining[known] > start_h)]
            lived = (now[known], remaining[known])
            calibration = fit_calibration(said[known], conditions[known], lived, start_h, dials.calibration)
        curves = on_grid(said[today], conditions[today], calibration) if calibrated else said[today]
        survival[today] = heed(curves, marks.moments.take(today), trust)
        groups = Kind(history=kind.history[today], night=kind.night[today])
        booked[today] = longest(survival[today], risks(thresholds, groups, dials.promise), LONGEST_H) * asked[today]
        pending = np.concatenate([pending[~ripe], today[booked[today] > 0]])
    return Rolled(survival=survival, booked_h=booked, calibration=calibration, thresholds=thresholds)


def _after(
    thresholds: Thresholds, bookings: tuple[FloatArray, Kind, BoolArray], rows: IntArray, dials: PromiseDials
) -> Thresholds:
    booked, kind, stayed = bookings
    if rows.size == 0:
        return thresholds
    groups = Kind(history=kind.history[rows], night=kind.night[rows])
    return learn(thresholds, booked[rows], groups, stayed[rows], dials)


def _days(now_h: FloatArray) -> list[tuple[float, IntArray]]:
    """Return each day's start and its rows."""
    if len(now_h) == 0:
        return []
    day = np.floor(now_h / DAY_H).astype(np.int64)
    cuts = np.flatnonzero(np.diff(day)) + 1
    return [(float(day[rows[0]]) * DAY_H, rows) for rows in np.split(np.arange(len(now_h)), cuts)]
