"""A round's tables in the store, so that "why this car, why not" is answered later."""

import io
from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import parquet_table
from fleetbatch.planner.answers import why
from fleetbatch.store import Store
from fleetbatch.units import CellName, RoundId

ASKED: Final = ("assignments", "unassigned", "car_plan", "excluded", "cars")
"""The tables that `why` looks at."""


def keep(store: Store, cell: CellName, round_id: RoundId, tables: Mapping[str, pa.Table], *, rounds_kept: int) -> None:
    """Write a round's tables and forget those of the round that many before."""
    for name, table in tables.items():
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        store.write(layout.round_table(cell, round_id, name), sink.getvalue())
        if round_id > rounds_kept:
            store.delete(layout.round_table(cell, RoundId(round_id - rounds_kept), name))


def explain(store: Store, cell: CellName, round_id: RoundId, wanted: int) -> tuple[str, ...]:
    """Return what a round says of a shard or a car, one sentence a line; empty when it knows neither.

    Raises MissingObject when the round's tables are not kept (any more).
    """
    kept = {name: store.read(layout.round_table(cell, round_id, name)) for name in ASKED}
    return why({name: parquet_table(data) for name, data in kept.items()}, wanted)
