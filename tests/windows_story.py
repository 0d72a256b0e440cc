"""Stays and small models that the suites of the windows room share."""

import functools
import io
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import conform
from fleetbatch.store import Store
from fleetbatch.units import CellName
from fleetbatch.windows.bundle import Learnt, WindowsBundle, build_bundle, open_bundle
from fleetbatch.windows.calibration import no_calibration
from fleetbatch.windows.conformal import PromiseDials, first_thresholds
from fleetbatch.windows.daily import tune_day
from fleetbatch.windows.groups import GroupDials
from fleetbatch.windows.history import generate_stays
from fleetbatch.windows.learning import LearningDials, learn_model
from fleetbatch.windows.network import NetworkDials
from fleetbatch.windows.shrink import ShrinkDials
from fleetbatch.windows.tuning import TuningDials

NOW = datetime(2026, 11, 24, 21, tzinfo=UTC)
SMALL = LearningDials(
    group=GroupDials(), shrink=ShrinkDials(), network=NetworkDials(hidden=12, networks=2, epochs=2, batch=256)
)
"""Learns in a second, and worse than the real dials."""


UNJUDGED = TuningDials(learning=SMALL, look_back=timedelta(days=20), judged_min=10**9)
"""However few days it has seen, the model serves."""


@functools.cache
def past(cars: int = 20, *, days: int = 110, seed: int = 5, until: datetime = NOW) -> pa.Table:
    """What a small fleet did before a moment."""
    names = pa.table({"car_id": pa.array(range(1, cars + 1), pa.uint64()), "timezone": ["Europe/Oslo"] * cars})
    return generate_stays(names, until=until, days=days, seed=seed)


def live(store: Store, cell: CellName, stays: pa.Table, *, now: datetime) -> None:
    """Write the stays of a cell as its days would have: closed ones by the day of their end, open ones today."""
    frame = pl.DataFrame(stays)
    for (day,), ended in frame.drop_nulls("unplugged_at").group_by(pl.col("unplugged_at").dt.date()):
        store.write(layout.stays(cell, str(day)), parquet(ended))
    store.write(layout.open_stays(cell, f"{now:%Y-%m-%d}"), parquet(frame.filter(pl.col("unplugged_at").is_null())))


def serve_model(store: Store, cell: CellName, *, now: datetime) -> str:
    """Give a cell a past, a model that learnt from it, and the day's state; return the model's key."""
    stays = past(until=now)
    live(store, cell, stays, now=now)
    bundle = bytes_of(learn_model(stays, now - timedelta(days=20), SMALL))
    key = layout.windows_model(cell, f"{now - timedelta(days=20):%Y-%m-%d}", open_bundle(bundle).sha256)
    store.create(key, bundle)
    tune_day(store, cell, now.date(), now=now, dials=UNJUDGED)
    return key


def parquet(frame: pl.DataFrame) -> bytes:
    sink = io.BytesIO()
    pq.write_table(conform(frame.to_arrow(), "stays"), sink)
    return sink.getvalue()


def plugged_in(stays: pa.Table) -> pa.Table:
    """The cars whose stay goes on."""
    still = stays.filter(pa.array(stays["unplugged_at"].is_null().to_pylist()))
    return still.select(["car_id", "plugged_in_at", "timezone"])


@functools.cache
def small_model() -> Learnt:
    return learn_model(past(), NOW - timedelta(days=20), SMALL)


def bundle_of(learnt: Learnt) -> WindowsBundle:
    return open_bundle(bytes_of(learnt))


def bytes_of(learnt: Learnt) -> bytes:
    untuned = (no_calibration(), first_thresholds(PromiseDials()))
    return build_bundle(learnt, untuned, trained_until=NOW - timedelta(days=20))
