"""Stays are closed from the signals that gateways heard."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa

from fleetbatch.contracts import conform, contract, empty
from fleetbatch.windows.closing import CABLE, CHARGING, SOC, Closed, close_stays

EVENING = datetime(2026, 11, 24, 18, tzinfo=UTC)
CARS = pa.table({"car_id": pa.array([1, 2], pa.uint64()), "timezone": ["Europe/Oslo", "Europe/Paris"]})


def heard(*signals: tuple[int, float, bool], charging: bool = True, soc: float = 50.0, **told: Any) -> pa.Table:
    plain: dict[str, Any] = {"willing": True, "hardware_class": "small", "provider": "CPU", "threads": 1}
    plain |= {"memory_bytes": 1, "power_w": 1.0, "link_down_bytes_per_s": 0.0, "reserve_soc": 0.2}
    plain |= {"cached_models": [], "runner_version": "0", CHARGING: charging, SOC: soc, **told}
    rows = [
        plain | {"car_id": car, "at": EVENING + timedelta(hours=after), CABLE: cable} for car, after, cable in signals
    ]
    if not rows:
        return empty("signals")
    schema = contract("signals").schema
    return conform(
        pa.Table.from_pylist([{name: r.get(name) for name in schema.names} for r in rows], schema), "signals"
    )


def close(open_stays: pa.Table, signals: pa.Table, *, after: float) -> Closed:
    return close_stays(open_stays, signals, CARS, now=EVENING + timedelta(hours=after))


def test_a_stay_opens_with_the_cable_and_closes_without_it() -> None:
    done = close(empty("stays"), heard((1, 0, True), (1, 2, True), (1, 3, False), (2, 1, True)), after=4)
    [closed], [still] = done.closed.to_pylist(), done.open.to_pylist()
    assert (closed["car_id"], closed["plugged_in_at"]) == (1, EVENING)
    assert closed["unplugged_at"] == EVENING + timedelta(hours=3)
    assert (still["car_id"], still["timezone"], still["unplugged_at"]) == (2, "Europe/Paris", None)


def test_an_open_stay_is_carried_from_day_to_day() -> None:
    monday = close(empty("stays"), heard((1, 0, True), (1, 5, True)), after=6)
    tuesday = close(monday.open, heard((1, 20, True), (1, 30, False)), after=31)
    [closed] = tuesday.closed.to_pylist()
    assert closed["plugged_in_at"] == EVENING
    assert closed["unplugged_at"] == EVENING + timedelta(hours=30)
    assert tuesday.open.num_rows == 0


def test_the_order_of_signals_changes_nothing_and_twice_is_once() -> None:
    signals = heard((1, 0, True), (1, 2, False), (1, 3, True), (2, 1, True), (2, 6, False))
    once = close(empty("stays"), signals, after=7)
    assert once == close(empty("stays"), signals.take([4, 2, 0, 3, 1]), after=7)
    assert once.open == close(once.open, heard((1, 3, True)), after=7).open


def test_a_car_that_fell_silent_is_never_given_an_end() -> None:
    done = close(empty("stays"), heard((1, 0, True), (1, 1, True)), after=100)
    assert done.closed.num_rows == done.open.num_rows == 0


def test_charge_complete_is_the_first_time_charging_stopped_when_full() -> None:
    signals = pa.concat_tables([heard((1, 0, True)), heard((1, 2, True), (1, 3, True), charging=False, soc=80.0)])
    [still] = close(empty("stays"), signals, after=4).open.to_pylist()
    assert still["charge_complete_at"] == EVENING + timedelta(hours=2)
    assert still["soc_at_plug_in"] == 0.5


def test_signals_of_strangers_and_without_the_cable_say_nothing() -> None:
    signals = pl.DataFrame(heard((1, 0, True))).with_columns(pl.lit(None, pl.Boolean).alias(CABLE)).to_arrow()
    done = close(empty("stays"), pa.concat_tables([conform(signals, "signals"), heard((77, 0, True))]), after=1)
    assert done.open.num_rows == 0


def test_the_first_statement_of_a_stay_is_kept_with_the_time_at_which_it_was_heard() -> None:
    seven, nine = EVENING + timedelta(hours=13), EVENING + timedelta(hours=15)
    signals = pa.concat_tables(
        [heard((1, 0, True)), heard((1, 2, True), departure_at=nine), heard((1, 12, True), departure_at=seven)]
    )
    [still] = close(empty("stays"), signals, after=12).open.to_pylist()
    assert (still["departure_at"], still["stated_at"]) == (nine, EVENING + timedelta(hours=2))
    [closed] = close(close(empty("stays"), signals, after=3).open, heard((1, 13, False)), after=14).closed.to_pylist()
    assert (closed["departure_at"], closed["stated_at"]) == (nine, EVENING + timedelta(hours=2))


def test_a_trip_is_kept_beside_a_departure_and_tells_when_it_was_heard_if_alone() -> None:
    trip = EVENING + timedelta(hours=14)
    [still] = close(empty("stays"), heard((1, 1, True), next_trip_at=trip), after=2).open.to_pylist()
    assert (still["next_trip_at"], still["stated_at"]) == (trip, EVENING + timedelta(hours=1))
