"""A generated past of commuters, homebodies and holidays, for a laptop whose cars have none. Pure and seeded.

A car's habits follow from the seed and its id alone, so that a car keeps them whatever the others are.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.windows.clock import SATURDAY, THURSDAY, BoolArray, FloatArray, IntArray, Zones, days_off, hours, wall_h

HOMEBODIES: Final = 0.35
"""Share of cars that have no commute."""
TRAVELLERS: Final = 0.4
"""Share of cars that are away on public holidays."""
SHORT: Final = 0.15
"""Share of stays that end before the night."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Habit:
    """How one car lives: clocks are hours of the local day, spreads standard deviations."""

    plug_in_clock: float
    leave_clock: float
    leave_spread: float
    nights_per_week: float
    leaves_late_when_free: float
    away_on_holidays: bool


def generate_stays(cars: pa.Table, *, until: datetime, days: int, seed: int) -> pa.Table:
    """Return contract `stays`: what the cars (columns `car_id`, `timezone`) did in the `days` before `until`.

    Stays that go on at `until` are open. EV homes plug in two or three times a week; commuters leave between six
    and eight on working days and late on free ones; homebodies leave around noon, sometimes a day later.
    """
    rows = pl.DataFrame(cars.select(["car_id", "timezone"])).rows()
    zone_names = tuple(sorted({zone for _, zone in rows}))
    parts = [_one_car(car, zone, zone_names, (until, days, seed)) for car, zone in rows]
    return conform(pa.concat_tables(parts) if parts else _table(0, "UTC", np.zeros(0), np.zeros(0)), "stays")


def _one_car(car: int, zone: str, zone_names: tuple[str, ...], span: tuple[datetime, int, int]) -> pa.Table:
    until, days, seed = span
    chance = np.random.default_rng([seed, car])
    habit = _habit(chance)
    first = int(hours(until) // 24) - days
    day = np.arange(first, first + days + 1)
    code = np.full(len(day), zone_names.index(zone), dtype=np.int64)
    zones = Zones(names=zone_names, codes=code)
    free = days_off(day + 1, zones)
    begin_wall, end_wall = _nights(habit, day, free, chance)
    shift = wall_h(begin_wall, zones) - begin_wall
    begin_h, end_h = begin_wall - shift, end_wall - shift
    wanted = chance.random(len(day)) < habit.nights_per_week / 7.0
    wanted &= ~(free & habit.away_on_holidays & ((day + 1 + THURSDAY) % 7 < SATURDAY))
    return _table(car, zone, *_apart(begin_h[wanted], end_h[wanted], hours(until)))


def _habit(chance: np.random.Generator) -> _Habit:
    commutes = chance.random() >= HOMEBODIES
    return _Habit(
        plug_in_clock=chance.normal(17.5 if commutes else 15.0, 1.2),
        leave_clock=chance.normal(7.2, 0.6) if commutes else chance.normal(11.5, 1.5),
        leave_spread=0.35 if commutes else 2.0,
        nights_per_week=chance.uniform(2.0, 4.0),
        leaves_late_when_free=chance.uniform(1.5, 5.0) if commutes else 0.5,
        away_on_holidays=bool(chance.random() < TRAVELLERS),
    )


def _nights(
    habit: _Habit, day: IntArray, free: BoolArray, chance: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return each day's plug-in and departure in wall time, were the car plugged in."""
    count = len(day)
    begin = day * 24.0 + np.clip(chance.normal(habit.plug_in_clock, 1.3, count), 8.0, 23.5)
    leave = habit.leave_clock + free * habit.leaves_late_when_free + chance.normal(0, habit.leave_spread, count)
    stays_on = chance.random(count) < (0.05 + 0.15 * free)
    end = day * 24.0 + 24.0 + np.clip(leave, 4.5, 20.0) + 24.0 * stays_on
    short = chance.random(count) < SHORT
    return begin, np.where(short, begin + chance.uniform(0.5, 3.0, count), end)


def _apart(begin_h: FloatArray, end_h: FloatArray, until_h: float) -> tuple[FloatArray, FloatArray]:
    """Drop stays that begin before the one before has ended, or after `until`; open ends are NaN."""
    latest = np.concatenate([[-np.inf], np.maximum.accumulate(end_h)[:-1]]) if len(end_h) else end_h
    kept = (begin_h > latest + 0.5) & (begin_h <= until_h)
    begin, end = begin_h[kept], end_h[kept]
    return begin, np.where(end <= until_h, end, np.nan)


def _table(car: int, zone: str, begin_h: FloatArray, end_h: FloatArray) -> pa.Table:
    def instants(at_h: FloatArray) -> "pa.Array[Any]":
        unknown = np.isnan(at_h)
        micros = np.where(unknown, 0, np.round(at_h * 60) * 60e6).astype(np.int64)
        return pa.array(micros, mask=unknown).cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))

    return pa.table(
        {
            "car_id": pa.array(np.full(len(begin_h), car, dtype=np.uint64)),
            "plugged_in_at": instants(begin_h),
            "unplugged_at": instants(end_h),
            "timezone": pa.array([zone] * len(begin_h), pa.string()),
        }
    )
