"""A round's tables in the store, so that "why this car, why not" is answered later.

A store outlives a ledger: a laptop's next night, or a ledger that was set up anew, counts rounds from 1 again. What is
newest is therefore told by the time in a round's name, never by its number.
"""

import io
from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import parquet_table
from fleetbatch.planner.answers import why
from fleetbatch.store import Store
from fleetbatch.units import CellName, RoundName

ASKED: Final = ("assignments", "unassigned", "car_plan", "excluded", "cars")
"""The tables that `why` looks at."""
FORGOTTEN_AT_ONCE: Final = 10
"""So many old rounds go with a new one: a store that holds far too many is no reason for a late round."""


def keep(store: Store, cell: CellName, name: RoundName, tables: Mapping[str, pa.Table], *, rounds_kept: int) -> None:
    """Write a round's tables and forget the oldest rounds beyond so many."""
    for table, rows in tables.items():
        sink = io.BytesIO()
        pq.write_table(rows, sink, compression="zstd")
        store.write(layout.round_table(cell, name, table), sink.getvalue())
    stored = list(layout.by_round(cell, store.keys(layout.rounds(cell))).values())
    beyond = min(max(len(stored) - rounds_kept, 0), FORGOTTEN_AT_ONCE)
    for keys in stored[:beyond]:
        for key in keys:
            store.delete(key)


def explain(store: Store, cell: CellName, name: RoundName, wanted: int) -> tuple[str, ...]:
    """Return what a round says of a shard or a car, one sentence a line; empty when it knows neither.

    Raises MissingObject when the round's tables are not kept (any more).
    """
    kept = {table: store.read(layout.round_table(cell, name, table)) for table in ASKED}
    return why({table: parquet_table(data) for table, data in kept.items()}, wanted)
