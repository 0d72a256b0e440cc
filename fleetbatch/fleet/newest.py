"""Each car's newest word, and what its running stay began with. Pure: a fold over telemetry files."""

from datetime import timedelta

import polars as pl
import pyarrow as pa

from fleetbatch.contracts import conform, empty
from fleetbatch.units import FULL_PERCENT

PLUGGED = "Vehicle.Powertrain.TractionBattery.Charging.IsChargingCableConnected"
_CHARGING = "Vehicle.Powertrain.TractionBattery.Charging.IsCharging"
_SOC = "Vehicle.Powertrain.TractionBattery.StateOfCharge.Current"
SILENCE_ENDS_STAY = timedelta(hours=6)
"""A car heard plugged in before and after a longer silence is taken to have been away in between."""


def nothing_heard() -> pl.DataFrame:
    """Return the state before the first telemetry file: signals and what is known of stays, no rows."""
    return _stateless(empty("signals"))


def fold(newest: pl.DataFrame, fresh: pa.Table) -> pl.DataFrame:
    """Return the state after `fresh` (contract signals, any order): one row a car, in order of car_id.

    `plugged_in_at` is the first instant of the unbroken plugged-in run that ends in the car's newest row, and
    `soc_at_plug_in` and `charge_complete_at` are the first of their kind in it; null when that row does not say plugged
    in. Raises RejectedError when `fresh` breaks its contract.
    """
    if fresh.num_rows == 0:
        return newest
    rows = pl.concat([newest, _stateless(conform(fresh, "signals"))]).sort("car_id", "at", maintain_order=True)
    plugged = pl.col(PLUGGED).fill_null(value=False)
    goes_on = (
        plugged.shift(1).over("car_id").fill_null(value=False)
        & (pl.col("at").diff().over("car_id") <= SILENCE_ENDS_STAY)
        & pl.col("plugged_in_at").is_null()
    )
    full = plugged & ~pl.col(_CHARGING) & (pl.col(_SOC) >= FULL_PERCENT)
    firsts = {
        "plugged_in_at": pl.coalesce("plugged_in_at", "at"),
        "soc_at_plug_in": pl.coalesce("soc_at_plug_in", pl.col(_SOC) / 100.0),
        "charge_complete_at": pl.coalesce("charge_complete_at", pl.when(full).then("at")),
    }
    run = pl.struct("car_id", (plugged & ~goes_on).cum_sum().over("car_id"))
    return (
        rows.with_columns(_plugged=plugged, _run=run)
        .with_columns(pl.when("_plugged").then(first).alias(name) for name, first in firsts.items())
        .with_columns(pl.col(name).drop_nulls().first().over("_run") for name in firsts)
        .with_columns(pl.when("_plugged").then(name).alias(name) for name in firsts)
        .drop("_plugged", "_run")
        .group_by("car_id", maintain_order=True)
        .last()
    )


def _stateless(signals: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(signals)
    assert isinstance(frame, pl.DataFrame)
    instant = pl.lit(None, pl.Datetime("us", "UTC"))
    return frame.with_columns(
        plugged_in_at=instant, soc_at_plug_in=pl.lit(None, pl.Float64), charge_complete_at=instant
    )
