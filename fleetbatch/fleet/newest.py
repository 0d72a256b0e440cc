"""Each car's newest word, and since when it has been plugged in. Pure: a fold over telemetry files."""

from datetime import timedelta

import polars as pl
import pyarrow as pa

from fleetbatch.contracts import conform, empty

PLUGGED = "Vehicle.Powertrain.TractionBattery.Charging.IsChargingCableConnected"
SILENCE_ENDS_STAY = timedelta(hours=6)
"""A car heard plugged in before and after a longer silence is taken to have been away in between."""


def nothing_heard() -> pl.DataFrame:
    """Return the state before the first telemetry file: signals plus `plugged_in_at`, no rows."""
    return _stateless(empty("signals"))


def fold(newest: pl.DataFrame, fresh: pa.Table) -> pl.DataFrame:
    """Return the state after `fresh` (contract signals, any order): one row a car, in order of car_id.

    `plugged_in_at` is the first instant of the unbroken plugged-in run that ends in the car's newest row, null when
    that row does not say plugged in. Raises RejectedError when `fresh` breaks its contract.
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
    begun = pl.when(plugged & ~goes_on).then(pl.coalesce("plugged_in_at", "at"))
    return (
        rows.with_columns(plugged_in_at=begun.forward_fill().over("car_id"))
        .with_columns(plugged_in_at=pl.when(plugged).then("plugged_in_at"))
        .group_by("car_id", maintain_order=True)
        .last()
    )


def _stateless(signals: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(signals)
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(plugged_in_at=pl.lit(None, pl.Datetime("us", "UTC")))
