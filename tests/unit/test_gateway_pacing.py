"""When cars come back: the server sets the load by the interval that it tells them."""

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from fleetbatch.gateway.dials import Dials
from fleetbatch.gateway.pacing import (
    Allowance,
    beat_every_s,
    gather_s,
    next_pressure,
    pressure_holding,
    unheard_s,
    wait_s,
)
from fleetbatch.gateway.problems import Kind, ProblemError


@given(chance=st.floats(0, 1, exclude_max=True), pressure=st.floats(1, 16))
def test_a_wait_is_the_interval_times_the_pressure_within_the_jitter(chance: float, pressure: float) -> None:
    dials = Dials(poll_every=timedelta(seconds=30), jitter=0.2)
    assert 23.99 * pressure <= wait_s(dials, pressure=pressure, chance=chance) <= 36.01 * pressure


def test_a_car_that_may_hold_a_lease_is_never_sent_away_for_long() -> None:
    dials = Dials()
    longest, lease_s = wait_s(dials, pressure=pressure_holding(dials), chance=0.999), dials.lease_for.total_seconds()
    assert longest * 6 < lease_s < wait_s(dials, pressure=dials.pressure_max, chance=0.999) * 1.1


@given(late_s=st.floats(0, 9.999), asked=st.integers(2, 5))
def test_a_caller_that_comes_again_when_it_was_told_to_is_heard(late_s: float, asked: int) -> None:
    began = datetime(2026, 11, 22, 20, tzinfo=UTC)
    allowance, now = Allowance[str](1, now=began), began + timedelta(seconds=late_s)
    over_s = max(allowance.left_s("car", now=now) for _ in range(asked))
    [told_s] = [
        int(value)
        for name, value in ProblemError(Kind.TOO_MANY_REQUESTS, "", retry_after_s=over_s).reply().headers
        if name == b"retry-after"
    ]
    assert allowance.left_s("car", now=now + timedelta(seconds=told_s)) == 0


def test_questions_are_collected_for_longer_the_busier_the_gateway_is_and_never_for_long() -> None:
    dials = Dials(gather_for=timedelta(milliseconds=2), gather_busy_for=timedelta(milliseconds=10), busy_least=0.6)
    spans_ms = [round(1000 * gather_s(dials, busy=busy), 3) for busy in (0.0, 0.3, 0.6, 1.5)]
    assert spans_ms == [2.0, 6.0, 10.0, 10.0]


def test_pressure_doubles_while_behind_and_eases_in_idleness() -> None:
    dials = Dials(pressure_max=4.0)
    late, fine = timedelta(seconds=1), timedelta()
    seen = [1.0]
    for how in (late, late, late):
        seen.append(next_pressure(seen[-1], late=how, busy=0.0, dials=dials))
    assert seen == [1.0, 2.0, 4.0, 4.0]
    eased = itertools.accumulate(
        range(100), lambda p, _: next_pressure(p, late=fine, busy=0.0, dials=dials), initial=4.0
    )
    told = list(eased)
    assert told == sorted(told, reverse=True)
    assert told[-1] == 1.0


def test_pressure_grows_while_little_of_the_core_is_left_and_stays_where_enough_is() -> None:
    dials, pressure = Dials(busy_least=0.6, busy_most=0.75), 1.0
    for _ in range(140):
        pressure = next_pressure(pressure, late=timedelta(), busy=0.9, dials=dials)
    assert pressure > 15.9
    assert next_pressure(pressure, late=timedelta(), busy=0.7, dials=dials) == pressure
    assert next_pressure(pressure, late=timedelta(), busy=0.5, dials=dials) < pressure


@given(pressure=st.floats(1, 16), lease_s=st.floats(1, 1e4), beat_s=st.floats(0.1, 60))
def test_beats_come_less_often_under_pressure_and_still_several_times_a_lease(
    pressure: float, lease_s: float, beat_s: float
) -> None:
    dials = Dials(lease_for=timedelta(seconds=lease_s), beat_every=timedelta(seconds=beat_s))
    told = beat_every_s(dials, pressure=pressure)
    assert told >= beat_s * 0.999
    assert told <= max(beat_s, lease_s / 8) * 1.001
    assert told <= beat_s * pressure * 1.001


def test_an_idle_car_is_never_sent_away_for_longer_than_the_dial_says() -> None:
    dials = Dials(poll_every=timedelta(minutes=5), poll_longest=timedelta(minutes=10), jitter=0.0)
    assert wait_s(dials, pressure=16.0, chance=0.5) == 600.0


@given(pressure=st.floats(1, 16))
def test_cars_that_were_sent_away_unheard_come_back_all_over_the_interval(pressure: float) -> None:
    dials = Dials()
    longest_s = dials.poll_every.total_seconds() * pressure
    waits = [unheard_s(dials, pressure=pressure, chance=n / 100) for n in range(100)]
    assert min(waits) == 1.0
    for part in range(4):
        quarter = [one for one in waits if part <= 4 * one / longest_s < part + 1]
        assert 20 <= len(quarter) <= 30
