"""What an order will cost before anything runs. Pure."""

import math
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch.nouns import Order

BYTES_OF_SEAL: Final = 1.01
"""Sealed files are at most this much larger than their items (measured on 60,000 JPEGs: 1.003)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What an order will probably take; `fits` is None when nobody forecast the night."""

    rows: int
    shards: int
    size_bytes: int
    car_hours: float
    rows_per_s: float
    """Of one car."""
    measured: bool
    """The rate was measured on cars, not assumed."""
    free_car_hours: float | None
    fits: bool | None

    def __str__(self) -> str:
        """Return the one line that a person reads before the night."""
        rates = f"{'a measured' if self.measured else 'an assumed'} {self.rows_per_s:.1f} rows a second"
        match self.fits:
            case None:
                verdict = "whether it fits tonight is not forecast yet"
            case True:
                verdict = f"fits tonight ({self.free_car_hours:.1f} car-hours are free)"
            case False:
                verdict = (
                    f"does not fit tonight ({self.free_car_hours:.1f} car-hours are free): the rest goes to the cloud"
                )
        size = self.size_bytes / 1e6
        hours = self.car_hours
        work = f"about {f'{hours:,.1f} car-hours' if hours >= 1 else f'{60 * hours:,.1f} car-minutes'} at {rates}"
        return f"{self.rows:,} rows in about {self.shards:,} shards, {size:,.1f} MB, {work}; {verdict}"


def estimate_order(
    order: Order, *, items: int, size_bytes: int, rates: pa.Table, assumed: float, free_car_hours: float | None
) -> Estimate:
    """Estimate an order from what its source holds.

    `rates` is the ledger's table of measured work (workload, rows, busy_s, ...), maybe empty; `assumed` is the rows a
    second that count until then; `free_car_hours` is what the forecast says cars can give before the deadline, after
    other orders.
    """
    measured = _measured_rows_per_s(rates, order.workload)
    speed = measured or assumed
    car_hours = items / speed / 3600
    return Estimate(
        rows=items,
        shards=_shards(order, items, size_bytes),
        size_bytes=math.ceil(size_bytes * BYTES_OF_SEAL),
        car_hours=car_hours,
        rows_per_s=speed,
        measured=measured is not None,
        free_car_hours=free_car_hours,
        fits=None if free_car_hours is None else car_hours <= free_car_hours,
    )


def _shards(order: Order, items: int, size_bytes: int) -> int:
    """Return the larger of the counts by rows and by bytes; the cut may need a few more."""
    return max(math.ceil(items / order.cutting.shard_rows), math.ceil(size_bytes / order.cutting.shard_bytes))


def _measured_rows_per_s(rates: pa.Table, workload: str) -> float | None:
    ours = rates.filter(pc.field("workload") == workload)
    rows, busy_s = pc.sum(ours["rows"]).as_py() or 0, pc.sum(ours["busy_s"]).as_py() or 0.0
    return rows / busy_s if rows > 0 and busy_s > 0 else None
