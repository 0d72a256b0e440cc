"""What cars say of themselves, one Parquet file a minute; nonsense becomes null and never stops a file."""

import io
import math
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
import pyarrow as pa
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
    columns: dict[str, list[object]] = {
        "car_id": [row.car_id for row in rows],
        "at": [row.at for row in rows],
        "willing": [row.request.willing for row in rows],
        "unwilling_reason": [row.request.unwilling_reason or None for row in rows],
        "hardware_class": [row.request.hardware.hardware_class for row in rows],
        "provider": [row.request.hardware.provider for row in rows],
        "threads": [row.request.hardware.threads for row in rows],
        "memory_bytes": [row.request.hardware.memory_bytes for row in rows],
        "power_w": [row.request.hardware.power_w for row in rows],
        "link_down_bytes_per_s": [row.request.link_down_bytes_per_s for row in rows],
        "reserve_soc": [row.request.reserve_soc for row in rows],
        "departure_at": [_instant(row.request.departure_at) for row in rows],
        "next_trip_at": [_instant(row.request.next_trip_at) for row in rows],
        "cached_models": [row.request.cached_models for row in rows],
        "workloads": [row.request.hardware.workloads for row in rows],
        "runner_version": [row.request.hardware.runner_version for row in rows],
    }
    schema = contract("signals").schema
    for field in schema:
        if field.name.startswith(_VSS):
            columns[field.name] = [_signal(row.request.signals.get(field.name), field.type) for row in rows]
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    return conform(pa.Table.from_arrays(arrays, schema=schema), "signals")


def signals_file(rows: list[Heard]) -> bytes:
    """Return the Parquet file of what was heard."""
    sink = io.BytesIO()
    pq.write_table(signals_table(rows), sink, compression="zstd")
    return sink.getvalue()


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
