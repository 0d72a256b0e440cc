"""One row for every car that may work now, one reason for every car that may not. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.fleet.charge import Charging, limit_s, ready_s
from fleetbatch.fleet.frame import Frame
from fleetbatch.fleet.newest import PLUGGED, by_its_own_word

_CHARGING = "Vehicle.Powertrain.TractionBattery.Charging."
_BATTERY = "Vehicle.Powertrain.TractionBattery."
GRID = 96
CERTAIN = 255
EVERYWHERE = "image"
"""The workload that every car has, also one that does not say what it has."""
OPEN = "open"
"""The data class that needs no consent beyond that to compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dials:
    """What a deployment turns."""

    silent_after_s: float = 1200.0
    """A car not heard for longer is not offered work."""
    reputation_min: float = 0.5
    """Share of audited rows that must have agreed."""
    link_unknown_bytes_per_s: float = 6e6
    """Taken where a car has not measured its link (median of the design's fleet)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The planner's view of the fleet (contract cars) and the rest with reasons (contract excluded)."""

    cars: pa.Table
    excluded: pa.Table


def snapshot(
    newest: pl.DataFrame, ledger_cars: pa.Table, windows: pa.Table, frame: Frame, dials: Dials, *, now: datetime
) -> Snapshot:
    """Join what cars said (newest.fold), what the ledger knows of them and how long they will stay.

    Every car of the ledger and every car heard is in exactly one of the two tables; both are in order of car_id.
    """
    joined = _joined(newest, ledger_cars, windows)
    columns = _columns(joined, frame, dials, now=now)
    doubts = [pl.when(hit).then(pl.lit(reason)) for reason, hit in _doubts(dials).items()]
    facts = joined.with_columns(**{f"_{name}": pl.Series(columns[name]) for name in _JUDGED})
    reason = facts.select(reason=pl.coalesce(*doubts), detail=pl.col("unwilling_reason").fill_null("")).with_columns(
        detail=pl.when(pl.col("reason") == "unwilling").then("detail").otherwise(pl.lit(""))
    )
    excluded = joined.select("car_id").hstack(reason).filter(pl.col("reason").is_not_null())
    kept = pa.table(columns).filter(pa.array(reason["reason"].is_null().to_numpy()))
    return Snapshot(cars=conform(kept, "cars"), excluded=conform(excluded.to_arrow(), "excluded"))


def plugged(newest: pl.DataFrame, timezone: str) -> pa.Table:
    """Return the plugged-in cars as contract plugged, for the forecast of their stay.

    One that is taken by its own word is forecast as a car never seen before, also where its habits were once known.
    """
    cars = newest.filter(pl.col("plugged_in_at").is_not_null()).select(
        "car_id",
        "plugged_in_at",
        "soc_at_plug_in",
        "charge_complete_at",
        "departure_at",
        "next_trip_at",
        timezone=pl.lit(timezone),
        habits=~by_its_own_word(),
    )
    return conform(cars.to_arrow(), "plugged")


def _joined(newest: pl.DataFrame, ledger_cars: pa.Table, windows: pa.Table) -> pl.DataFrame:
    known = _frame(ledger_cars).with_columns(pl.col("car_id").cast(pl.UInt64), enrolled=pl.lit(value=True))
    known = known.sort("car_id")  # now, while rows are narrow
    heard = newest.with_columns(heard=pl.lit(value=True))
    ahead = _frame(windows).select("car_id", "survival")
    joined = known.join(heard, on="car_id", how="full", coalesce=True, maintain_order="left")
    joined = joined.join(ahead, on="car_id", how="left", maintain_order="left")
    flags = ("enrolled", "heard", "revoked", "consent", "willing")
    joined = joined.with_columns(pl.col(*flags).fill_null(value=False))
    return joined if joined["car_id"].is_sorted() else joined.sort("car_id")


_JUDGED = ("mem_B", "link_down_Bps", "ready_s", "limit_s", "reputation", "last_seen_s")


def _doubts(dials: Dials) -> Mapping[str, pl.Expr]:
    """Return what may speak against a car, the gravest first."""
    numbers = [pl.col(f"_{name}") for name in _JUDGED]
    broken = pl.any_horizontal([~(number.is_finite() & (number >= 0.0)) for number in numbers])
    return {
        "not_enrolled": ~pl.col("enrolled"),
        "key_revoked": pl.col("revoked"),
        "no_consent": ~pl.col("consent"),
        "no_signals": ~pl.col("heard"),
        "silent": pl.col("_last_seen_s") > dials.silent_after_s,
        "unplugged": ~pl.col(PLUGGED).fill_null(value=True),  # one that may not say is taken by its own word
        "driving": pl.col("Vehicle.Speed").fill_null(0.0) > 0.0,
        "unwilling": ~(pl.col("willing") | (_waits_for_its_charge() & (pl.col("_ready_s") > 0.0))),
        "distrusted": pl.col("_reputation") < dials.reputation_min,
        "unreadable": broken,
        "no_window": pl.col("survival").is_null(),
        "leaving": pl.col("_limit_s") <= pl.col("_ready_s"),
    }


def _waits_for_its_charge() -> pl.Expr:
    """Return whether a car is only unwilling until its charge has got further, which can be foreseen."""
    said = pl.col("unwilling_reason").fill_null("")
    return pl.any_horizontal(said.str.starts_with("battery_low:"), said.str.starts_with("charger_busy:"))


