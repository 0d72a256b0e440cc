"""A million parked cars: their features and survival curves, beside boosted trees run natively on as many rows.

Cars come in tables of a hundred thousand, each with half a year of its own past, so that memory stays small; the
trees (the prototype's size: 110 of 31 leaves, 15 intervals a car) only have to predict, their features are free.
"""

import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.run import Bench, Subject, tell

if TYPE_CHECKING:
    import polars as pl  # not there for the peer

CARS = 1_000_000
TABLE = 100_000
POOL = 500
DAYS = 180
NOW = datetime(2026, 11, 24, 21, tzinfo=UTC)
FEATURES, INTERVALS, TREES, LEAVES = 45, 15, 110, 31

BENCH = Bench(
    name="windows",
    subjects=(
        Subject(name="ours", script="benchmarks/windows.py", arguments=("ours",)),
        Subject(
            name="lightgbm",
            script="benchmarks/windows.py",
            arguments=("lightgbm",),
            lock="infra/locks/bench-lightgbm.txt",
        ),
    ),
    rounds=1,
)


def ours() -> None:
    """Tell the CPU seconds of a million cars, apart for reading their past and for forecasting."""
    import polars as pl

    from fleetbatch.windows.bundle import build_bundle, open_bundle
    from fleetbatch.windows.calibration import no_calibration
    from fleetbatch.windows.conformal import PromiseDials, first_thresholds
    from fleetbatch.windows.forecast import forecast, open_forecaster
    from fleetbatch.windows.learning import default_learning, learn_model
    from fleetbatch.windows.stays import read_moments, read_stays

    pool = _pool()
    started = time.process_time()
    learnt = learn_model(pool.to_arrow(), NOW - timedelta(days=1), default_learning())
    tell("learning", time.process_time() - started, "CPU s")
    untuned = (no_calibration(), first_thresholds(PromiseDials()))
    bundle = build_bundle(learnt, untuned, trained_until=NOW)
    forecaster = open_forecaster(open_bundle(bundle))
    reading = forecasting = 0.0
    stays = 0
    for table in range(CARS // TABLE):
        offsets = pl.DataFrame({"offset": np.arange(TABLE // POOL) * POOL + table * TABLE}).cast(pl.UInt64)
        past = pool.join(offsets, how="cross").with_columns(car_id=pl.col("car_id") + pl.col("offset")).drop("offset")
        last = past.group_by("car_id").agg(pl.col("timezone").first()).sort("car_id")
        cars = last.with_columns(plugged_in_at=pl.lit(NOW - timedelta(hours=3))).to_arrow()
        before = time.process_time()
        known = read_stays(past.to_arrow(), NOW)
        read = time.process_time()
        moments = read_moments(cars, NOW)
        answer, _ = forecast(known, moments, forecaster)
        forecasting += time.process_time() - read
        reading += read - before
        stays += len(known.closed)
        assert answer.shape == (TABLE, 96)
    tell(f"curves of {CARS:,} cars", forecasting, "CPU s")
    tell(f"reading their past, {stays:,} stays", reading, "CPU s")


def _pool() -> "pl.DataFrame":
    import polars as pl
    import pyarrow as pa

    from fleetbatch.windows.history import generate_stays

    names = pa.table({"car_id": pa.array(range(1, POOL + 1), pa.uint64()), "timezone": ["Europe/Oslo"] * POOL})
    return pl.DataFrame(generate_stays(names, until=NOW, days=DAYS, seed=1))


def trees() -> None:
    """Tell the CPU seconds that boosted trees take for the curves of a million cars, from ready features."""
    import lightgbm  # type: ignore[import-not-found] # the peer's own environment

    chance = np.random.default_rng(0)
    rows = chance.standard_normal((100_000, FEATURES), dtype=np.float32)
    left = chance.random(len(rows)) < 1 / (1 + np.exp(2 - rows[:, :8].sum(axis=1)))
    dials = {"objective": "binary", "num_leaves": LEAVES, "num_threads": 1, "verbose": -1, "max_bin": 127}
    model = lightgbm.train(dials, lightgbm.Dataset(rows, left), TREES)
    share = 50
    asked = chance.standard_normal((CARS * INTERVALS // share, FEATURES), dtype=np.float32)
    started = time.process_time()
    model.predict(asked, num_threads=1)
    tell(f"curves of {CARS:,} cars", (time.process_time() - started) * share, "CPU s")


if __name__ == "__main__":
    ours() if sys.argv[1] == "ours" else trees()
