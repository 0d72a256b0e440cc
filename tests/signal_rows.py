"""Rows of telemetry; a test changes one word."""

from datetime import datetime
from typing import Any

import pyarrow as pa

from fleetbatch.contracts import conform, empty

PLUGGED = "Vehicle.Powertrain.TractionBattery.Charging.IsChargingCableConnected"


def said(car_id: int, at: datetime, **changes: Any) -> dict[str, Any]:
    """A plugged-in, willing car."""
    return {
        "car_id": car_id,
        "at": at,
        PLUGGED: True,
        "Vehicle.Speed": 0.0,
        "willing": True,
        "hardware_class": "orin",
        "provider": "CPUExecutionProvider",
        "threads": 2,
        "memory_bytes": 1 << 30,
        "power_w": 60.0,
        "link_down_bytes_per_s": 0.0,
        "reserve_soc": 0.2,
        "cached_models": [],
        "workloads": ["image", "video"],
        "runner_version": "0.1.0",
        **changes,
    }


def signals(*rows: dict[str, Any]) -> pa.Table:
    """The rows as contract signals."""
    return conform(pa.Table.from_pylist(list(rows), empty("signals").schema), "signals")
