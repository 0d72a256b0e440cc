"""Each car's newest word, and what its running stay began with. Pure: a fold over telemetry files.

Of a car whose owner does not consent to telemetry the gateway keeps nothing of the vehicle. Work does not hang on that
consent: such a car is taken by its own word, and its stay begins when it first says that it is willing.
"""

from datetime import timedelta
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from fleetbatch.contracts import conform, empty
from fleetbatch.units import FULL_PERCENT

PLUGGED = "Vehicle.Powertrain.TractionBattery.Charging.IsChargingCableConnected"
_CHARGING = "Vehicle.Powertrain.TractionBattery.Charging.IsCharging"
_SOC = "Vehicle.Powertrain.TractionBattery.StateOfCharge.Current"
SILENCE_ENDS_STAY = timedelta(hours=6)
"""A car heard plugged in before and after a longer silence is taken to have been away in between."""
_FIRSTS: Final = ("plugged_in_at", "soc_at_plug_in", "charge_complete_at")
"""What a plugged-in row brings into its run, where no earlier one did."""


def nothing_heard() -> pl.DataFrame:
    """Return the state before the first telemetry file: signals and what is known of stays, no rows."""
    return _stateless(empty("signals"))


def fold(newest: pl.DataFrame, fresh: pa.Table) -> pl.DataFrame:
    """Return the state after `fresh` (contract signals, any order): one row a car, in order of car_id.

    `plugged_in_at` is the first instant of the unbroken plugged-in run that ends in the car's newest row, and
    `soc_at_plug_in` and `charge_complete_at` are the first of their kind in it; null when that row does not say plugged
    in. Rows that say nothing of the cable are runs of their own, plugged in while the car is willing: what was heard
    before telemetry was withdrawn is not carried on. Raises RejectedError when `fresh` breaks its contract.
    """
    if fresh.num_rows == 0:
        return newest
    rows = pl.concat([newest, _stateless(conform(fresh, "signals"))])
    order = np.lexsort((rows["at"].to_physical().to_numpy(), rows["car_id"].to_numpy()))
    runs = _runs(rows.select(pl.col("car_id", "at", "willing", PLUGGED, _CHARGING, _SOC, *_FIRSTS).gather(order)))
    last = runs.select(pl.col("car_id").ne(pl.col("car_id").shift(-1)).fill_null(value=True).arg_true()).to_series()
    firsts = [_first_of_its_run(runs, name).gather(last) for name in _FIRSTS]
    return rows.select(pl.all().gather(order[last.to_numpy()])).with_columns(firsts)


def by_its_own_word() -> pl.Expr:
    """Return whether a row says nothing of the cable: then that the car is willing must do."""
    return pl.col(PLUGGED).is_null()


def _runs(rows: pl.DataFrame) -> pl.DataFrame:
    """Number the plugged-in runs of rows in order of car and time, and fill in what each plugged-in row brings."""
    plugged = pl.coalesce(PLUGGED, "willing")
    same_car = pl.col("car_id") == pl.col("car_id").shift(1)
    same_source = by_its_own_word() == by_its_own_word().shift(1)
    unbroken = plugged.shift(1) & (pl.col("at").diff() <= SILENCE_ENDS_STAY) & pl.col("plugged_in_at").is_null()
    goes_on = (same_car & same_source & unbroken).fill_null(value=False)
    full = plugged & ~pl.col(_CHARGING) & (pl.col(_SOC) >= FULL_PERCENT)
    firsts = (
        pl.coalesce("plugged_in_at", "at"),
        pl.coalesce("soc_at_plug_in", pl.col(_SOC) / 100.0),
        pl.coalesce("charge_complete_at", pl.when(full).then("at")),
    )
    return rows.select(
        "car_id",
        plugged=plugged,
        run=(~same_car.fill_null(value=False) | (plugged & ~goes_on)).cum_sum(),
        **{name: pl.when(plugged).then(first) for name, first in zip(_FIRSTS, firsts, strict=True)},
    )


def _first_of_its_run(runs: pl.DataFrame, name: str) -> pl.Series:
    """Return for each plugged-in row the first known value of its run; a fill forward that does not leave the run."""
    numbers = np.arange(len(runs))
    known = runs[name].is_not_null().to_numpy()
    run = runs["run"].to_numpy()
    first = np.full(len(runs) + 1, -1, np.int64)
    first[run[known][::-1]] = numbers[known][::-1]  # of several that are written to one place the last one stays
    found = first[run]
    which = pl.Series(found).set(pl.Series((found < 0) | ~runs["plugged"].to_numpy()), None)
    return runs[name].gather(which).alias(name)


def _stateless(signals: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(signals)
    assert isinstance(frame, pl.DataFrame)
    instant = pl.lit(None, pl.Datetime("us", "UTC"))
    return frame.with_columns(
        plugged_in_at=instant, soc_at_plug_in=pl.lit(None, pl.Float64), charge_complete_at=instant
    )
