"""What the store holds for a cell's forecasts: stays by the day, states, models. Reads only."""

import io
import logging
from datetime import date

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import conform, empty
from fleetbatch.errors import RejectedError
from fleetbatch.logs import say
from fleetbatch.store import Store
from fleetbatch.units import CellName
from fleetbatch.windows.bundle import WindowsBundle, open_bundle
from fleetbatch.windows.shadow import Model
from fleetbatch.windows.state import Tuned


def read_history(store: Store, cell: CellName, day: date) -> pa.Table:
    """Return the closed stays of all days and the open ones of the day or the last before it, as contract stays.

    A file that cannot be read is said in the log and left out.
    """
    closed, broken = read_tables(store, layout.stays_days(cell), "stays")
    for problem in broken:
        say("stays left out", level=logging.ERROR, cell=cell, problem=problem)
    days = [key for key in store.keys(layout.open_stays_days(cell)) if key <= layout.open_stays(cell, str(day))]
    still = read_stays_file(store, max(days)) if days else empty("stays")
    return union(closed, still)


def latest_state(store: Store, cell: CellName, *, before: date) -> Tuned | None:
    """Return the newest state of a day before the one given; one that cannot be read is said and passed over."""
    limit = layout.windows_state(cell, str(before))
    for key in sorted((key for key in store.keys(layout.windows_states(cell)) if key < limit), reverse=True):
        try:
            return msgspec.json.decode(store.read(key), type=Tuned)
        except msgspec.DecodeError as error:
            say("state left out", level=logging.ERROR, cell=cell, problem=f"{key}: {error}")
    return None


def open_model(store: Store, model: Model) -> WindowsBundle:
    """Return a model's bundle; raise RejectedError when it is not what its name says, or cannot be used."""
    bundle = open_bundle(store.read(model.key))
    if bundle.sha256 != model.sha256:
        summary = f"{model.key} holds other bytes than its name says"
        raise RejectedError(summary)
    return bundle


def read_tables(store: Store, prefix: str, name: str) -> tuple[pa.Table, tuple[str, ...]]:
    """Return the tables under a prefix as one; a file that is no Parquet or breaks its contract is left out by name."""
    tables, broken = [empty(name)], []
    for key in sorted(store.keys(prefix)):
        try:
            tables.append(conform(pq.read_table(io.BytesIO(store.read(key))), name))
        except (pa.ArrowInvalid, RejectedError) as error:
            broken.append(f"{key}: {error}")
    return pa.concat_tables(tables), tuple(broken)


def read_stays_file(store: Store, key: str) -> pa.Table:
    """Return a file of stays; none is a file without rows."""
    if store.size(key) is None:
        return empty("stays")
    return conform(pq.read_table(io.BytesIO(store.read(key))), "stays")


def union(first: pa.Table, second: pa.Table) -> pa.Table:
    """Return the stays of both, each once: a start tells a car's stay, and one with an end knows more."""
    both = (
        pl.DataFrame(first)
        .vstack(pl.DataFrame(second))
        .sort("car_id", "plugged_in_at", "unplugged_at", nulls_last=True)
    )
    return conform(both.unique(["car_id", "plugged_in_at"], keep="first", maintain_order=True).to_arrow(), "stays")