def _columns(joined: pl.DataFrame, frame: Frame, dials: Dials, *, now: datetime) -> dict[str, Any]:
    """Return the columns of contract cars for every joined row; rows that are excluded may hold fillers."""
    rows = len(joined)
    said = _numbers(joined, "link_down_bytes_per_s", 0.0)
    link = np.where(said == 0.0, dials.link_unknown_bytes_per_s, said).astype(np.float32)
    charging = _charging(joined, now=now)
    heard = np.fmin(_age_s(joined["at"], now), _age_s(joined["last_beat_at"], now))
    names = joined["hardware_class"].fill_null("")
    classes = names.unique()
    hardware = names.replace_strict(classes, [frame.hardware_index(name) for name in classes], return_dtype=pl.UInt8)
    return {
        "car_id": joined["car_id"].to_numpy(),
        "owner_id": joined["owner_id"].fill_null(0).cast(pl.UInt64).to_numpy(),
        "region": np.zeros(rows, np.uint16),
        "price_zone": np.zeros(rows, np.uint16),
        "hw": hardware.to_numpy(),
        "consent": _consent(joined, frame),
        "cached": _cached(joined["cached_models"], frame),
        "speed": np.ones(rows, np.float32),
        "mem_B": np.nan_to_num(np.clip(_numbers(joined, "memory_bytes", 0.0), 0.0, 2.0**60)).astype(np.uint64),
        "link_down_Bps": link,
        "link_up_Bps": link,
        "ready_s": np.where(joined["willing"].to_numpy(), 0.0, ready_s(charging)).astype(np.float32),
        "limit_s": limit_s(charging).astype(np.float32),
        "survival": _survival(joined["survival"]),
        "reputation": _numbers(joined, "reputation", 1.0).astype(np.float32),
        "deficit_units": np.zeros(rows, np.float32),
        "running_shard": joined["running_shard"].cast(pl.UInt64).to_arrow(),
        "running_row_group": joined["running_done_through"].cast(pl.UInt16).to_arrow(),
        "free_in_s": np.zeros(rows, np.float32),
        "last_seen_s": np.maximum(np.nan_to_num(heard, nan=np.inf), 0.0).astype(np.float32),
    }


def _charging(joined: pl.DataFrame, *, now: datetime) -> Charging:
    volts = _numbers(joined, _CHARGING + "ChargeVoltage.Phase1", np.nan)
    return Charging(
        soc=_numbers(joined, _BATTERY + "StateOfCharge.Current", np.nan) / 100.0,
        reserve_soc=_numbers(joined, "reserve_soc", 0.0),
        full_in_s=_numbers(joined, _CHARGING + "TimeToComplete", np.nan),
        charge_w=volts * _numbers(joined, _CHARGING + "ChargeCurrent.Phase1", np.nan),
        plug_w=volts * _numbers(joined, _CHARGING + "MaximumChargingCurrent.Phase1", np.nan),
        compute_w=_numbers(joined, "power_w", 0.0),
        departs_in_s=-_age_s(joined["departure_at"], now),
    )


def _survival(curves: pl.Series) -> "pa.Array[Any]":
    """Turn P at 15, 30, ... minutes into 1/255 with the certain present in front; never rising."""
    known = curves.is_not_null().to_numpy()
    whole = np.zeros((len(curves), GRID + 1), np.uint8)
    whole[:, 0] = CERTAIN
    if known.any():
        chance = curves.drop_nulls().explode().to_numpy().reshape(-1, GRID)
        # fmax takes the number where the other is none; cutting off keeps the order, so that bytes may be compared
        falling = (np.fmin(np.fmax(chance, 0.0), 1.0) * CERTAIN).astype(np.uint8)
        whole[known, 1:] = np.minimum.accumulate(falling, axis=1, out=falling)
    return pa.FixedSizeListArray.from_arrays(pa.array(whole.ravel()), GRID + 1)


def _consent(joined: pl.DataFrame, frame: Frame) -> npt.NDArray[np.uint32]:
    """Return a bit for each kind that the car has installed and its owner consents to.

    Consent is to compute at all, and to data above `open` by class.
    """
    bits = np.zeros(len(joined), np.uint32)
    installed = pl.col("workloads").fill_null([])
    for place, (workload, _, data_class) in enumerate(frame.kinds):
        agrees = pl.col("consent") & (installed.list.contains(workload) | pl.lit(workload == EVERYWHERE))
        if data_class != OPEN and "consents" in joined.columns:
            agrees &= pl.col("consents").list.contains(f"data:{data_class}").fill_null(value=False)
        bits |= joined.select(agrees).to_series().to_numpy().astype(np.uint32) << np.uint32(place)
    return bits


def _cached(models: pl.Series, frame: Frame) -> npt.NDArray[np.uint32]:
    """Return a bit for each kind whose model the car holds."""
    bits = np.zeros(len(models), np.uint32)
    for place, (_, sha256, _) in enumerate(frame.kinds):
        holds = models.list.contains(sha256).fill_null(value=False).to_numpy()
        bits |= holds.astype(np.uint32) << np.uint32(place)
    return bits


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _numbers(joined: pl.DataFrame, name: str, unknown: float) -> npt.NDArray[np.float64]:
    return joined[name].cast(pl.Float64).fill_null(unknown).to_numpy()


def _age_s(instants: pl.Series, now: datetime) -> npt.NDArray[np.float64]:
    """Return seconds before `now` at which each instant lies; NaN where there is none."""
    return now.timestamp() - instants.cast(pl.Datetime("us", "UTC")).dt.epoch("us").cast(pl.Float64).to_numpy() / 1e6
