"""How long will each plugged-in car stay? The room's answer as a table, and what may be booked on it. Pure."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch.contracts import conform
from fleetbatch.windows.clock import FloatArray, IntArray
from fleetbatch.windows.groups import GRID_H, GroupDials, fit_groups
from fleetbatch.windows.shrink import ShrinkDials, shrunk_log_survival
from fleetbatch.windows.stays import Moments, read_moments, read_stays

GRID_MINUTES: Final = 15
CHUNK: Final = 50_000
"""Moments at a time: bounds memory to about half a gigabyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowDials:
    """The dials of the ladder."""

    group: GroupDials = field(default_factory=GroupDials)
    shrink: ShrinkDials = field(default_factory=ShrinkDials)


def predict(cars: pa.Table, stays: pa.Table, now: datetime, dials: WindowDials | None = None) -> pa.Table:
    """Return contract `idle_windows` for the cars of contract `plugged`, in their order.

    `stays` (contract `stays`) may hold anything: what happened after `now` is not looked at. A car without a past
    stay gets its group's curve (L0), others their own habits shrunk to it (L1). Raises RejectedError when a table
    breaks its contract.
    """
    dials = dials or WindowDials()
    past = read_stays(stays, now)
    moments = read_moments(cars, now)
    curves = fit_groups(past, dials.group)
    survival = np.ones((len(moments), len(GRID_H)), np.float32)
    used = np.zeros(len(moments), np.int32)
    for start in range(0, len(moments), CHUNK):
        part = moments.take(np.arange(start, min(start + CHUNK, len(moments))))
        log_survival, known = shrunk_log_survival(past, part, curves, dials.shrink)
        survival[start : start + CHUNK] = np.exp(log_survival)
        used[start : start + CHUNK] = known.stays_used
    return as_table(moments, survival, used)


def as_table(moments: Moments, survival: npt.NDArray[np.float32], used: npt.NDArray[np.int32]) -> pa.Table:
    """Return the forecast as contract `idle_windows`: in [0, 1] and never rising."""
    falling = np.minimum.accumulate(np.clip(survival, 0.0, 1.0), axis=1)
    columns = {
        "car_id": pa.array(moments.stay.car),
        "survival": pa.FixedSizeListArray.from_arrays(pa.array(falling.ravel()), len(GRID_H)),
        "level": pa.array(np.where(used > 0, "L1", "L0")),
        "stays_used": pa.array(used),
        "model_sha256": pa.nulls(len(moments), pa.string()),
    }
    return conform(pa.table(columns), "idle_windows")


def survival_of(prediction: pa.Table) -> FloatArray:
    """Return the survival curves of contract `idle_windows` as [cars, 96]."""
    chunks = prediction["survival"].chunks
    flat = [pc.list_flatten(chunk).to_numpy(zero_copy_only=False) for chunk in chunks]
    return np.concatenate([np.zeros(0), *flat]).reshape(-1, len(GRID_H))


def bookable(prediction: pa.Table, risk: float | FloatArray, max_minutes: int) -> IntArray:
    """Return for each car the longest window, in minutes up to `max_minutes`, that it stays through at that risk.

    `risk` is the share of bookings that may be evicted, one for all or one per car. Leaving is correlated between
    cars (holidays): the curves of many cars must not be multiplied as if independent.
    """
    slots = max(0, min(max_minutes // GRID_MINUTES, len(GRID_H)))
    safe = survival_of(prediction)[:, :slots] >= 1.0 - np.asarray(risk, dtype=np.float64).reshape(-1, 1)
    minutes: IntArray = safe.sum(axis=1).astype(np.int64) * GRID_MINUTES
    return minutes


def as_bytes(prediction: pa.Table) -> "pa.Array[Any]":
    """Return the curves as the planner's list<uint8>[97]: 1/255 at k * 15 minutes, the first 255, rounded down."""
    curves = survival_of(prediction)
    steps = np.concatenate([np.ones((len(curves), 1)), curves], axis=1)
    flat = np.floor(steps * 255.0).astype(np.uint8)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
