"""What only some fleets report: used where a past of it is known, and worth nothing where it is not."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from windows_story import NOW, SMALL, bundle_of, past, plugged_in, small_model

from fleetbatch.windows import Forecaster, open_forecaster, predict, scores
from fleetbatch.windows.bundle import Learnt
from fleetbatch.windows.clock import hours
from fleetbatch.windows.features import FEATURES, see
from fleetbatch.windows.forecast import survival_of
from fleetbatch.windows.landmarks import landmarks
from fleetbatch.windows.learning import learn_model, raw_forecast, see_all
from fleetbatch.windows.network import NetworkDials
from fleetbatch.windows.rolling import RollingDials, roll
from fleetbatch.windows.shrink import ShrinkDials
from fleetbatch.windows.stays import read_stays
from fleetbatch.windows.tuning import shrunk_survival

EAGER = replace(SMALL, network=NetworkDials(hidden=12, networks=1, epochs=8, batch=256, learning_rate=1e-2))
CUT = NOW - timedelta(days=30)
LASTED_H = (pl.col("unplugged_at") - pl.col("plugged_in_at")).dt.total_minutes() / 60


def forecaster(learnt: Learnt | None = None) -> Forecaster:
    return open_forecaster(bundle_of(learnt or small_model()))


def told(column: str, hours_ahead: float) -> pa.Table:
    """The plugged-in cars, each with an instant that it reports."""
    return (
        pl.DataFrame(plugged_in(past()))
        .with_columns(pl.lit(NOW + timedelta(hours=hours_ahead)).alias(column))
        .to_arrow()
    )


def fleet(**columns: pl.Expr) -> pa.Table:
    """The past, in which cars also reported something."""
    return pl.DataFrame(past()).with_columns(**columns).to_arrow()


def noise(spread: float) -> pl.Expr:
    return pl.lit(pl.Series(np.random.default_rng(1).normal(0, spread, past().num_rows)))


def stated_after(column: str, spread_h: float) -> pa.Table:
    """Owners who say when they leave, wrong by so many hours."""
    return fleet(**{column: pl.col("unplugged_at") + pl.duration(minutes=60 * noise(spread_h))})


# ---- state of charge, charge complete: features of a model that has learnt from them


def test_what_a_fleet_reports_changes_nothing_in_a_model_that_never_saw_it() -> None:
    cars, model = plugged_in(past()), forecaster()
    reported = told("charge_complete_at", -1).append_column("soc_at_plug_in", pa.array([0.4] * cars.num_rows))
    assert predict(cars, past(), NOW, forecaster=model) == predict(reported, past(), NOW, forecaster=model)


def test_columns_that_nobody_fills_are_as_good_as_absent() -> None:
    nothing = fleet(soc_at_plug_in=pl.lit(None, pl.Float64), departure_at=pl.lit(None, pl.Datetime("us", "UTC")))
    assert learn_model(nothing, NOW - timedelta(days=20), SMALL).model == small_model().model


def score_of(learnt: Learnt, stays: pa.Table) -> float:
    """The integrated Brier score on the stays after CUT."""
    known = read_stays(stays, NOW)
    marks = landmarks(known).between(hours(CUT), np.inf)
    marks = marks.take(np.flatnonzero(marks.ended))
    seen = see_all(known, marks.moments, learnt.groups, SMALL.shrink)
    said = raw_forecast(learnt.model, seen)
    used = seen.stays_used.astype(np.int64)
    run = roll(marks, said, used, known, calibrated=True, dials=RollingDials())
    return scores.integrated_brier(run.survival, marks.remaining_h)


def test_a_fleet_whose_charge_says_how_long_it_stays_gets_a_better_model() -> None:
    reporting = fleet(soc_at_plug_in=(1 - LASTED_H / 24 + noise(0.1)).clip(0, 1))
    with_charge = score_of(learn_model(reporting, CUT, EAGER), reporting)
    assert with_charge < 0.8 * score_of(learn_model(past(), CUT, EAGER), past())


def test_a_fleet_that_leaves_when_full_gets_a_model_that_uses_it() -> None:
    leaves_when_full = fleet(
        charge_complete_at=pl.coalesce(pl.col("unplugged_at") - pl.duration(minutes=40), pl.lit(NOW))
    )
    model = forecaster(learn_model(leaves_when_full, NOW, EAGER))
    soon = survival_of(predict(told("charge_complete_at", -0.1), past(), NOW, forecaster=model))[:, 7].mean()
    late = survival_of(predict(plugged_in(past()), past(), NOW, forecaster=model))[:, 7].mean()
    assert soon < late - 0.1


def test_that_charging_will_be_complete_later_is_not_known_before() -> None:
    asked = landmarks(read_stays(past(), NOW)).moments
    completes = fleet(charge_complete_at=pl.col("plugged_in_at") + pl.duration(hours=2))
    silent, reporting = (read_stays(table, NOW) for table in (past(), completes))
    reported = landmarks(reporting).moments
    groups = small_model().groups
    one, other = (see(s, m, groups, ShrinkDials()).features for s, m in ((silent, asked), (reporting, reported)))
    before = asked.elapsed_h < 2
    complete = FEATURES.index("charge_complete")
    assert (one[before] == other[before]).all()
    assert (other[~before, complete] == 1).all()


# ---- stated departure, next trip: evidence, weighed by how statements turned out before


@pytest.mark.parametrize("column", ["departure_at", "next_trip_at"])
@pytest.mark.parametrize("level", ["L1", "L2"])
def test_a_statement_bends_the_curve_and_is_never_taken_for_truth(column: str, level: str) -> None:
    model = forecaster() if level == "L2" else None
    silent = survival_of(predict(plugged_in(past()), past(), NOW, forecaster=model))
    early = survival_of(predict(told(column, 2.0), past(), NOW, forecaster=model))
    assert (early[:, 15] <= silent[:, 15] + 1e-9).all()
    assert (1 - early[:, 15]).mean() > 3 * (1 - silent[:, 15]).mean()
    assert early[:, 15].mean() > 0.05


def test_who_states_nothing_keeps_the_curve() -> None:
    cars = pl.DataFrame(told("departure_at", 2.0))
    one = cars.with_columns(departure_at=pl.when(pl.int_range(pl.len()) == 0).then("departure_at")).to_arrow()
    silent, bent = (survival_of(predict(c, past(), NOW)) for c in (plugged_in(past()), one))
    assert (silent[1:] == bent[1:]).all()
    assert (silent[0] != bent[0]).any()


def test_departures_and_trips_are_believed_each_as_they_turned_out() -> None:
    wrong = pl.col("unplugged_at") + pl.duration(hours=9)
    wary_of_departures, wary_of_trips = fleet(departure_at=wrong), fleet(next_trip_at=wrong)
    left = {
        (said, name): 1 - survival_of(predict(told(said, 2.0), stays, NOW))[:, 15].mean()
        for said in ("departure_at", "next_trip_at")
        for name, stays in (("departures", wary_of_departures), ("trips", wary_of_trips))
    }
    assert left["departure_at", "departures"] < left["departure_at", "trips"] / 3
    assert left["next_trip_at", "trips"] < left["next_trip_at", "departures"] / 3


def rolled(stays: pa.Table, level: str) -> float:
    """The integrated Brier score of a level, day by day through the stays after CUT."""
    if level == "L2":
        return score_of(small_model(), stays)
    known = read_stays(stays, NOW)
    marks = landmarks(known).between(hours(CUT), np.inf)
    marks = marks.take(np.flatnonzero(marks.ended))
    curves = shrunk_survival(known, marks.moments, small_model().groups, SMALL)
    run = roll(marks, curves, np.full(len(marks), 30), known, calibrated=False, dials=RollingDials())
    return scores.integrated_brier(run.survival, marks.remaining_h)


@pytest.mark.parametrize("column", ["departure_at", "next_trip_at"])
@pytest.mark.parametrize("level", ["L1", "L2"])
def test_owners_who_know_make_the_forecast_better_and_owners_who_guess_cost_next_to_nothing(
    column: str, level: str
) -> None:
    silent = rolled(past(), level)
    assert rolled(stated_after(column, 0.5), level) < 0.7 * silent
    assert rolled(stated_after(column, 12.0), level) < 1.02 * silent


def test_a_statement_that_is_heard_in_mid_stay_is_not_known_before() -> None:
    exact = fleet(departure_at=pl.col("unplugged_at"))
    late = pl.DataFrame(exact).with_columns(stated_at=pl.col("unplugged_at") - pl.duration(seconds=1)).to_arrow()
    assert rolled(exact, "L1") < 0.5 * rolled(past(), "L1")
    assert rolled(late, "L1") == pytest.approx(rolled(past(), "L1"), rel=0.001)
