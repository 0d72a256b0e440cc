"""The two tables the room reads, as columns of numbers: past stays, and moments that ask for a forecast. Pure."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.units import CLOUD_CAR
from fleetbatch.windows.clock import THURSDAY, BoolArray, FloatArray, IntArray, Named, Zones, days_off, hours, wall_h

DAY_CUT_H: Final = 4.0
"""A logical day begins at 04:00 local: an evening and the morning after belong together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugs:
    """Where each stay's start lies in its habits: one row per stay or moment."""

    day_start_h: FloatArray
    """Wall time of the logical day's start."""
    clock_h: FloatArray
    """Hours from there to the plug-in."""
    free_next: BoolArray
    """The next calendar day is a day off."""
    weekday: IntArray
    """Of the logical day; Monday is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Stays by what is known from their start on, one row each; instants in hours since 1970, unknown is NaN."""

    car: npt.NDArray[np.uint64]
    begin_h: FloatArray
    zones: Zones
    sites: Named
    """Coarsely where; empty when unknown."""
    soc: FloatArray
    """State of charge at the plug-in, 0 to 1."""
    complete_at_h: FloatArray
    """When charging ended by itself; only what lies before a moment may be used at it."""
    departure_at_h: FloatArray
    """As the owner stated it first."""
    trip_at_h: FloatArray
    stated_at_h: FloatArray
    """When that was heard; unknown means from the start."""

    def __len__(self) -> int:
        """Return the number of stays."""
        return len(self.begin_h)

    def take(self, rows: IntArray) -> "Started":
        """Return some of the stays."""
        return Started(
            car=self.car[rows],
            begin_h=self.begin_h[rows],
            zones=self.zones.take(rows),
            sites=self.sites.take(rows),
            soc=self.soc[rows],
            complete_at_h=self.complete_at_h[rows],
            departure_at_h=self.departure_at_h[rows],
            trip_at_h=self.trip_at_h[rows],
            stated_at_h=self.stated_at_h[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stays:
    """Stays sorted by car, then by their end; open ones stand apart, with the instant until which they were seen.

    `starts[c]:starts[c + 1]` are the closed stays of car `cars[c]`.
    """

    cars: npt.NDArray[np.uint64]
    starts: IntArray
    closed: Started
    end_h: FloatArray
    plugs: Plugs
    lasted_h: FloatArray
    left_clock_h: FloatArray
    """Hours from the start of the plug-in's logical day to the departure, by the local clock."""
    left_free: BoolArray
    """The local day of the departure was a day off."""
    open: Started
    open_seen_h: FloatArray
    open_plugs: Plugs
    known_at_h: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Moments at which a forecast is asked: running stays and an instant each, nothing later."""

    stay: Started
    now_h: FloatArray

    def __len__(self) -> int:
        """Return the number of moments."""
        return len(self.now_h)

    @property
    def elapsed_h(self) -> FloatArray:
        """How long the stay has lasted."""
        return self.now_h - self.stay.begin_h

    def take(self, rows: IntArray) -> "Moments":
        """Return some of the moments."""
        return Moments(stay=self.stay.take(rows), now_h=self.now_h[rows])


def plugs(begin_h: FloatArray, zones: Zones) -> Plugs:
    """Place plug-ins in their logical day."""
    wall = wall_h(begin_h, zones)
    day = np.floor((wall - DAY_CUT_H) / 24.0).astype(np.int64)
    start: FloatArray = day * 24.0 + DAY_CUT_H
    return Plugs(
        day_start_h=start,
        clock_h=wall - start,
        free_next=days_off(day + 1, zones),
        weekday=(day + THURSDAY) % 7,
    )


def read_stays(table: pa.Table, now: datetime) -> Stays:
    """Return what was known of the stays at `now`: later starts are unknown, later ends make an open stay.

    Raises RejectedError when the table breaks contract `stays` or names an unknown time zone.
    """
    frame = _known(pl.from_arrow(conform(table, "stays")), now.astimezone(UTC))
    ended = frame.filter(pl.col("unplugged_at").is_not_null()).sort("car_id", "unplugged_at", "plugged_in_at")
    still = frame.filter(pl.col("unplugged_at").is_null()).sort("car_id", "plugged_in_at")
    closed, end, ongoing = _started(ended), _hours(ended, "unplugged_at"), _started(still)
    placed, left = plugs(closed.begin_h, closed.zones), wall_h(end, closed.zones)
    cars, counts = np.unique(closed.car, return_counts=True)
    return Stays(
        cars=cars,
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        closed=closed,
        end_h=end,
        plugs=placed,
        lasted_h=end - closed.begin_h,
        left_clock_h=left - placed.day_start_h,
        left_free=days_off(np.floor(left / 24.0).astype(np.int64), closed.zones),
        open=ongoing,
        open_seen_h=np.maximum(_hours(still, "seen_until"), ongoing.begin_h),
        open_plugs=plugs(ongoing.begin_h, ongoing.zones),
        known_at_h=hours(now),
    )


def read_moments(table: pa.Table, now: datetime) -> Moments:
    """Return one moment, `now`, for each plugged-in car in the order of the table.

    Raises RejectedError when the table breaks contract `plugged`: columns that tell an outcome are not in it.
    """
    frame = pl.from_arrow(conform(table, "plugged"))
    assert isinstance(frame, pl.DataFrame)
    begun = pl.min_horizontal("plugged_in_at", pl.lit(now.astimezone(UTC)))
    stay = _started(frame.with_columns(plugged_in_at=begun, stated_at=pl.lit(None, pl.Datetime("us", "UTC"))))
    return Moments(stay=stay, now_h=np.full(len(stay), hours(now)))


def without_habits(moments: Moments, table: pa.Table) -> Moments:
    """Return the moments with nobody's past for the cars of contract `plugged` whose habits may not be used."""
    habits = pl.DataFrame(conform(table, "plugged").select(["habits"]))["habits"].fill_null(value=True).to_numpy()
    nobody = np.uint64(CLOUD_CAR)  # is no car and never stands anywhere
    return replace(moments, stay=replace(moments.stay, car=np.where(habits, moments.stay.car, nobody)))


def _known(frame: pl.DataFrame | pl.Series, now: datetime) -> pl.DataFrame:
    assert isinstance(frame, pl.DataFrame)
    over = pl.col("unplugged_at") <= now
    return frame.filter(pl.col("plugged_in_at") <= now).with_columns(
        unplugged_at=pl.when(over).then("unplugged_at"),
        seen_until=pl.min_horizontal(pl.col("seen_until").fill_null(now), pl.lit(now)),
    )


def _started(frame: pl.DataFrame) -> Started:
    return Started(
        car=frame["car_id"].to_numpy(),
        begin_h=_hours(frame, "plugged_in_at"),
        zones=_named(frame["timezone"]),
        sites=_named(frame["site_id"].fill_null("")),
        soc=frame["soc_at_plug_in"].cast(pl.Float64).to_numpy(),
        complete_at_h=_hours(frame, "charge_complete_at"),
        departure_at_h=_hours(frame, "departure_at"),
        trip_at_h=_hours(frame, "next_trip_at"),
        stated_at_h=_hours(frame, "stated_at"),
    )


def _named(column: pl.Series) -> Named:
    names = column.unique().sort()
    codes = column.replace_strict(names, pl.int_range(len(names), eager=True), return_dtype=pl.Int64)
    return Named(names=tuple(names), codes=codes.to_numpy())


def _hours(frame: pl.DataFrame, column: str) -> FloatArray:
    """Return a column of instants as hours since 1970; null is NaN."""
    return frame[column].dt.epoch("us").cast(pl.Float64).to_numpy() / 3.6e9
