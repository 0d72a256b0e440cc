"""Tonight's state of the forecast, from what its promises of the past weeks came to. Pure.

The past weeks are forecast again with the history that was known at each moment, so tuning needs no memory of what it
said before: the same stays give the same state, however often it is asked.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch.contracts import conform
from fleetbatch.windows import scores
from fleetbatch.windows.bundle import WindowsBundle
from fleetbatch.windows.calibration import Calibration, conditions_of, fit_calibration, no_calibration
from fleetbatch.windows.clock import BoolArray, FloatArray, IntArray, hours
from fleetbatch.windows.groups import GroupCurves, fit_groups
from fleetbatch.windows.landmarks import Landmarks, landmarks, thinned
from fleetbatch.windows.learning import CHUNK, LearningDials, default_learning, raw_forecast, see_all
from fleetbatch.windows.past import recent
from fleetbatch.windows.rolling import Rolled, RollingDials, roll
from fleetbatch.windows.shrink import shrunk_log_survival
from fleetbatch.windows.state import Figures, Stratum, Tuned
from fleetbatch.windows.stays import Moments, Stays, read_stays
from fleetbatch.windows.strata import strata_of

JUDGED_H: Final = 12.0
"""A forecast is scored when twelve hours have shown what it was worth."""
SHOWN_HORIZONS_H: Final = (1.0, 4.0, 8.0)
"""At which the page shows whether forecasts meant what they said."""
FRESH_H: Final = 2.0
"""An open stay seen less than this long ago is taken to go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningDials:
    """How far back is looked, at how much, and when the model has to step aside."""

    learning: LearningDials = field(default_factory=default_learning)
    rolling: RollingDials = field(default_factory=RollingDials)
    look_back: timedelta = timedelta(days=60)
    judged: timedelta = timedelta(days=7)
    judged_min: int = 200
    landmarks_max: int = 150_000
    """More than this and whole cars are left out, the same ones every day."""


def tune(stays: pa.Table, bundle: WindowsBundle | None, now: datetime, dials: TuningDials) -> Tuned:
    """Return the state for forecasts from `now` on: calibration, thresholds, and the level that serves.

    The model serves unless it scored worse than L1 over the judged days, or there is none.
    """
    begun = conform(stays, "stays").filter(pc.field("plugged_in_at") <= now)
    known = read_stays(thinned(begun, now - dials.look_back, dials.landmarks_max), now)
    marks = _recent(known, now, dials)
    used = recent(known, marks.moments, dials.learning.shrink.stays_max).stays_used
    groups = fit_groups(known, dials.learning.group)
    curves = shrunk_survival(known, marks.moments, groups, dials.learning)
    rolled = {"L1": roll(marks, curves, used, known, calibrated=False, dials=dials.rolling)}
    calibration = no_calibration()
    if bundle is not None:
        seen = see_all(known, marks.moments, bundle.groups, dials.learning.shrink)
        said = raw_forecast(bundle.model, seen)
        rolled["L2"] = roll(marks, said, used, known, calibrated=True, dials=dials.rolling)
        asked = np.flatnonzero(~marks.at_plug_in)
        lived = (marks.moments.now_h[asked], marks.remaining_h[asked])
        conditions = conditions_of(marks.moments, used)[asked]
        calibration = fit_calibration(said[asked], conditions, lived, hours(now), dials.rolling.calibration)
    judged = _judged(marks, now, dials)
    figures = {level: figures_of(run, marks, judged) for level, run in rolled.items()}
    level, reason = serving(figures, dials.judged_min)
    return _told(rolled[level], (marks, used, judged), (level, reason, figures, calibration), bundle, now)


