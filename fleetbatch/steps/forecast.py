"""Will it fit tonight? The cars of the newest rounds, how long each will probably stay, less what is open already."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch import layout
from fleetbatch.contracts import parquet_table
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.nouns import Order
from fleetbatch.orders import estimate_order
from fleetbatch.settings import Settings
from fleetbatch.store import MissingObject, Store
from fleetbatch.units import CellName
from fleetbatch.workloads import workload

_POINT_S: Final = 900.0
"""Distance of two points of a survival curve in contract `cars`."""
_CERTAIN: Final = 255.0


def free_car_hours(
    settings: Settings, store: Store, ledgers: Mapping[CellName, PostgresLedger], order: Order
) -> float | None:
    """Return the hours that parked cars of the order's region will probably compute before its deadline.

    None when no cell has planned a round yet: then nobody has forecast the night.
    """
    found = [hours for hours in free_hours_by_cell(settings, store, ledgers, order).values() if hours is not None]
    return max(0.0, sum(found)) if found else None


def free_hours_by_cell(
    settings: Settings, store: Store, ledgers: Mapping[CellName, PostgresLedger], order: Order
) -> dict[CellName, float | None]:
    """Return the same for each cell of the order's region, None for one that has not planned a round yet.

    What cars are expected to spend on orders that are open already is taken off.
    """
    found: dict[CellName, float | None] = {}
    for cell in settings.cells:
        if order.region not in ("any", cell.region):
            continue
        ledger = ledgers[cell.name]
        cars = _last_cars(store, cell.name, ledger)
        staying = None if cars is None else hours_ahead(cars, within_s=3600 * order.deadline_hours)
        found[cell.name] = None if staying is None else staying - hours_open(ledger)
    return found


def capacities(
    forecast: Mapping[CellName, float | None], willing: Mapping[CellName, float]
) -> Mapping[CellName, float]:
    """Return by what an order that several cells may compute is split between them. Pure.

    That is the hours that their cars are forecast to be free; while one of them has no forecast yet, or nobody is free,
    the number of cars that may be given work.
    """
    hours = {cell: max(found or 0.0, 0.0) for cell, found in forecast.items()}
    return willing if None in forecast.values() or sum(hours.values()) == 0.0 else hours


def hours_ahead(cars: pa.Table, *, within_s: float) -> float:
    """Return the expected hours, over all cars (contract `cars`), of being plugged in and allowed to compute. Pure."""
    if not cars.num_rows:
        return 0.0
    curves = np.asarray(pc.list_flatten(cars["survival"])).reshape(cars.num_rows, -1) / _CERTAIN
    starts = np.arange(curves.shape[1]) * _POINT_S
    begin = np.asarray(cars["ready_s"], np.float64)[:, None]
    end = np.minimum(np.asarray(cars["limit_s"], np.float64), within_s)[:, None]
    usable_s = np.clip(np.minimum(starts + _POINT_S, end) - np.maximum(starts, begin), 0.0, _POINT_S)
    return float((curves * usable_s).sum() / 3600)


def hours_open(ledger: PostgresLedger) -> float:
    """Return the hours of cars that the open orders of a cell still need, at measured or reference rates."""
    shards, rates = ledger.open_shards(), ledger.rates()
    hours = 0.0
    for row in ledger.orders_open():
        left = rows_left(shards.filter(pc.field("order_key") == str(row.key)))
        order, assumed = row.frozen.order, workload(row.frozen.order.workload).rows_per_s
        said = estimate_order(order, items=left, size_bytes=0, rates=rates, assumed=assumed, free_car_hours=None)
        hours += said.car_hours
    return hours


def rows_left(open_shards: pa.Table) -> int:
    """Return about how many rows of open shards are not delivered yet. Pure."""
    columns = ("rows", "row_groups", "done_through")
    rows, groups, done = (np.asarray(open_shards[name], np.float64) for name in columns)
    return int(np.ceil(rows * (groups - done) / groups).sum())


def _last_cars(store: Store, cell: CellName, ledger: PostgresLedger) -> pa.Table | None:
    newest = ledger.latest_round()
    stored = next(reversed(layout.by_round(cell, store.keys(layout.rounds(cell)))), None)
    if stored is None or layout.round_number(stored) != newest:
        return None  # this ledger has planned nothing, or not written it down yet
    try:
        data = store.read(layout.round_table(cell, stored, "cars"))
    except MissingObject:
        return None
    return parquet_table(data)
