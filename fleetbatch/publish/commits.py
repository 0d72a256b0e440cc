"""One commit replaces one night; its metadata say which computation it is, so that a retry finds itself."""

import contextlib
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from fleetbatch import layout
from fleetbatch.contracts import contract
from fleetbatch.errors import RejectedError
from fleetbatch.nouns import Merged, OrderKey
from fleetbatch.publish.beside import Beside
from fleetbatch.store import Store
from fleetbatch.units import OrderName, Sha256

_PREFIX: Final = "fleetbatch_"
_CONFIGURATION: Final[dict[str, str | None]] = {"delta.logRetentionDuration": "interval 400 days"}
"""A year of nights is answered from the log: which commit was which night's, and what stood beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A night's commit, as its metadata tell."""

    version: int
    night: str
    generation: int
    token: str
    beside: Beside


def open_table(store: Store, name: OrderName, results: str) -> DeltaTable:
    """Open an order's table, creating it (reader 1, writer 2); raise RejectedError when its columns are others.

    A table of an earlier version of the contract is given the columns that came since, if none of them is required:
    they are null in the nights before.
    """
    uri, options = store.uri(layout.table(name)), store.storage_options()
    schema = contract(results).schema.append(pa.field("night", pa.string(), nullable=False))
    try:
        table = DeltaTable(uri, storage_options=options)
    except TableNotFoundError:
        table = DeltaTable.create(
            uri,
            schema,
            mode="ignore",
            partition_by=["night"],
            name=name,
            configuration=_CONFIGURATION,
            storage_options=options,
        )
    _add_what_came_since(table, schema)
    found = _columns(table)
    if found != set(schema.names):
        summary = f"the table of {name} has other columns than contract {results!r}; publish under another order's name"
        raise RejectedError(summary, [f"only one of them has {column}" for column in sorted(found ^ set(schema.names))])
    return table


def _add_what_came_since(table: DeltaTable, schema: pa.Schema) -> None:
    new = [field for field in schema if field.name not in _columns(table)]
    if new and all(field.nullable for field in new) and _columns(table) < set(schema.names):
        with contextlib.suppress(CommitFailedError):  # another publisher does it at the same time
            table.alter.add_columns([Field.from_arrow(field) for field in new])
        table.update_incremental()


def _columns(table: DeltaTable) -> set[str]:
    return {field.name for field in table.schema().fields}


def commits(table: DeltaTable) -> list[Commit]:
    """Return the nights' commits, newest first."""
    return [_commit(entry) for entry in table.history() if f"{_PREFIX}token" in entry]


def try_commit(table: DeltaTable, key: OrderKey, merged: Merged, beside: Beside, *, at_ms: int) -> bool:
    """Replace the night in version `table.version() + 1`; return False when somebody else wrote that version.

    By-reference commits conflict even between different nights: the caller looks again and repeats this small step.
    """
    adds: list[AddAction | RemoveAction] = [
        AddAction(
            path=published_path(key, file.name),
            size=file.size_bytes,
            partition_values={"night": key.night},
            modification_time=at_ms,
            data_change=True,
            stats=f'{{"numRecords":{file.rows}}}',
        )
        for file in merged.files
    ]
    metadata = {
        "night": key.night,
        "order": key.order,
        "generation": key.generation,
        "token": merged.token,
        "rows_in": merged.rows_in,
        "rows_out": merged.rows_out,
        "dead_letter_rows": merged.dead_letter_rows,
        "missing_rows": merged.missing_rows,
        "nights_sha256": beside.nights,
        "missing_rows_sha256": beside.missing_rows,
    }
    try:
        table.create_write_transaction(
            adds,
            mode="overwrite",
            schema=table.schema(),
            partition_by=["night"],
            partition_filters=[("night", "=", key.night)],
            commit_properties=CommitProperties(
                custom_metadata={_PREFIX + name: value for name, value in metadata.items()}, max_commit_retries=0
            ),
        )
    except CommitFailedError:
        return False
    return True


def published_path(key: OrderKey, name: str) -> str:
    """Return a published file's path relative to its table."""
    return f"night={key.night}/{name}"


def _commit(entry: dict[str, Any]) -> Commit:
    said = {name.removeprefix(_PREFIX): value for name, value in entry.items()}
    return Commit(
        version=int(entry["version"]),
        night=said["night"],
        generation=int(said["generation"]),
        token=said["token"],
        beside=Beside(nights=Sha256(said["nights_sha256"]), missing_rows=Sha256(said["missing_rows_sha256"])),
    )
