"""Checked files become a night of the table at one commit: readers see what was before it, or what is after it."""

import contextlib
import json
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import pyarrow as pa
from deltalake import DeltaTable

from fleetbatch import layout
from fleetbatch.contracts import conform
from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.nouns import FrozenOrder, Merged
from fleetbatch.publish.beside import extend, forget, make_current
from fleetbatch.publish.commits import Commit, commits, open_table, published_path, try_commit
from fleetbatch.publish.footers import refuse_other_files
from fleetbatch.store import MissingObject, Store, refuse_lacking
from fleetbatch.units import OrderName
from fleetbatch.workloads import workload

_TRIES: Final = 40
_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Where a night stands, for whoever reads it."""

    key: str
    token: str
    table: str
    """URI of the Delta table."""
    version: int
    files: tuple[str, ...]
    """Relative to the table."""
    again: bool
    """It was there already: nothing was changed."""


def publish_order(store: Store, order: FrozenOrder, merged: Merged, *, now: datetime) -> Published:
    """Publish a merged night by reference and replace `nights` and `missing_rows` beside the table.

    Doing it again returns the same version. Raises RejectedError for a night without a passing verdict, one that is
    published already from other parts, files that are not what was merged, or a store that cannot keep tables;
    TransientError when other publishers were always first.
    """
    _refuse_unchecked(store, order, merged)
    refuse_lacking(store)
    key, results = order.key, workload(order.order.workload).results_contract
    table = open_table(store, key.order, results)
    if _ours(order, merged, commits(table)) is None:
        targets = {file.name: f"{layout.table(key.order)}/{published_path(key, file.name)}" for file in merged.files}
        for file in merged.files:
            store.copy(file.key, targets[file.name])
        refuse_other_files(store, merged, targets, results)
    published = _commit_until_first(store, order, merged, table, now)
    _settle(store, table, key.order)
    return published


def _refuse_unchecked(store: Store, order: FrozenOrder, merged: Merged) -> None:
    try:
        verdict = json.loads(store.read(layout.verdict(order.key)))
    except MissingObject as error:
        summary = f"{order.key} was not checked; check it before publishing"
        raise RejectedError(summary) from error
    if verdict["token"] != merged.token:
        summary = f"{order.key} was merged again after its checks; check it again before publishing"
        raise RejectedError(summary)
    if not verdict["passed"]:
        summary = f"{order.key} did not pass its checks; see {layout.report(order.key, 'checks.html')}"
        raise RejectedError(summary, [f"shard {name} breaks an expectation" for name in verdict["failing_shards"]])


def _commit_until_first(
    store: Store, order: FrozenOrder, merged: Merged, table: DeltaTable, now: datetime
) -> Published:
    """Commit, looking again each time that somebody else was first; nothing but the small commit is repeated."""
    for attempt in range(_TRIES):
        time.sleep(_PAUSE_S * attempt)
        table.update_incremental()
        history = commits(table)
        ours = _ours(order, merged, history)
        if ours is not None:
            return _published(store, order, merged, ours.version, again=True)
        before = history[0].beside if history else None
        version = table.version() + 1
        beside = extend(store, order, merged, before, _night_row(order, merged, version, now))
        if try_commit(table, order.key, merged, beside, at_ms=int(now.timestamp() * 1000)):
            make_current(store, order.key.order, beside)
            if before:
                forget(store, order.key.order, before)
            return _published(store, order, merged, version, again=False)
    message = f"{order.key}: other publishers of the table were first {_TRIES} times"
    raise TransientError(message)


def _settle(store: Store, table: DeltaTable, name: OrderName) -> None:
    """Leave beside the table what its newest commit names, also when an earlier publisher was killed before that."""
    settled = -1
    while settled != table.version():
        table.update_incremental()
        settled = table.version()
        with contextlib.suppress(MissingObject):  # a newer commit has replaced it, and the next turn sees that one
            make_current(store, name, commits(table)[0].beside)
        table.update_incremental()


def _ours(order: FrozenOrder, merged: Merged, history: list[Commit]) -> Commit | None:
    """Return this computation's commit; raise RejectedError when another one of this or a later generation stands."""
    newest = next((commit for commit in history if commit.night == order.key.night), None)
    if newest is None or newest.token == merged.token:
        return newest
    if newest.generation >= order.key.generation:
        summary = f"{order.key} stays as it is: generation {newest.generation} is published; force a next generation"
        raise RejectedError(summary)
    return None


def _night_row(order: FrozenOrder, merged: Merged, version: int, now: datetime) -> pa.Table:
    row = {
        "night": order.key.night,
        "order": order.key.order,
        "generation": order.key.generation,
        "state": "partial" if merged.missing_rows else "complete",
        "rows_in": merged.rows_in,
        "rows_out": merged.rows_out,
        "dead_letter_rows": merged.dead_letter_rows,
        "missing_rows": merged.missing_rows,
        "shards": merged.shards,
        "model_sha256": order.model_sha256,
        "table_version": version,
        "published_at": now,
        "files": [published_path(order.key, file.name) for file in merged.files],
    }
    return conform(pa.Table.from_pylist([row]), "nights")


def _published(store: Store, order: FrozenOrder, merged: Merged, version: int, *, again: bool) -> Published:
    return Published(
        key=str(order.key),
        token=merged.token,
        table=store.uri(layout.table(order.key.order)),
        version=version,
        files=tuple(published_path(order.key, file.name) for file in merged.files),
        again=again,
    )
