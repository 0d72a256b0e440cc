"""What the ladder would have been worth: learnt until a date, then run day by day through what came later.

Nothing is tuned on the later part: models are learnt from what was known at the date (and again every month from what
was known then), calibration and thresholds follow matured forecasts only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from fleetbatch.errors import RejectedError
from fleetbatch.windows import scores
from fleetbatch.windows.baselines import global_kaplan_meier, time_of_week, user_kaplan_meier
from fleetbatch.windows.clock import BoolArray, FloatArray, hours
from fleetbatch.windows.features import EDGES_H
from fleetbatch.windows.groups import GRID_H, GroupCurves, fit_groups, group_of, log_ahead
from fleetbatch.windows.landmarks import Landmarks, landmarks
from fleetbatch.windows.learning import CHUNK, LearningDials, default_learning, learn_model, raw_forecast, see_all
from fleetbatch.windows.network import LEAST
from fleetbatch.windows.past import recent
from fleetbatch.windows.rolling import Rolled, RollingDials, roll
from fleetbatch.windows.sessions import read_sessions
from fleetbatch.windows.stays import Moments, Stays, plugs, read_stays
from fleetbatch.windows.strata import Stratum, strata_of
from fleetbatch.windows.tuning import shrunk_survival

MODELS: Final = {
    "global_kaplan_meier": "global Kaplan-Meier",
    "time_of_week": "time of week",
    "group_kaplan_meier": "L0 group Kaplan-Meier",
    "user_kaplan_meier": "per-user Kaplan-Meier",
    "shrinkage": "L1 clock-aligned shrinkage",
    "network": "L2 network, calibrated",
}
NETWORK: Final = "network"


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestDials:
    """How the run is set up; the defaults are what the room's README reports."""

    learning: LearningDials = field(default_factory=default_learning)
    rolling: RollingDials = field(default_factory=RollingDials)
    warm_up: timedelta = timedelta(days=42)
    """Weeks before the date on which a model that has not seen them sets calibration and thresholds."""
    refit: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """The scores: `summary` in the form that `--json` prints, the same as a table, and by stratum."""

    summary: dict[str, dict[str, object]]
    table: pa.Table
    strata: pa.Table
    """model, stratum, n, integrated_brier, calibration_error_8h, booked, evicted, bookings."""


def silently(step: str) -> None:
    """Tell nobody."""


def backtest(
    sessions: Path,
    train_until: datetime,
    *,
    source: str = "norway12",
    dials: BacktestDials | None = None,
    tell: Callable[[str], None] = silently,
) -> Backtest:
    """Score baselines and ladder on the sessions of the file that began at or after `train_until`.

    Hourly snapshots (full local hours) of running stays; the same file and date give the same numbers. `tell` hears
    what is done next. Raises RejectedError when the file cannot be used or has nothing on one side of the date.
    """
    tell(f"reading {sessions.name}")
    return score(read_sessions(sessions, source), train_until, dials or BacktestDials(), tell)


def score(
    stays: pa.Table, train_until: datetime, dials: BacktestDials, tell: Callable[[str], None] = silently
) -> Backtest:
    """Score baselines and ladder on stays (contract `stays`)."""
    whole = read_stays(stays, _end(stays))
    cut_h, warm_h = hours(train_until), hours(train_until - dials.warm_up)
    marks = landmarks(whole).between(warm_h, np.inf)
    tested = marks.ended & (marks.moments.stay.begin_h >= cut_h)
    if not (tested & ~marks.at_plug_in).any() or not (whole.closed.begin_h < cut_h).any():
        summary = f"{train_until:%Y-%m-%d} leaves no ended session on one of its sides"
        raise RejectedError(summary)
    used = recent(whole, marks.moments, dials.learning.shrink.stays_max).stays_used
    judge = _Judge(marks=marks, tested=tested, strata=strata_of(marks, used))
    told = []
    tell(f"{int((tested & ~marks.at_plug_in).sum())} hourly snapshots to score")
    for name, said in _simple(stays, whole, marks.moments, train_until, dials):
        tell(f"scored: {MODELS[name]}")
        told.append(judge.score(name, roll(marks, said, used, whole, calibrated=False, dials=dials.rolling)))
    said = _network(stays, whole, marks, train_until, dials, tell)
    told.append(judge.score(NETWORK, roll(marks, said, used, whole, calibrated=True, dials=dials.rolling)))
    return Backtest(
        summary={name: figures for name, figures, _ in told},
        table=_table({name: figures for name, figures, _ in told}),
        strata=pa.Table.from_pylist([row for _, _, rows in told for row in rows]),
    )


def _end(stays: pa.Table) -> datetime:
    latest = pl.DataFrame(stays.select(["plugged_in_at", "unplugged_at"])).max().row(0)
    ends = [value for value in latest if isinstance(value, datetime)]
    if not ends:
        summary = "there is no session to score"
        raise RejectedError(summary)
    return max(ends) + timedelta(seconds=1)


