"""What cars say of themselves, one Parquet file a minute; nonsense becomes null and never stops a file."""

import io
import math
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from types import NoneType
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fleetbatch.contracts import conform, contract
from fleetbatch.protocol import BeatRequest, PollRequest
from fleetbatch.units import CarId

_VSS: Final = "Vehicle."


@dataclass(frozen=True, slots=True)
class Heard:
    """One poll or beat as it arrived."""

    car_id: CarId
    at: datetime
    request: PollRequest


class Telemetry:
    """Keeps what was heard until it is written; when the store is away for long, the oldest goes."""

    def __init__(self, rows_max: int) -> None:
        """Start with nothing heard."""
        self._heard: deque[Heard] = deque(maxlen=rows_max)

    def __len__(self) -> int:
        """Return how many rows wait."""
        return len(self._heard)

    def hear(self, car: CarId, at: datetime, request: PollRequest) -> None:
        """Keep one row."""
        self._heard.append(Heard(car, at, request))

    def take(self) -> list[Heard]:
        """Return all rows, and forget them."""
        rows = list(self._heard)
        self._heard.clear()
        return rows

    def put_back(self, rows: list[Heard]) -> None:
        """Keep rows that could not be written."""
        newer = self.take()
        self._heard.extend(rows)
        self._heard.extend(newer)


def without_vehicle(message: msgspec.Struct) -> msgspec.Struct:
    """Return a message without what the vehicle and its owner's plans say; what is needed to compute stays."""
    match message:
        case PollRequest():
            return msgspec.structs.replace(message, signals={}, departure_at=None, next_trip_at=None)
        case BeatRequest():
            return msgspec.structs.replace(message, signals={})
        case _:
            return message


def signals_table(rows: list[Heard]) -> pa.Table:
    """Return what was heard per contract `signals`; unknown names are left out, values of another type are null."""
    said = [row.request for row in rows]
    cars = [one.hardware for one in said]
    signals = [one.signals for one in said]
    columns: dict[str, list[object]] = {
        "car_id": [row.car_id for row in rows],
        "at": [row.at for row in rows],
        "willing": [one.willing for one in said],
        "unwilling_reason": [one.unwilling_reason or None for one in said],
        "hardware_class": [car.hardware_class for car in cars],
        "provider": [car.provider for car in cars],
        "threads": [car.threads for car in cars],
        "memory_bytes": [car.memory_bytes for car in cars],
        "power_w": [car.power_w for car in cars],
        "link_down_bytes_per_s": [one.link_down_bytes_per_s for one in said],
        "reserve_soc": [one.reserve_soc for one in said],
        "departure_at": [_instant(one.departure_at) for one in said],
        "next_trip_at": [_instant(one.next_trip_at) for one in said],
        "cached_models": [one.cached_models for one in said],
        "workloads": [car.workloads for car in cars],
        "runner_version": [car.runner_version for car in cars],
    }
    schema = contract("signals").schema
    arrays = [
        _signal_column([one.get(field.name) for one in signals], field.type)
        if field.name.startswith(_VSS)
        else pa.array(columns[field.name], field.type)
        for field in schema
    ]
    return conform(pa.Table.from_arrays(arrays, schema=schema), "signals")


def signals_file(rows: list[Heard]) -> bytes:
    """Return the Parquet file of what was heard."""
    sink = io.BytesIO()
    pq.write_table(signals_table(rows), sink, compression="zstd")
    return sink.getvalue()


def _signal_column(values: list[float | bool | str | None], kind: pa.DataType) -> "pa.Array[Any]":
    """Return one signal of all rows: in one piece where every car says what it should, else value by value."""
    usual = bool if pa.types.is_boolean(kind) else float
    if not set(map(type, values)) <= {usual, NoneType}:
        return pa.array([_signal(value, kind) for value in values], kind)
    column = pa.array(values, kind)
    if pa.types.is_floating(kind) and not pc.all(pc.is_finite(column)).as_py():
        column = pc.if_else(pc.is_finite(column), column, None)
    return column


def _signal(value: object, kind: pa.DataType) -> object:
    if pa.types.is_boolean(kind):
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = msgspec.convert(text, datetime)
        return at.astimezone(UTC) if at.tzinfo is not None else None
    except (msgspec.ValidationError, OverflowError):
        return None
