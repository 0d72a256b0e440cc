"""How long will each plugged-in car stay? The room's answer as a table, and what may be booked on it. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch.contracts import conform
from fleetbatch.inference import open_network
from fleetbatch.windows.bundle import WindowsBundle
from fleetbatch.windows.calibration import Calibration, conditions_of, on_grid
from fleetbatch.windows.clock import FloatArray, IntArray, hours, wall_h
from fleetbatch.windows.conformal import PromiseDials, Thresholds, kind_of, longest, risks
from fleetbatch.windows.features import see
from fleetbatch.windows.groups import GRID_H, GroupDials, fit_groups
from fleetbatch.windows.heed import HeedDials, heed, trust_in_statements
from fleetbatch.windows.shrink import ShrinkDials, shrunk_log_survival
from fleetbatch.windows.stays import Moments, Stays, read_moments, read_stays, without_habits

CHUNK: Final = 4_000
"""Moments at a time: what they need stays in a core's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowDials:
    """The dials of the ladder."""

    group: GroupDials = field(default_factory=GroupDials)
    shrink: ShrinkDials = field(default_factory=ShrinkDials)
    heed: HeedDials = field(default_factory=HeedDials)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecaster:
    """An opened model, with the calibration of the day."""

    bundle: WindowsBundle
    run: Callable[[Mapping[str, npt.NDArray[np.float32]]], npt.NDArray[np.float32]]
    calibration: Calibration


def open_forecaster(bundle: WindowsBundle, calibration: Calibration | None = None, *, threads: int = 1) -> Forecaster:
    """Open a bundle's model; `calibration` is today's where there is one, else the bundle's own."""
    run = open_network(bundle.model, threads=threads)
    return Forecaster(bundle=bundle, run=run, calibration=calibration or bundle.calibration)


def predict(
    cars: pa.Table,
    stays: pa.Table | Stays,
    now: datetime,
    *,
    forecaster: Forecaster | None = None,
    dials: WindowDials | None = None,
) -> pa.Table:
    """Return contract `idle_windows` for the cars of contract `plugged`, in their order.

    `stays` (contract `stays`) may hold anything: what happened after `now` is not looked at. With a forecaster every
    car gets the model's curve (L2); without, a car with no past stay gets its group's (L0), others their own habits
    shrunk to it (L1). A car whose `habits` may not be used counts as one without a past stay. Statements of owners bend
    the curve. Reading the past of a million cars takes longer than forecasting them, so what `read_stays` once returned
    may be given again; it knows nothing newer. Raises RejectedError when a table breaks its contract.
    """
    past = stays if isinstance(stays, Stays) else read_stays(stays, now)
    assert past.known_at_h <= hours(now), "a past that was read later would tell the future"
    moments = read_moments(cars, now)
    survival, used = forecast(past, without_habits(moments, cars), forecaster, dials or WindowDials())
    return _as_table(moments, survival, used, forecaster)


