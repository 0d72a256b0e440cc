"""The past of the laptop's cars, drawn once per folder: without a history nobody can say how long a car will stay."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import pyarrow as pa

from fleetbatch import layout
from fleetbatch.contracts import conform, parquet_bytes
from fleetbatch.local.cars import ParkedCar
from fleetbatch.local.laptop import CELLS
from fleetbatch.store import Store
from fleetbatch.units import CellName
from fleetbatch.windows.history import generate_stays

_DAYS: Final = 60
_SEED: Final = 20


def write_history(store: Store, parked: Sequence[ParkedCar], *, now: datetime) -> None:
    """Write the stays of the past sixty days of every cell, a file a day (UTC), create-once."""
    for cell, _, timezone in CELLS:
        ids = [one.car_id for one in parked if one.car.cell == cell]
        if not ids or any(True for _ in store.keys(layout.stays(CellName(cell), "").partition("day=")[0])):
            continue
        cars = pa.table({"car_id": pa.array(ids, pa.uint64()), "timezone": [timezone] * len(ids)})
        stays = conform(generate_stays(cars, until=now, days=_DAYS, seed=_SEED), "stays")
        ended = [None if end is None else f"{end:%Y-%m-%d}" for end in stays["unplugged_at"].to_pylist()]
        for day in sorted({one for one in ended if one is not None}):
            those = stays.filter(pa.array([one == day for one in ended]))
            store.create(layout.stays(CellName(cell), day), parquet_bytes(those))