def serving(figures: dict[str, Figures], judged_min: int) -> tuple[Literal["L1", "L2"], str]:
    """Return the level that serves, and why."""
    if "L2" not in figures:
        return "L1", "there is no model"
    ours, fallback = figures["L2"], figures["L1"]
    if ours.forecasts < judged_min:
        return "L2", f"{ours.forecasts} forecasts are too few to judge the model"
    compared = f"integrated Brier score {ours.integrated_brier:.4f} against {fallback.integrated_brier:.4f} of L1"
    if ours.integrated_brier > fallback.integrated_brier:
        return "L1", f"the model scored worse over the judged days: {compared}"
    return "L2", f"the model scored better over the judged days: {compared}"


def shrunk_survival(stays: Stays, moments: Moments, groups: GroupCurves, dials: LearningDials) -> FloatArray:
    """Return L1's S on the grid for many moments, in pieces that bound memory."""
    pieces = [np.arange(start, min(start + CHUNK, len(moments))) for start in range(0, max(len(moments), 1), CHUNK)]
    curves = [shrunk_log_survival(stays, moments.take(rows), groups, dials.shrink)[0] for rows in pieces]
    return np.asarray(np.exp(np.concatenate(curves)), dtype=np.float64)


def figures_of(run: Rolled, marks: Landmarks, judged: BoolArray) -> Figures:
    """Return what the judged forecasts were worth; nothing judged gives zeros."""
    if not judged.any():
        return Figures(forecasts=0, integrated_brier=0.0, calibration_error_8h=0.0, booked=0.0, evicted=0.0)
    survival, remaining = run.survival[judged], marks.remaining_h[judged]
    made = scores.kept(run.booked_h, marks.remaining_h, judged)
    return Figures(
        forecasts=int(judged.sum()),
        integrated_brier=scores.integrated_brier(survival, remaining),
        calibration_error_8h=scores.calibration_error(survival, remaining)[8.0],
        booked=made.booked,
        evicted=made.evicted,
    )


def _recent(known: Stays, now: datetime, dials: TuningDials) -> Landmarks:
    """Return the landmarks of the past weeks, but for stays that fell silent."""
    marks = landmarks(known).between(hours(now - dials.look_back), hours(now))
    seen_h = marks.moments.now_h + marks.remaining_h
    return marks.take(np.flatnonzero(marks.ended | (seen_h >= hours(now) - FRESH_H)))


def _judged(marks: Landmarks, now: datetime, dials: TuningDials) -> BoolArray:
    ripe_h = hours(now) - JUDGED_H
    first_h = ripe_h - dials.judged / timedelta(hours=1)
    made = marks.moments.now_h
    return np.asarray(~marks.at_plug_in & (made <= ripe_h) & (made > first_h), dtype=np.bool_)


def _told(
    run: Rolled,
    judged_on: tuple[Landmarks, IntArray, BoolArray],
    served: tuple[Literal["L1", "L2"], str, dict[str, Figures], Calibration],
    bundle: WindowsBundle | None,
    now: datetime,
) -> Tuned:
    marks, used, judged = judged_on
    level, reason, figures, calibration = served
    strata = [
        (name, scores.kept(run.booked_h, marks.remaining_h, judged & of(run.booked_h)), judged & of(run.booked_h))
        for name, of in strata_of(marks, used).items()
    ]
    return Tuned(
        level=level,
        reason=reason,
        model_sha256="" if bundle is None else str(bundle.sha256),
        tuned_at=now.astimezone(UTC).isoformat(),
        coefficients=calibration.coefficients.tolist(),
        risk_length=run.thresholds.length.tolist(),
        risk_history=run.thresholds.history.tolist(),
        risk_day=run.thresholds.day.tolist(),
        figures=figures,
        strata=[
            Stratum(
                name=name,
                forecasts=int(rows.sum()),
                bookings=made.bookings,
                booked=made.booked,
                evicted=made.evicted,
            )
            for name, made, rows in strata
            if rows.any()
        ],
        reliability={
            f"{horizon:g}": scores.reliability(run.survival[judged], marks.remaining_h[judged], horizon)
            for horizon in SHOWN_HORIZONS_H
            if judged.any()
        },
    )
