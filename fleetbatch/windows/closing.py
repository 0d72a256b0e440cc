"""Stays from what cars said: a stay opens when the cable is in, closes when it is out. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import polars as pl
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.units import FULL_PERCENT

CABLE: Final = "Vehicle.Powertrain.TractionBattery.Charging.IsChargingCableConnected"
CHARGING: Final = "Vehicle.Powertrain.TractionBattery.Charging.IsCharging"
SOC: Final = "Vehicle.Powertrain.TractionBattery.StateOfCharge.Current"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """What became of the stays: both in contract `stays`."""

    closed: pa.Table
    """Stays that ended, each with its end."""
    open: pa.Table
    """Stays that go on, or whose car fell silent: `seen_until` is the last sign of them."""


def close_stays(
    open_stays: pa.Table, signals: pa.Table, cars: pa.Table, *, now: datetime, silence: timedelta = timedelta(days=3)
) -> Closed:
    """Carry open stays forward through newer signals (contract `signals`, any order); run twice, the same answer.

    `cars` has `car_id`, `timezone` and perhaps `site_id`; signals of other cars are ignored. A stay of which
    nothing was heard for `silence` is dropped from the open ones: its end is unknown, and it is never guessed.
    Raises RejectedError when a table breaks its contract.
    """
    heard = _heard(signals, cars, now)
    carried = _frame(conform(open_stays, "stays"))
    marks = pl.concat([_as_marks(carried), heard]).sort("car_id", "at", maintain_order=True)
    changed = (pl.col("cable") != pl.col("cable").shift(1).over("car_id")).fill_null(value=True)
    stretch = marks.with_columns(stretch=changed.cast(pl.Int64).cum_sum().over("car_id"))
    spans = stretch.group_by("car_id", "stretch").agg(
        plugged=pl.col("cable").first(),
        plugged_in_at=pl.col("at").min(),
        seen_until=pl.col("at").max(),
        charge_complete_at=pl.col("complete_at").min(),
        soc_at_plug_in=pl.col("soc").drop_nulls().first(),
        departure_at=pl.col("departure_at").drop_nulls().first(),
        next_trip_at=pl.col("next_trip_at").drop_nulls().first(),
        stated_at=pl.coalesce(_first_heard("departure_at"), _first_heard("next_trip_at")),
    )
    spans = spans.sort("car_id", "stretch").with_columns(
        unplugged_at=pl.col("plugged_in_at").shift(-1).over("car_id"),
    )
    known = pl.DataFrame(cars.select([c for c in ("car_id", "timezone", "site_id") if c in cars.column_names]))
    stays = spans.filter("plugged").join(known, on="car_id", how="inner").sort("car_id", "plugged_in_at")
    ended = pl.col("unplugged_at").is_not_null()
    alive = pl.col("seen_until") >= now - silence
    return Closed(closed=_table(stays.filter(ended)), open=_table(stays.filter(~ended & alive)))


def _first_heard(statement: str) -> pl.Expr:
    """Return when a stretch first heard a statement; later ones are not kept: they know more than the owner did."""
    return pl.coalesce("stated_at", "at").filter(pl.col(statement).is_not_null()).min()


def _heard(signals: pa.Table, cars: pa.Table, now: datetime) -> pl.DataFrame:
    """Return what each signal says of the cable, oldest first; signals without the cable say nothing."""
    frame = _frame(conform(signals, "signals"))
    frame = frame.filter(
        pl.col(CABLE).is_not_null()
        & (pl.col("at") <= now)
        & pl.col("car_id").is_in(pl.Series(cars["car_id"]).implode())
    )
    full = ~pl.col(CHARGING) & (pl.col(SOC) >= FULL_PERCENT)
    return frame.select(
        "car_id",
        "at",
        cable=CABLE,
        complete_at=pl.when(full).then("at"),
        soc=pl.col(SOC) / 100.0,
        departure_at="departure_at",
        next_trip_at="next_trip_at",
        stated_at=pl.lit(None, pl.Datetime("us", "UTC")),
    )


def _as_marks(carried: pl.DataFrame) -> pl.DataFrame:
    """Return open stays as two marks each, their start and their last sign."""
    common = (pl.col("charge_complete_at").alias("complete_at"), pl.col("soc_at_plug_in").alias("soc"))
    rest = (*common, pl.col("departure_at"), pl.col("next_trip_at"), pl.col("stated_at"))
    cable = pl.lit(value=True).alias("cable")
    start = carried.select("car_id", pl.col("plugged_in_at").alias("at"), cable, *rest)
    last = carried.select("car_id", pl.coalesce("seen_until", "plugged_in_at").alias("at"), cable, *rest)
    return pl.concat([start, last])


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _table(stays: pl.DataFrame) -> pa.Table:
    return conform(stays.drop("stretch", "plugged").to_arrow(), "stays")
