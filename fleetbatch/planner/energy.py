"""What a second of work costs and emits: prices and intensities by zone and hour, and the power of hardware classes.

An owner's own tariff is not among them: it is what he is paid (README.md says why).
"""

import io
import logging
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import conform, empty
from fleetbatch.errors import RejectedError
from fleetbatch.logs import say
from fleetbatch.planner.inputs import Floats
from fleetbatch.planner.policy import HORIZON_S, Policy
from fleetbatch.store import MissingObject, Store
from fleetbatch.units import CellName

JOULES_PER_KWH: Final = 3.6e6
STEPS_MAX: Final = 6
"""A plan's blocks end where prices change; more changes would leave it no blocks for the rest of the night."""
STALE: Final = timedelta(days=1)
"""A table's last row holds so long."""
PER_KWH_MAX: Final = 1e6
POWER_MAX_W: Final = 10_000.0
"""A car that says more is not believed more."""


def write_energy(store: Store, cell: CellName, energy: pa.Table) -> None:
    """Replace the cell's contract `energy`; raise RejectedError naming rows that make no sense."""
    sink = io.BytesIO()
    pq.write_table(_checked(energy), sink, compression="zstd")
    store.write(layout.energy(cell), sink.getvalue())


def read_energy(store: Store, cell: CellName) -> pa.Table:
    """Return a cell's contract `energy`, no rows where nobody wrote it; raise RejectedError when it is broken."""
    try:
        data = store.read(layout.energy(cell))
    except MissingObject:
        return empty("energy")
    try:
        return _checked(pq.read_table(io.BytesIO(data)))
    except pa.ArrowInvalid as error:
        summary = f"{layout.energy(cell)} is not a Parquet file"
        raise RejectedError(summary) from error


def energy_of(store: Store, cell: CellName, zone: str) -> pa.Table:
    """Return a cell's contract `energy` for its rounds, no rows where it names no zone; a broken table is logged."""
    try:
        return read_energy(store, cell) if zone else empty("energy")
    except RejectedError as error:
        say("energy skipped", level=logging.ERROR, problem=str(error))
        return empty("energy")


def _checked(energy: pa.Table) -> pa.Table:
    """Return the table in order of zone and instant."""
    table = conform(energy, "energy")
    frame = pl.DataFrame(table).sort("zone", "from_at")
    numbers = [pl.col(name).fill_null(0.0) for name in ("price_per_kwh", "carbon_g_per_kwh")]
    wrong = {
        "is twice for one zone and instant": pl.struct("zone", "from_at").is_duplicated(),
        "is not a number of any electricity": ~pl.all_horizontal([number.abs() <= PER_KWH_MAX for number in numbers]),
        "has less than 0 grams": numbers[1] < 0.0,
    }
    problems = [
        f"{len(rows)} rows: {rows['zone'][0]} {rows['from_at'][0]:%Y-%m-%dT%H:%MZ} {what}"
        for what, hit in wrong.items()
        if len(rows := frame.filter(hit))
    ]
    if problems:
        summary = "the table of energy prices cannot be used"
        raise RejectedError(summary, problems)
    return conform(frame.to_arrow(), "energy")


def with_energy(policy: Policy, energy: pa.Table, zone: str, *, now: datetime, until_s: float) -> Policy:
    """Return the policy with the prices and intensities (checked contract `energy`) of one zone from now on.

    Neighbouring hours up to `until_s` that cost about the same, carbon included, are drawn together to at most
    STEPS_MAX. The table's first row holds before it and its last row for a day after it. A policy stays as it is where
    the table has nothing of the zone, or nothing that still holds.
    """
    rows = pl.DataFrame(energy).filter(pl.col("zone") == zone).sort("from_at")
    if rows.is_empty() or now - rows["from_at"][-1] > STALE:
        return policy
    from_s = rows["from_at"].dt.epoch("us").to_numpy() / 1e6 - now.timestamp()
    end = min(max(until_s, 1.0), HORIZON_S)
    current = max(int(np.searchsorted(from_s, 0.0, "right")) - 1, 0)
    held = slice(current, max(int(np.searchsorted(from_s, end)), current + 1))
    price = np.maximum(rows["price_per_kwh"].to_numpy(), 0.0)
    grams = rows["carbon_g_per_kwh"].fill_null(strategy="forward").fill_null(strategy="backward")
    steps = np.stack([price, grams.fill_null(0.0).to_numpy()])[:, held] / JOULES_PER_KWH
    weight = np.array([1.0, policy.carbon_currency_per_g])
    until, (prices, intensities) = _drawn_together(np.append(from_s[held][1:], end), steps, weight)
    return replace(
        policy,
        price_until_s=(*until[:-1].tolist(), HORIZON_S),
        price_per_j=(tuple(prices.tolist()),),
        carbon_g_per_j=(tuple(intensities.tolist()),) if grams.is_not_null().all() else (),
    )


def _drawn_together(until: Floats, steps: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Return steps' ends and values [price and grams, step], the most alike neighbours joined to their mean."""
    width, values = np.diff(until, prepend=0.0), steps
    while len(until) > STEPS_MAX:
        cost = weight @ values
        apart = width[:-1] * width[1:] / (width[:-1] + width[1:]) * np.diff(cost) ** 2
        at = int(np.argmin(apart))
        pair = slice(at, at + 2)
        mean = values[:, pair] @ width[pair] / width[pair].sum()
        values = np.delete(values, at + 1, axis=1)
        values[:, at] = mean
        width[at] += width[at + 1]
        width, until = np.delete(width, at + 1), np.delete(until, at)
    return until, values


def with_powers(policy: Policy, said: pl.DataFrame, hardware: tuple[str, ...]) -> Policy:
    """Return the policy with the median power that cars of each class state (`hardware_class`, `power_w`).

    A class that is not in `hardware` counts for its last; one of which nobody states a power keeps what it has.
    """
    stated = pl.col("power_w").cast(pl.Float64)
    medians = (
        said.filter(stated.is_finite() & (stated > 0.0))
        .select(
            name=pl.col("hardware_class").replace_strict(list(hardware), list(hardware), default=hardware[-1]), w=stated
        )
        .group_by("name")
        .agg(pl.col("w").median().clip(upper_bound=POWER_MAX_W))
    )
    known = dict(medians.iter_rows())
    return replace(
        policy, power_w=tuple(known.get(name, held) for name, held in zip(hardware, policy.power_w, strict=True))
    )
