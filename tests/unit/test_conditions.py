from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetbatch.car.conditions import (
    CABLE,
    CURRENT,
    CURRENT_MAX,
    NOTHING_KNOWN,
    SOC,
    SPEED,
    TEMPERATURE,
    TIME_TO_COMPLETE,
    VOLTAGE,
    Latch,
    Limits,
    Reading,
    decide,
    spare_w,
    why_not,
)
from fleetbatch.contracts import contract

NIGHT = datetime(2026, 11, 22, 23, tzinfo=UTC)
LIMITS = Limits(power_w=300.0)
PARKED: dict[str, Any] = {
    CABLE: True,
    SPEED: 0.0,
    TEMPERATURE: 20.0,
    SOC: 80.0,
    VOLTAGE: 230.0,
    CURRENT: 0.0,
    CURRENT_MAX: 16.0,
}
READY = Reading(signals=PARKED)
MINUTE = timedelta(minutes=1)


def says(**changed: Any) -> Reading:
    """A parked car of which some signals, named by the last word of their VSS name, say something else."""
    return replace(READY, signals={name: changed.get(name.rpartition(".")[2], told) for name, told in PARKED.items()})


def reason(reading: Reading, *, computing: bool = False) -> str:
    found = why_not(reading, LIMITS, computing=computing)
    return found.reason if found else ""


def test_a_parked_plugged_charged_cool_car_computes() -> None:
    assert decide(Latch(), READY, LIMITS, now=NIGHT).willing


def test_the_signals_are_those_of_the_contract() -> None:
    named = set(contract("signals").schema.names)
    assert {*PARKED, TIME_TO_COMPLETE} <= named


@pytest.mark.parametrize(
    ("reading", "why"),
    [
        (says(IsChargingCableConnected=False), "unplugged"),
        (says(Speed=3.0), "driving"),
        (says(Speed=-3.0), "driving"),
        (says(Average=46.0), "too_hot"),
        (replace(says(), reserve_soc=0.9), "battery_low"),
        (replace(READY, signals={**PARKED, CURRENT_MAX: 1.0}), "charger_busy"),
        (replace(READY, signals={**PARKED, CURRENT: 15.9}), "charger_busy"),
        (replace(READY, consent=False), "consent"),
        (NOTHING_KNOWN, "unplugged"),
    ],
)
def test_each_condition_says_no_in_its_own_words(reading: Reading, why: str) -> None:
    assert reason(reading) == why


@given(st.sampled_from(sorted(PARKED)), st.sampled_from([None, "yes", float("nan"), float("inf"), "absent"]))
def test_an_unknown_signal_means_no(name: str, told: Any) -> None:
    signals = {key: value for key, value in {**PARKED, name: told}.items() if value != "absent"}
    assert reason(Reading(signals=signals), computing=True)


@given(st.sampled_from([SPEED, TEMPERATURE, SOC, VOLTAGE, CURRENT, CURRENT_MAX]), st.booleans())
def test_a_truth_value_is_not_a_number(name: str, told: bool) -> None:  # noqa: FBT001 (hypothesis draws it)
    assert reason(Reading(signals={**PARKED, name: told}), computing=True)


def test_compute_stops_at_one_limit_and_starts_again_only_at_the_other() -> None:
    warm = says(Average=44.0)
    assert reason(warm, computing=True) == ""
    assert reason(warm, computing=False) == "too_hot"
    low = replace(READY, reserve_soc=0.79)
    assert reason(low, computing=True) == ""
    assert reason(low, computing=False) == "battery_low"
    tight = replace(READY, signals={**PARKED, CURRENT_MAX: 350 / 230})
    assert reason(tight, computing=True) == ""
    assert reason(tight, computing=False) == "charger_busy"


# --- what the charger can spare -----------------------------------------------------------------------------------

CHARGING = replace(READY, signals={**PARKED, CURRENT: 10.0})


def test_the_charger_can_spare_what_the_battery_does_not_draw() -> None:
    assert spare_w(READY) == pytest.approx(16 * 230)
    assert spare_w(CHARGING) == pytest.approx(6 * 230)


