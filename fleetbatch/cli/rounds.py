"""`fleetbatch why`: what the newest round of each cell said of a shard or a car, and the one in which work began."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa

from fleetbatch import layout
from fleetbatch.contracts import empty, parquet_table
from fleetbatch.errors import RejectedError
from fleetbatch.planner import Reason, explain, why_shard
from fleetbatch.settings import load_settings
from fleetbatch.store import MissingObject, Store, open_store
from fleetbatch.units import CellName, RoundName, id_of

LOOKED_BACK: Final = 100
"""Rounds in which the beginning of running work is looked for: a day of quarters of an hour."""


def explain_everywhere(settings_file: Path, wanted: str) -> list[str]:
    """Return a line a finding, newest round first in each cell; raise RejectedError when no stored round knows it."""
    number = id_of(wanted)
    if number is None:
        summary = f"{wanted!r} is neither a shard nor a car; expected sixteen hex digits, as logs and reports show them"
        raise RejectedError(summary)
    settings = load_settings(settings_file)
    store = open_store(settings.store, deployment_key=settings.deployment_key)
    lines = [f"cell {cell.name}, {line}" for cell in settings.cells for line in _newest(store, cell.name, number)]
    if not lines:
        summary = f"no stored round knows {wanted}"
        raise RejectedError(summary)
    return lines


def _newest(store: Store, cell: CellName, number: int) -> list[str]:
    """Return what the newest round that knows the number says of it, and why it began what it says is running."""
    names = list(reversed(layout.by_round(cell, store.keys(layout.rounds(cell)))))
    for place, name in enumerate(names):
        try:
            said = explain(store, cell, name, number)
        except MissingObject:
            continue
        if said:
            newest = [f"round {layout.round_number(name)}: {line}" for line in said]
            return newest + _begun(store, cell, names[place : place + LOOKED_BACK], number)
    return []


def _begun(store: Store, cell: CellName, names: Sequence[RoundName], number: int) -> list[str]:
    """Return why what the first of the rounds (newest first) says is running was given to its car, from the rounds."""
    mine = (pl.col("shard_id") == number) | (pl.col("car_id") == number)
    runs = pl.DataFrame(_pieces(store, cell, names[0])).filter(mine, RUNS)
    for name in names if len(runs) else ():
        began = pl.DataFrame(_pieces(store, cell, name)).filter(~RUNS).join(runs, on=["car_id", "shard_id"], how="semi")
        if len(began):
            tables = {"assignments": began.to_arrow(), "unassigned": empty("unassigned")}
            said = (line for shard in began["shard_id"] for line in why_shard(tables, shard))
            return [f"round {layout.round_number(name)}: {line}" for line in said]
    return []


RUNS: Final = pl.col("reason") == Reason.RUNNING


def _pieces(store: Store, cell: CellName, name: RoundName) -> pa.Table:
    """Return a round's assignments; none of a round that is being forgotten."""
    try:
        return parquet_table(store.read(layout.round_table(cell, name, "assignments")))
    except MissingObject:
        return empty("assignments")