def _simple(
    stays: pa.Table, whole: Stays, moments: Moments, train_until: datetime, dials: BacktestDials
) -> Iterator[tuple[str, FloatArray]]:
    """Yield S on the grid of everything but the network; curves of all cars are those known at the date."""
    known = read_stays(stays, train_until)
    groups = fit_groups(known, dials.learning.group)
    shrink = dials.learning.shrink
    everybody = global_kaplan_meier(known, moments)
    yield "global_kaplan_meier", everybody
    yield "time_of_week", time_of_week(known, moments)
    yield "group_kaplan_meier", _group(groups, moments)
    pieces = [np.arange(s, min(s + CHUNK, len(moments))) for s in range(0, len(moments), CHUNK)]
    own = [user_kaplan_meier(whole, moments.take(p), everybody[p], shrink.stays_max) for p in pieces]
    yield "user_kaplan_meier", np.concatenate(own)
    yield "shrinkage", shrunk_survival(whole, moments, groups, dials.learning)


def _group(groups: GroupCurves, moments: Moments) -> FloatArray:
    placed = plugs(moments.stay.begin_h, moments.stay.zones)
    return np.exp(log_ahead(groups, group_of(placed), moments.elapsed_h, GRID_H))


def _network(
    stays: pa.Table,
    whole: Stays,
    marks: Landmarks,
    train_until: datetime,
    dials: BacktestDials,
    tell: Callable[[str], None],
) -> FloatArray:
    """Return log S at EDGES_H, each landmark by the newest model that had been learnt before its stay began."""
    begin = marks.moments.stay.begin_h
    ages = np.unique(np.floor((begin - hours(train_until)) / (dials.refit / timedelta(hours=1))).astype(int))
    later = [train_until + int(age) * dials.refit for age in ages[ages > 0]]
    cuts = [train_until - dials.warm_up, train_until, *later]
    starts = [hours(cut) for cut in cuts]
    answer = np.zeros((len(marks), len(EDGES_H)))
    for cut, first, last in zip(cuts, starts, [*starts[1:], np.inf], strict=True):
        tell(f"learning from sessions before {cut:%Y-%m-%d}, the last time before {cuts[-1]:%Y-%m-%d}")
        rows = np.flatnonzero((begin >= first) & (begin < last))
        answer[rows] = _learnt_by(stays, cut, (whole, marks.moments.take(rows)), dials.learning)
    return answer


def _learnt_by(stays: pa.Table, cut: datetime, asked: tuple[Stays, Moments], dials: LearningDials) -> FloatArray:
    """Return log S at EDGES_H from what was known at a date; L1's as long as there are too few stays to learn from."""
    known = read_stays(stays, cut)
    if len(known.closed) < dials.stays_min:
        survival = shrunk_survival(*asked, fit_groups(known, dials.group), dials)
        return np.log(np.maximum(survival[:, np.searchsorted(GRID_H, EDGES_H)], LEAST))
    learnt = learn_model(stays, cut, dials)
    return raw_forecast(learnt.model, see_all(*asked, learnt.groups, dials.shrink))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """The landmarks that are scored, and their strata."""

    marks: Landmarks
    tested: BoolArray
    strata: dict[str, Stratum]

    def score(self, name: str, run: Rolled) -> tuple[str, dict[str, object], list[dict[str, object]]]:
        """Return a model's name, its figures, and one row per stratum."""
        hourly, starts = self.tested & ~self.marks.at_plug_in, self.tested & self.marks.at_plug_in
        remaining = self.marks.remaining_h
        every = scores.kept(run.booked_h, remaining, hourly)
        dark = scores.kept(run.booked_h, remaining, hourly & self.strata["night"](run.booked_h))
        figures: dict[str, object] = {
            "n": int(hourly.sum()),
            "brier": _by_horizon(scores.brier(run.survival[hourly], remaining[hourly])),
            "integrated_brier": scores.integrated_brier(run.survival[hourly], remaining[hourly]),
            "calibration_error": _by_horizon(scores.calibration_error(run.survival[hourly], remaining[hourly])),
            "smape": scores.smape(run.survival[starts], remaining[starts]),
            "booked_all": every.booked,
            "evicted_all": every.evicted,
            "booked_night": dark.booked,
            "evicted_night": dark.evicted,
        }
        inside = {stratum: hourly & of(run.booked_h) for stratum, of in self.strata.items()}
        rows = [
            {"model": name, "stratum": stratum} | _stratum(run, self.marks, rows)
            for stratum, rows in inside.items()
            if rows.any()
        ]
        return name, figures, rows


def _stratum(run: Rolled, marks: Landmarks, inside: BoolArray) -> dict[str, object]:
    remaining = marks.remaining_h
    made = scores.kept(run.booked_h, remaining, inside)
    return {
        "n": int(inside.sum()),
        "integrated_brier": scores.integrated_brier(run.survival[inside], remaining[inside]),
        "calibration_error_8h": scores.calibration_error(run.survival[inside], remaining[inside])[8.0],
        "booked": made.booked,
        "evicted": made.evicted,
        "bookings": made.bookings,
    }


def _by_horizon(values: dict[float, float]) -> dict[str, float]:
    return {f"{horizon:g}": value for horizon, value in values.items()}


def _table(summary: dict[str, dict[str, object]]) -> pa.Table:
    """Return one row per model, nested figures as `brier_4h` and the like."""
    rows = []
    for name, figures in summary.items():
        row: dict[str, object] = {"model": name}
        for figure, value in figures.items():
            if isinstance(value, dict):
                row |= {f"{figure}_{horizon}h": number for horizon, number in value.items()}
            else:
                row[figure] = value
        rows.append(row)
    return pa.Table.from_pylist(rows)
