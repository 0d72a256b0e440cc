"""The two tables the room reads, as columns of numbers: past stays, and moments that ask for a forecast. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.windows.clock import BoolArray, FloatArray, IntArray, Zones, days_off, hours, wall_h

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
class Stays:
    """Stays sorted by car, then by their end; open ones carry the instant until which they were seen.

    `starts[c]:starts[c + 1]` are the closed stays of car `cars[c]`; open stays stand apart in `open`.
    """

    cars: npt.NDArray[np.uint64]
    starts: IntArray
    begin_h: FloatArray
    end_h: FloatArray
    left_clock_h: FloatArray
    """Hours from the start of the plug-in's logical day to the departure, by the local clock."""
    site: IntArray
    plugs: Plugs
    open_begin_h: FloatArray
    open_seen_h: FloatArray
    open_plugs: Plugs
    open_site: IntArray
    site_names: tuple[str, ...]
    known_at_h: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Moments at which a forecast is asked: a running stay and an instant, nothing later."""

    car: npt.NDArray[np.uint64]
    begin_h: FloatArray
    now_h: FloatArray
    zones: Zones
    site: IntArray
    soc: FloatArray
    """NaN when unknown, as in the three that follow."""
    complete: FloatArray
    stated_h: FloatArray
    """Hours from now to the stated departure."""
    trip_h: FloatArray

    def __len__(self) -> int:
        """Return the number of moments."""
        return len(self.begin_h)


def plugs(begin_h: FloatArray, zones: Zones) -> Plugs:
    """Place plug-ins in their logical day."""
    wall = wall_h(begin_h, zones)
    day = np.floor((wall - DAY_CUT_H) / 24.0).astype(np.int64)
    start: FloatArray = day * 24.0 + DAY_CUT_H
    return Plugs(
        day_start_h=start,
        clock_h=wall - start,
        free_next=days_off(day + 1, zones),
        weekday=(day + 3) % 7,
    )


def read_stays(table: pa.Table, now: datetime) -> Stays:
    """Return what was known of the stays at `now`: later starts are unknown, later ends make an open stay.

    Raises RejectedError when the table breaks contract `stays` or names an unknown time zone.
    """
    frame = _known(pl.from_arrow(conform(table, "stays")), now.astimezone(UTC))
    sites = tuple(sorted(frame["site_id"].drop_nulls().unique()))
    closed = frame.filter(pl.col("unplugged_at").is_not_null()).sort("car_id", "unplugged_at", "plugged_in_at")
    still = frame.filter(pl.col("unplugged_at").is_null()).sort("car_id", "plugged_in_at")
    begin, end, zones = _hours(closed, "plugged_in_at"), _hours(closed, "unplugged_at"), _zones(closed)
    placed = plugs(begin, zones)
    cars, counts = np.unique(closed["car_id"].to_numpy(), return_counts=True)
    open_begin = _hours(still, "plugged_in_at")
    return Stays(
        cars=cars,
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        begin_h=begin,
        end_h=end,
        left_clock_h=wall_h(end, zones) - placed.day_start_h,
        site=_codes(closed["site_id"], sites),
        plugs=placed,
        open_begin_h=open_begin,
        open_seen_h=np.maximum(_hours(still, "seen_until"), open_begin),
        open_plugs=plugs(open_begin, _zones(still)),
        open_site=_codes(still["site_id"], sites),
        site_names=sites,
        known_at_h=hours(now),
    )


def read_moments(table: pa.Table, now: datetime, stays: Stays) -> Moments:
    """Return one moment, `now`, for each plugged-in car in the order of the table.

    Raises RejectedError when the table breaks contract `plugged`: columns that tell an outcome are not in it.
    """
    frame = pl.from_arrow(conform(table, "plugged"))
    assert isinstance(frame, pl.DataFrame)
    now_h = np.full(len(frame), hours(now))
    return Moments(
        car=frame["car_id"].to_numpy(),
        begin_h=np.minimum(_hours(frame, "plugged_in_at"), now_h),
        now_h=now_h,
        zones=_zones(frame),
        site=_codes(frame["site_id"], stays.site_names),
        soc=frame["soc"].to_numpy(),
        complete=frame["charge_complete"].cast(pl.Float64).to_numpy(),
        stated_h=_hours(frame, "departure_at") - now_h,
        trip_h=_hours(frame, "next_trip_at") - now_h,
    )


def _known(frame: pl.DataFrame | pl.Series, now: datetime) -> pl.DataFrame:
    assert isinstance(frame, pl.DataFrame)
    over = pl.col("unplugged_at") <= now
    return frame.filter(pl.col("plugged_in_at") <= now).with_columns(
        unplugged_at=pl.when(over).then("unplugged_at"),
        seen_until=pl.min_horizontal(pl.col("seen_until").fill_null(now), pl.lit(now)),
    )


def _hours(frame: pl.DataFrame, column: str) -> FloatArray:
    """Return a column of instants as hours since 1970; null is NaN."""
    return frame[column].dt.epoch("us").cast(pl.Float64).to_numpy() / 3.6e9


def _zones(frame: pl.DataFrame) -> Zones:
    names = tuple(sorted(frame["timezone"].unique()))
    return Zones(names=names, codes=_codes(frame["timezone"], names))


def _codes(column: pl.Series, names: tuple[str, ...]) -> IntArray:
    """Return each name's place in `names`; -1 when null or unknown."""
    places = {name: place for place, name in enumerate(names)}
    return column.replace_strict(places, default=-1, return_dtype=pl.Int64).fill_null(-1).to_numpy()
