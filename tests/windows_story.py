"""Stays and small models that the suites of the windows room share."""

import functools
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from fleetbatch.windows.bundle import Learnt, WindowsBundle, build_bundle, open_bundle
from fleetbatch.windows.calibration import no_calibration
from fleetbatch.windows.conformal import PromiseDials, first_thresholds
from fleetbatch.windows.groups import GroupDials
from fleetbatch.windows.history import generate_stays
from fleetbatch.windows.learning import LearningDials, learn_model
from fleetbatch.windows.network import NetworkDials
from fleetbatch.windows.shrink import ShrinkDials

NOW = datetime(2026, 11, 24, 21, tzinfo=UTC)
SMALL = LearningDials(
    group=GroupDials(), shrink=ShrinkDials(), network=NetworkDials(hidden=12, networks=2, epochs=2, batch=256)
)
"""Learns in a second, and worse than the real dials."""


@functools.cache
def past(cars: int = 20, *, days: int = 110, seed: int = 5) -> pa.Table:
    """What a small fleet did before NOW."""
    names = pa.table({"car_id": pa.array(range(1, cars + 1), pa.uint64()), "timezone": ["Europe/Oslo"] * cars})
    return generate_stays(names, until=NOW, days=days, seed=seed)


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
