"""Beside the table stand `nights` and `missing_rows`; the commit that changes the table names both by their hashes.

Each version is kept under its own hash before the commit, and becomes current after it. So whoever is killed in between
leaves all that the next one needs, and the hash in the newest commit always says which version is the true one.
"""

import hashlib
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import conform, empty
from fleetbatch.errors import TransientError
from fleetbatch.nouns import FrozenOrder, Merged
from fleetbatch.store import MissingObject, Store
from fleetbatch.units import OrderName, Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The hashes of one version of both tables."""

    nights: Sha256
    missing_rows: Sha256


def extend(store: Store, order: FrozenOrder, merged: Merged, before: Beside | None, night: pa.Table) -> Beside:
    """Keep the next version of both tables, in which this night's rows replace its earlier ones."""
    name, night_name = order.key.order, order.key.night
    nights, missing = _load(store, name, "nights", before), _load(store, name, "missing_rows", before)
    version = night.to_pylist()[0]["table_version"]
    ours = conform(pq.read_table(pa.BufferReader(_missing_of(store, order, merged))), "missing_rows")
    return Beside(
        nights=_keep(store, name, "nights", _replace(nights, night_name, night), version),
        missing_rows=_keep(store, name, "missing_rows", _replace(missing, night_name, ours), version),
    )


def make_current(store: Store, name: OrderName, beside: Beside) -> None:
    """Let readers see this version; each file is replaced whole. Raises MissingObject when a newer one is current."""
    for table, key in (("nights", layout.nights(name)), ("missing_rows", layout.missing_rows(name))):
        data = store.read(layout.kept_beside(name, table, getattr(beside, table)))
        if _current(store, key) != getattr(beside, table):
            store.write(key, data)


def forget(store: Store, name: OrderName, beside: Beside) -> None:
    """Remove a version that a newer one has replaced."""
    store.delete(layout.kept_beside(name, "nights", beside.nights))
    store.delete(layout.kept_beside(name, "missing_rows", beside.missing_rows))


def _current(store: Store, key: str) -> str:
    try:
        return hashlib.sha256(store.read(key)).hexdigest()
    except MissingObject:
        return ""


def _missing_of(store: Store, order: FrozenOrder, merged: Merged) -> bytes:
    data = store.read(layout.missing(order.key))
    if hashlib.sha256(data).hexdigest() != merged.missing_sha256:
        message = f"the missing rows of {order.key} are being merged again; publish after that"
        raise TransientError(message)
    return data


def _load(store: Store, name: OrderName, table: str, before: Beside | None) -> pa.Table:
    if before is None:
        return empty(table)
    try:
        data = store.read(layout.kept_beside(name, table, getattr(before, table)))
    except MissingObject as error:
        message = f"{table} of {name} was replaced while it was read"
        raise TransientError(message) from error
    return conform(pq.read_table(pa.BufferReader(data)), table)


def _replace(table: pa.Table, night: str, ours: pa.Table) -> pa.Table:
    """Return the rows of all other nights and ours, in the order of the nights."""
    others = table.filter(pc.field("night") != night)
    return pa.concat_tables([others, ours]).sort_by("night")


def _keep(store: Store, name: OrderName, table: str, rows: pa.Table, version: int) -> Sha256:
    """Keep one version; it carries its number, so that no two versions share an object that one of them may remove."""
    sink = pa.BufferOutputStream()
    rows = rows.replace_schema_metadata({"fleetbatch.table_version": str(version)})
    pq.write_table(rows, sink, compression="zstd", write_page_checksum=True)
    data = sink.getvalue().to_pybytes()
    digest = Sha256(hashlib.sha256(data).hexdigest())
    store.create(layout.kept_beside(name, table, digest), data)
    return digest
