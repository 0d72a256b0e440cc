"""Were the promises kept: scores by hand, calibration, thresholds that follow what happened, and who serves."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import msgspec
import numpy as np
import pytest

from fleetbatch.contracts import empty
from fleetbatch.units import CellName, Sha256
from fleetbatch.windows import scores
from fleetbatch.windows.calibration import CONDITIONS, CalibrationDials, fit_calibration, no_calibration, on_grid
from fleetbatch.windows.clock import FloatArray, Zones, hours
from fleetbatch.windows.conformal import Kind, PromiseDials, first_thresholds, kind_of, learn, longest, risks
from fleetbatch.windows.features import EDGES_H
from fleetbatch.windows.groups import GRID_H
from fleetbatch.windows.landmarks import Landmarks
from fleetbatch.windows.page import day_page
from fleetbatch.windows.refit import Gates, gate
from fleetbatch.windows.rolling import RollingDials, roll
from fleetbatch.windows.shadow import Model, compared, pick, promoted
from fleetbatch.windows.state import Figures, Stratum, Tuned
from fleetbatch.windows.stays import Moments, Started, read_stays
from fleetbatch.windows.tuning import serving

START_H = hours(datetime(2026, 3, 2, tzinfo=UTC))
NOBODY = read_stays(empty("stays"), datetime(2026, 3, 2, tzinfo=UTC))
"""A past without stays, and so without statements."""


def hazard_curves(rate: FloatArray) -> FloatArray:
    """log S at EDGES_H of cars that leave at a constant rate per hour."""
    return np.asarray(-np.asarray(rate).reshape(-1, 1) * EDGES_H, dtype=np.float64)


def marks(remaining_h: FloatArray, now_h: FloatArray) -> Landmarks:
    count = len(now_h)
    unknown = np.full(count, np.nan)
    stay = Started(
        car=np.arange(count).astype(np.uint64),
        begin_h=now_h - 1.0,
        zones=Zones(names=("UTC",), codes=np.zeros(count, np.int64)),
        sites=Zones(names=("",), codes=np.zeros(count, np.int64)),
        soc=unknown,
        complete_at_h=unknown,
        departure_at_h=unknown,
        trip_at_h=unknown,
        stated_at_h=unknown,
    )
    return Landmarks(
        moments=Moments(stay=stay, now_h=now_h),
        remaining_h=remaining_h,
        ended=np.ones(count, np.bool_),
        at_plug_in=np.zeros(count, np.bool_),
    )


def test_the_scores_are_those_of_their_definitions() -> None:
    sure = np.repeat((GRID_H <= 4)[None, :].astype(float), 3, axis=0)
    remaining = np.array([4.0, 5.0, 1.0])
    assert scores.brier(sure, remaining) == {0.5: 0, 1.0: 0, 2.0: 1 / 3, 4.0: 1 / 3, 8.0: 0}
    wrong_quarters = 1 + 3 + 13  # at the very end; 4 to 5 h; 1 to 4 h
    assert scores.integrated_brier(sure, remaining) == pytest.approx(wrong_quarters / (3 * 48), abs=1e-9)
    assert scores.calibration_error(sure, remaining)[4.0] == pytest.approx(1 / 3)
    assert scores.median_h(sure) == pytest.approx([4.0 + 0.125] * 3)
    assert scores.smape(sure[:1], np.array([4.125])) == pytest.approx(0.0)


def test_booked_hours_count_when_kept_and_bookings_of_nothing_do_not_count() -> None:
    booked, remaining = np.array([4.0, 2.0, 0.0, 12.0]), np.array([5.1, 1.0, 3.0, 40.0])
    told = scores.kept(booked, remaining, np.ones(4, np.bool_))
    assert told.bookings == 3
    assert told.evicted == pytest.approx(1 / 3)
    assert told.booked == pytest.approx((4 + 12) / (5 + 1 + 3 + 12))


def test_forecasts_that_promise_too_much_are_brought_back() -> None:
    chance = np.random.default_rng(0)
    rate = chance.uniform(0.02, 0.4, 8000)
    remaining = chance.exponential(1 / (2 * rate))
    made = START_H + np.sort(chance.uniform(0, 24 * 30, 8000))
    now = START_H + 24 * 31
    plain = np.zeros((8000, len(CONDITIONS)))
    fitted = fit_calibration(hazard_curves(rate), plain, (made, remaining), now, CalibrationDials())
    before, after = (on_grid(hazard_curves(rate), plain, c) for c in (no_calibration(), fitted))
    assert scores.calibration_error(before, remaining)[4.0] > 0.1
    assert max(scores.calibration_error(after, remaining).values()) < 0.04


def test_a_forecast_that_has_not_matured_teaches_nothing() -> None:
    chance = np.random.default_rng(0)
    made = START_H + np.sort(chance.uniform(0, 24 * 30, 3000))
    remaining = chance.exponential(6.0, 3000)
    now = START_H + 24 * 30
    unripe = np.where(made + remaining > now, made + remaining + 50.0 - made, remaining)
    curves = hazard_curves(np.full(3000, 1 / 6))
    plain = np.zeros((3000, len(CONDITIONS)))
    one, other = (fit_calibration(curves, plain, (made, r), now, CalibrationDials()) for r in (remaining, unripe))
    assert (one.coefficients == other.coefficients).all()


def test_a_thin_past_calibrates_nothing() -> None:
    thin = (np.full(50, START_H), np.ones(50))
    plain = np.zeros((50, len(CONDITIONS)))
    fitted = fit_calibration(hazard_curves(np.full(50, 0.1)), plain, thin, START_H + 99, CalibrationDials())
    assert (fitted.coefficients == no_calibration().coefficients).all()


def test_what_is_only_wrong_at_night_is_only_changed_at_night() -> None:
    chance = np.random.default_rng(0)
    night = chance.random(30_000) < 0.5
    rate = np.full(30_000, 0.15)
    remaining = chance.exponential(1 / np.where(night, 0.05, 0.15))
    made = START_H + np.sort(chance.uniform(0, 24 * 30, 30_000))
    held = np.zeros((30_000, len(CONDITIONS)))
    held[:, CONDITIONS.index("night")] = night
    fitted = fit_calibration(hazard_curves(rate), held, (made, remaining), START_H + 24 * 31, CalibrationDials())
    after = on_grid(hazard_curves(rate), held, fitted)[:, 15]
    assert after[night].mean() == pytest.approx(np.exp(-0.2), abs=0.04)
    assert after[~night].mean() == pytest.approx(np.exp(-0.6), abs=0.04)


def test_risk_that_rises_with_length_finds_the_longest_window_that_it_covers() -> None:
    survival = np.exp(-GRID_H / 50)[None, :]
    assert longest(survival, 0.05, 12.0)[0] == 2.5
    rising = np.where(GRID_H <= 1, 0.001, 0.1)[None, :]
    assert longest(survival, rising, 12.0)[0] == 5.25
    assert longest(survival, 0.9, 12.0)[0] == 12.0
    assert longest(survival, 0.0, 12.0)[0] == 0.0


def test_evictions_return_to_the_promise_after_people_change_their_ways() -> None:
    chance = np.random.default_rng(4)
    days, daily = 90, 400
    now = START_H + np.sort(chance.uniform(0, 24 * days, days * daily))
    rate = chance.uniform(0.005, 0.3, len(now))
    lockdown = now > START_H + 24 * 30
    remaining = chance.exponential(1 / (rate * np.where(lockdown, 2.0, 1.0)))
    said = on_grid(hazard_curves(rate), np.zeros((len(rate), len(CONDITIONS))), no_calibration())
    dials = RollingDials()
    run = roll(marks(remaining, now), said, np.full(len(now), 30), NOBODY, calibrated=False, dials=dials)
    late = now > START_H + 24 * 50
    assert scores.kept(run.booked_h, remaining, late).evicted == pytest.approx(0.046, abs=0.01)
    fixed = longest(said, 0.05, 12.0)
    assert scores.kept(fixed, remaining, late).evicted > 0.06


def test_nothing_is_booked_or_forecast_with_what_was_not_yet_known() -> None:
    chance = np.random.default_rng(4)
    now = START_H + np.sort(chance.uniform(0, 24 * 40, 12_000))
    rate = chance.uniform(0.005, 0.3, len(now))
    remaining = chance.exponential(1 / (1.5 * rate))
    cut = START_H + 24 * 30
    changed = np.where(now + remaining > cut, cut - now + chance.uniform(0.01, 50, len(now)), remaining)
    changed = np.where(now > cut, chance.exponential(1.0, len(now)), changed)
    used, dials = np.full(len(now), 30), RollingDials()
    lost = replace(marks(changed, now), ended=now + changed <= cut)
    one, other, third = (
        roll(told, hazard_curves(rate), used, NOBODY, calibrated=True, dials=dials)
        for told in (marks(remaining, now), marks(changed, now), lost)
    )
    before = now < cut
    assert (one.survival[before] == third.survival[before]).all()
    assert (one.booked_h[before] == third.booked_h[before]).all()
    assert (one.survival[before] == other.survival[before]).all()
    assert (one.booked_h[before] == other.booked_h[before]).all()
    assert (one.booked_h[~before] != other.booked_h[~before]).any()


def test_only_the_groups_that_broke_promises_lose_risk() -> None:
    dials = PromiseDials()
    before = first_thresholds(dials)
    kind = Kind(history=np.full(500, 2), night=np.ones(500, np.int64))
    after = learn(before, np.full(500, 12.0), kind, np.zeros(500, np.bool_), dials)
    assert after.length[3] < before.length[3]
    assert (after.length[:3] == before.length[:3]).all()
    assert after.day[0] == before.day[0]
    asked = kind_of(np.array([0, 50]), np.array([22.0, 12.0]))
    assert risks(after, asked, dials).shape == (2, 96)
    assert risks(after, asked, dials).max() <= dials.risk_max


def figures(brier: float, *, forecasts: int = 1000, evicted: float = 0.04, ece: float = 0.01) -> Figures:
    return Figures(forecasts=forecasts, integrated_brier=brier, calibration_error_8h=ece, booked=0.4, evicted=evicted)


def test_the_fallback_serves_when_the_model_scored_worse_and_says_why() -> None:
    assert serving({"L1": figures(0.13)}, 200) == ("L1", "there is no model")
    assert serving({"L1": figures(0.13), "L2": figures(0.12)}, 200)[0] == "L2"
    level, reason = serving({"L1": figures(0.13), "L2": figures(0.14)}, 200)
    assert level == "L1"
    assert "0.1400 against 0.1300" in reason
    assert serving({"L1": figures(0.13), "L2": figures(0.14, forecasts=10)}, 200)[0] == "L2"


def test_a_model_must_pass_every_gate() -> None:
    assert gate({"L1": figures(0.13), "L2": figures(0.12)}, Gates()) == ()
    bad = {"L1": figures(0.12), "L2": figures(0.12, forecasts=3, evicted=0.2, ece=0.2)}
    assert len(gate(bad, Gates())) == 4


def tuned(sha256: str, brier: float) -> Tuned:
    return Tuned(
        level="L2",
        reason="",
        model_sha256=sha256,
        tuned_at="",
        coefficients=[],
        risk_length=[],
        risk_history=[],
        risk_day=[],
        figures={"L2": figures(brier)},
        strata=[],
        reliability={},
    )


def test_a_newer_model_stays_in_the_shadow_until_a_week_speaks_for_it() -> None:
    old = Model(day=date(2026, 1, 1), sha256=Sha256("a"), key="")
    new = replace(old, day=date(2026, 2, 1), sha256=Sha256("b"))
    assert pick((new, old), "", date(2026, 1, 15)) == (old, None)
    assert pick((new, old), "a", date(2026, 2, 1)) == (old, new)
    assert pick((), "a", date(2026, 2, 1)) == (None, None)
    assert not promoted(tuned("a", 0.12), tuned("b", 0.11), new.day, new.day + timedelta(days=6))
    assert promoted(tuned("a", 0.12), tuned("b", 0.11), new.day, new.day + timedelta(days=7))
    assert not promoted(tuned("a", 0.12), tuned("b", 0.13), new.day, new.day + timedelta(days=7))


def test_the_page_says_what_runs_in_the_shadow_and_who_was_evicted_too_often() -> None:
    new = Model(day=date(2026, 2, 1), sha256=Sha256("b"), key="")
    waiting = compared(tuned("a", 0.12), tuned("b", 0.11), new, taken=False)
    assert waiting == (
        "model b of 2026-02-01 runs in the shadow and may take over from 2026-02-08 on: "
        "integrated Brier score 0.1100 against 0.1200 of model a"
    )
    strata = [
        Stratum(name="night", forecasts=900, bookings=800, booked=0.6, evicted=0.081),
        Stratum(name="no past stay", forecasts=20, bookings=9, booked=0.1, evicted=0.3),
    ]
    state = msgspec.structs.replace(
        tuned("a", 0.12), shadow=waiting, strata=strata, reliability={"8": [(0.9, 0.5, 60)]}
    )
    page = day_page(CellName("north"), date(2026, 2, 2), state)
    assert f"Shadow: {waiting}." in page
    assert "Over 7% evicted: night (8.1%)." in page
    assert page.count("<circle") == 1


def test_a_state_survives_its_trip_through_json() -> None:
    state = tuned("a", 0.12)
    assert msgspec.json.decode(msgspec.json.encode(state), type=Tuned) == state
