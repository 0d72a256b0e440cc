"""`fleetbatch why`: what the newest round of each cell said of a shard or a car."""

from pathlib import Path

from fleetbatch import layout
from fleetbatch.errors import RejectedError
from fleetbatch.planner import explain
from fleetbatch.settings import load_settings
from fleetbatch.store import MissingObject, Store, open_store
from fleetbatch.units import CellName, id_of


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
    """Return what the newest round that knows the number says of it."""
    for name in reversed(layout.by_round(cell, store.keys(layout.rounds(cell)))):
        try:
            said = explain(store, cell, name, number)
        except MissingObject:
            continue
        if said:
            return [f"round {layout.round_number(name)}: {line}" for line in said]
    return []