def forecast(
    past: Stays, moments: Moments, forecaster: Forecaster | None, dials: WindowDials | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return S on the grid and the number of past stays behind each curve; `predict` without its tables."""
    dials = dials or WindowDials()
    trust = trust_in_statements(past, dials.heed)
    survival = np.ones((len(moments), len(GRID_H)), np.float32)
    used = np.zeros(len(moments), np.int32)
    ask = _shrinker(past, dials) if forecaster is None else _network(past, forecaster, dials)
    for start in range(0, len(moments), CHUNK):
        part = moments.take(np.arange(start, min(start + CHUNK, len(moments))))
        curves, known = ask(part)
        survival[start : start + CHUNK] = heed(curves, part, trust)
        used[start : start + CHUNK] = known
    return survival, used


def bookable(prediction: pa.Table, risk: float | FloatArray, max_minutes: int) -> IntArray:
    """Return for each car the longest window, in minutes up to `max_minutes`, that it stays through at that risk.

    `risk` is the share of bookings that may be evicted: one for all, one per car, or [cars, 96] by length (see
    `promised_risk`). Leaving is correlated between cars (holidays): the curves of many cars must not be multiplied
    as if independent.
    """
    allowed = np.asarray(risk, dtype=np.float64)
    allowed = allowed.reshape(-1, 1) if allowed.ndim < 2 else allowed  # noqa: PLR2004 (one per car, or a matrix)
    minutes: IntArray = np.round(longest(survival_of(prediction), allowed, max_minutes / 60.0) * 60).astype(np.int64)
    return minutes


def promised_risk(
    prediction: pa.Table, cars: pa.Table, now: datetime, thresholds: Thresholds, dials: PromiseDials | None = None
) -> FloatArray:
    """Return the risk that each car's booking may take by length, [cars, 96], as the kept promises allow today."""
    moments = read_moments(cars, now)
    local_hour = wall_h(moments.now_h, moments.stay.zones) % 24.0
    kind = kind_of(prediction["stays_used"].to_numpy().astype(np.int64), local_hour)
    return risks(thresholds, kind, dials or PromiseDials())


def survival_of(prediction: pa.Table) -> FloatArray:
    """Return the survival curves of contract `idle_windows` as [cars, 96]."""
    chunks = prediction["survival"].chunks
    flat = [pc.list_flatten(chunk).to_numpy(zero_copy_only=False) for chunk in chunks]
    return np.concatenate([np.zeros(0), *flat]).reshape(-1, len(GRID_H))


def as_bytes(prediction: pa.Table) -> "pa.Array[Any]":
    """Return the curves as the planner's list<uint8>[97]: 1/255 at k * 15 minutes, the first 255, rounded down."""
    curves = survival_of(prediction)
    steps = np.concatenate([np.ones((len(curves), 1)), curves], axis=1)
    flat = np.floor(steps * 255.0).astype(np.uint8)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])


_Ask = Callable[[Moments], tuple[FloatArray, npt.NDArray[np.int32]]]


def _shrinker(past: Stays, dials: WindowDials) -> _Ask:
    groups = fit_groups(past, dials.group)

    def ask(part: Moments) -> tuple[FloatArray, npt.NDArray[np.int32]]:
        log_survival, known = shrunk_log_survival(past, part, groups, dials.shrink)
        return np.exp(log_survival), known.stays_used.astype(np.int32)

    return ask


def _network(past: Stays, forecaster: Forecaster, dials: WindowDials) -> _Ask:
    def ask(part: Moments) -> tuple[FloatArray, npt.NDArray[np.int32]]:
        seen = see(past, part, forecaster.bundle.groups, dials.shrink)
        said = forecaster.run({"features": seen.features, "base": seen.base})
        conditions = conditions_of(part, seen.stays_used.astype(np.int64))
        return on_grid(said, conditions, forecaster.calibration), seen.stays_used

    return ask


def _as_table(
    moments: Moments,
    survival: npt.NDArray[np.float32],
    used: npt.NDArray[np.int32],
    forecaster: Forecaster | None,
) -> pa.Table:
    """Return the forecast as contract `idle_windows`: in [0, 1] and never rising."""
    falling = np.minimum.accumulate(np.clip(survival, 0.0, 1.0), axis=1)
    count = len(moments)
    level = np.where(used > 0, "L1", "L0") if forecaster is None else np.full(count, "L2")
    sha256 = None if forecaster is None else str(forecaster.bundle.sha256)
    columns = {
        "car_id": pa.array(moments.stay.car),
        "survival": pa.FixedSizeListArray.from_arrays(pa.array(falling.ravel()), len(GRID_H)),
        "level": pa.array(level),
        "stays_used": pa.array(used),
        "model_sha256": pa.array([sha256] * count, pa.string()),
    }
    return conform(pa.table(columns), "idle_windows")
