"""Whose turn it is: what owners were due for the time that their cars stood ready, and did not get. Pure.

Deficit round robin: a car is due the mean of its hardware class for every plugged-in second. Owners of many cars are
looked at as one. Only among cars that are alike to a round does it decide who has work and who stands idle.
"""

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from fleetbatch.planner.inputs import Singles

TURNS = 16
"""Steps in which owners' deficits are told apart; with the classes they fit into 16 bits."""


def owed_units(cars: pa.Table, credited: pa.Table, plugged: pa.Table) -> pa.Table:
    """Return car_id and deficit_units (float32, at least 0) of every car, in order of car_id.

    Args:
        cars: car_id (unique), owner_id, hardware_class.
        credited: car_id, units; cars that are not in it have none.
        plugged: car_id, plugged_s in the same time.
    """
    frame = (
        _frame(cars)
        .join(_frame(credited), on="car_id", how="left")
        .join(_frame(plugged), on="car_id", how="left")
        .with_columns(pl.col("units", "plugged_s").fill_null(0.0))
        .sort("car_id")  # sums of floats depend on their order
    )
    per_second = pl.col("units").sum() / pl.col("plugged_s").sum().clip(lower_bound=1.0)
    due = frame.with_columns(due=pl.col("plugged_s") * per_second.over("hardware_class"))
    missing = (pl.col("due") - pl.col("units")).sum().clip(lower_bound=0.0) / pl.len()
    owed = due.select("car_id", missing.over("owner_id").cast(pl.Float32).alias("deficit_units"))
    return owed.to_arrow()


def with_turns(cars: pa.Table, owed: pa.Table) -> pa.Table:
    """Return contract cars with the deficits of `owed` (owed_units); 0 where a car is not in it."""
    if not owed.num_rows:
        return cars
    known, wanted = owed["car_id"].to_numpy(), cars["car_id"].to_numpy()
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    deficit = np.where(known[place] == wanted, owed["deficit_units"].to_numpy()[place], np.float32(0.0))
    return cars.set_column(cars.column_names.index("deficit_units"), "deficit_units", pa.array(deficit))


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def turns_of(deficit: Singles) -> npt.NDArray[np.uint16] | None:
    """Return whose turn it is among equals: 0 for the largest deficits; none where nobody has any."""
    most = deficit.max(initial=0.0)
    if most <= 0.0:
        return None
    return np.asarray((TURNS - 1) - np.rint(deficit * np.float32((TURNS - 1) / most)), np.uint16)
