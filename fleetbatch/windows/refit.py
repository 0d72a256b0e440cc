"""The monthly model: learnt, tried on weeks it has not seen, and built only when it passes its gates. Pure."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pyarrow as pa

from fleetbatch.errors import RejectedError
from fleetbatch.windows.bundle import build_bundle, open_bundle
from fleetbatch.windows.calibration import no_calibration
from fleetbatch.windows.conformal import first_thresholds
from fleetbatch.windows.learning import learn_model
from fleetbatch.windows.state import Figures
from fleetbatch.windows.tuning import TuningDials, tune


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """What a model must reach on the weeks before its refit, which it has not seen."""

    unseen: timedelta = timedelta(days=42)
    better_than_fallback: float = 0.99
    """Its integrated Brier score over L1's may be at most this."""
    calibration_error: float = 0.03
    evicted: float = 0.06
    forecasts_min: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RefitDials:
    """The dials of learning, tuning and gates."""

    tuning: TuningDials = field(default_factory=TuningDials)
    gates: Gates = field(default_factory=Gates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refit:
    """A bundle, or why there is none; a planned end, not an error."""

    bundle: bytes | None
    problems: tuple[str, ...]
    figures: dict[str, Figures]


def refit(stays: pa.Table, now: datetime, dials: RefitDials) -> Refit:
    """Learn a candidate up to the unseen weeks, judge it on them, then learn from all and build the bundle.

    The bundle carries the calibration and thresholds that the candidate earned on the unseen weeks.
    """
    unseen = dials.gates.unseen
    try:
        trial = learn_model(stays, now - unseen, dials.tuning.learning)
        untuned = (no_calibration(), first_thresholds(dials.tuning.rolling.promise))
        candidate = open_bundle(build_bundle(trial, untuned, trained_until=now - unseen))
        judging = TuningDials(
            learning=dials.tuning.learning,
            rolling=dials.tuning.rolling,
            look_back=unseen,
            judged=unseen,
            landmarks_max=dials.tuning.landmarks_max,
        )
        judged = tune(stays, candidate, now, judging)
        problems = gate(judged.figures, dials.gates)
        if problems:
            return Refit(bundle=None, problems=problems, figures=judged.figures)
        whole = learn_model(stays, now, dials.tuning.learning)
    except RejectedError as error:
        return Refit(bundle=None, problems=(error.summary, *error.problems), figures={})
    tuned = (judged.calibration(), judged.thresholds())
    return Refit(bundle=build_bundle(whole, tuned, trained_until=now), problems=(), figures=judged.figures)


def gate(figures: dict[str, Figures], gates: Gates) -> tuple[str, ...]:
    """Return why a model may not serve; empty when it may."""
    ours, fallback = figures["L2"], figures["L1"]
    problems = []
    if ours.forecasts < gates.forecasts_min:
        problems.append(f"judged on {ours.forecasts} forecasts; at least {gates.forecasts_min} are needed")
    if ours.integrated_brier > gates.better_than_fallback * fallback.integrated_brier:
        compared = f"{ours.integrated_brier:.4f} against {fallback.integrated_brier:.4f}"
        problems.append(f"its integrated Brier score is no better than that of L1: {compared}")
    if ours.calibration_error_8h > gates.calibration_error:
        problems.append(f"its calibration error at 8 h is {ours.calibration_error_8h:.3f}")
    if ours.evicted > gates.evicted:
        problems.append(f"{ours.evicted:.1%} of its bookings would have been evicted")
    return tuple(problems)