def test_a_stated_departure_lends_nothing_because_the_owner_may_come_early() -> None:
    busy = replace(READY, signals={**PARKED, CURRENT: 16.0})
    assert reason(replace(busy, departure_at=NIGHT + timedelta(hours=40))) == "charger_busy"


def test_a_charger_without_anything_left_over_while_computing_is_busy() -> None:
    """A battery that is given less because of compute draws exactly what compute leaves."""
    throttled = replace(READY, signals={**PARKED, CURRENT: 16.0 - LIMITS.power_w / 230})
    assert reason(throttled, computing=True) == "charger_busy"


@given(st.floats(0, 32), st.floats(0, 32), st.booleans(), st.floats(-0.12, 0.12))
def test_whoever_may_compute_takes_nothing_from_the_battery_whatever_it_wants_and_sensors_say(
    wants_a: float,
    limit_a: float,
    computing: bool,  # noqa: FBT001 (hypothesis draws it)
    wrong_a: float,
) -> None:
    takes_w = LIMITS.power_w if computing else 0.0
    drawn_a = max(0.0, min(wants_a, limit_a - takes_w / 230))
    seen = replace(READY, signals={**PARKED, CURRENT: drawn_a + wrong_a, CURRENT_MAX: limit_a})
    if why_not(seen, LIMITS, computing=computing) is None:
        assert 230 * min(wants_a, limit_a) <= 230 * limit_a - LIMITS.power_w + 1e-6


# --- latches ------------------------------------------------------------------------------------------------------


def test_unplugging_stops_at_once_and_coming_back_waits() -> None:
    started = decide(Latch(), READY, LIMITS, now=NIGHT)
    stopped = decide(started, says(IsChargingCableConnected=False), LIMITS, now=NIGHT + MINUTE)
    assert not stopped.willing
    again = decide(stopped, READY, LIMITS, now=NIGHT + 2 * MINUTE)
    assert not again.willing
    assert decide(again, READY, LIMITS, now=NIGHT + 6 * MINUTE).willing


def test_a_busy_charger_stops_compute_at_once_and_it_comes_back_when_things_have_settled() -> None:
    started = decide(Latch(), READY, LIMITS, now=NIGHT)
    busy = replace(READY, signals={**PARKED, CURRENT_MAX: 0.0})
    stopped = decide(started, busy, LIMITS, now=NIGHT + MINUTE)
    assert not stopped.willing
    assert not decide(stopped, READY, LIMITS, now=NIGHT + 5 * MINUTE).willing
    assert decide(stopped, READY, LIMITS, now=NIGHT + 6 * MINUTE).willing


def test_an_unwilling_car_always_knows_its_newest_reason() -> None:
    first = decide(Latch(), says(Speed=50.0), LIMITS, now=NIGHT)
    assert first.why_not is not None
    assert first.why_not.reason == "driving"
    second = decide(first, says(IsChargingCableConnected=False), LIMITS, now=NIGHT + MINUTE)
    assert second.why_not is not None
    assert second.why_not.reason == "unplugged"


readings = st.sampled_from(
    [
        READY,
        says(IsChargingCableConnected=False),
        says(Speed=30.0),
        says(Average=50.0),
        replace(READY, reserve_soc=0.95),
        replace(READY, signals={**PARKED, CURRENT_MAX: 0.0}),
        replace(READY, consent=False),
        NOTHING_KNOWN,
    ]
)


@given(st.lists(st.tuples(readings, st.integers(1, 400)), max_size=60))
def test_a_car_starts_five_minutes_after_its_last_change_and_stops_at_once(looks: list[tuple[Reading, int]]) -> None:
    latch, now, changed_at = Latch(), NIGHT, None
    for reading, seconds in looks:
        now += timedelta(seconds=seconds)
        before, latch = latch, decide(latch, reading, LIMITS, now=now)
        if why_not(reading, LIMITS, computing=before.willing) is not None:
            assert not latch.willing
        if latch.willing:
            assert latch.why_not is None
        if latch.willing == before.willing:
            continue
        assert changed_at is None or not latch.willing or now - changed_at >= LIMITS.settle
        changed_at = now
