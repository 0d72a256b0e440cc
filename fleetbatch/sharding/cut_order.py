"""Cutting an order: its source becomes sealed shard files, a table of sources, and last a manifest."""

import collections
import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import conform, contract
from fleetbatch.nouns import FrozenOrder
from fleetbatch.sharding.cut import next_cell, plan_shards
from fleetbatch.sharding.cut_shard import CutShard, Memory, Task, cut_shard
from fleetbatch.sharding.openers import open_input, usable_row
from fleetbatch.sharding.scratch import Scratch
from fleetbatch.sharding.shard_rows import item_id, item_ids
from fleetbatch.store import Store
from fleetbatch.units import CellName

IN_FLIGHT: Final = 4
"""Shards handed to an engine and not yet back: bounds memory, keeps a few workers busy."""
SCRATCH: Final = "fleetbatch-cut-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a cut is."""

    shards: int = 0
    rows: int = 0
    dead_rows: int = 0
    size_bytes: int = 0


def cut_order(
    store: Store,
    frozen: FrozenOrder,
    *,
    secret: bytes,
    shares: Mapping[CellName, float],
    engine: Executor | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> pa.Table:
    """Cut an order's source and return its manifest (contract `manifest`, in the order of the source).

    An order that has a manifest is not cut again. An interrupted cut goes on: shard files that hold what is cut are
    kept, and described from what is stored. Memory does not grow with the number of items. The manifest is created
    last, so a cut that fails leaves none. Raises RejectedError when the source holds nothing that can be used.
    """
    stored = _stored_manifest(store, frozen)
    if stored is not None:
        return stored
    given = open_input(frozen.order.workload, frozen.order.source, dict(frozen.order.options))
    usable_row(given)
    tasks = (
        Task(store=store, frozen=frozen, given=given, secret=secret, plan=plan)
        for plan in plan_shards(given.entries(), frozen.order.cutting)
    )
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
        sources = Path(scratch) / "sources.parquet"
        with pq.ParquetWriter(sources, contract("sources").schema) as writer:
            cut = _run(tasks, engine, room_bytes=2 * frozen.order.cutting.shard_bytes)
            manifest = _collect(cut, frozen, shares, writer, progress)
        _put_sources(store, frozen, sources)
        return _put_manifest(store, frozen, manifest, Path(scratch) / "manifest.parquet")


class _Own(threading.local):
    """What a worker's thread keeps from shard to shard: an engine's threads cut at the same time."""

    def __init__(self) -> None:
        """Begin with next to nothing; `threading.local` calls this in every thread."""
        self.memory = Memory()


_own: Final = _Own()


def _cut_elsewhere(task: Task) -> CutShard:
    """Cut a shard on an engine; its thread keeps the memory, which is as large as a shard, until it ends."""
    return cut_shard(task, _own.memory)


def _run(tasks: Iterable[Task], engine: Executor | None, *, room_bytes: int) -> Iterator[CutShard]:
    """Yield the shards in order: one after the other here, or a few at a time on an engine.

    `room_bytes` hold any shard's items and its file, so that memory is not outgrown; what nobody touches costs nothing.
    """
    if engine is None:
        memory = Memory(items=Scratch(room_bytes), file=Scratch(room_bytes))
        yield from (cut_shard(task, memory) for task in tasks)
        return
    flying: collections.deque[Future[CutShard]] = collections.deque()
    for task in tasks:
        flying.append(engine.submit(_cut_elsewhere, task))
        if len(flying) >= IN_FLIGHT:
            yield flying.popleft().result()
    while flying:
        yield flying.popleft().result()


def _collect(
    cut: Iterable[CutShard],
    frozen: FrozenOrder,
    shares: Mapping[CellName, float],
    sources: pq.ParquetWriter,
    progress: Callable[[Progress], None],
) -> pa.Table:
    rows: list[dict[str, Any]] = []
    given: dict[CellName, float] = {}
    done = Progress()
    for one in cut:
        work = float(len(one.uris) - one.dead_rows)
        cell = next_cell(shares, given, work)
        given[cell] = given.get(cell, 0.0) + work
        rows.append(_manifest_row(one, frozen, cell, work))
        sources.write_table(_sources_table(one))
        done = Progress(
            shards=done.shards + 1,
            rows=done.rows + len(one.uris),
            dead_rows=done.dead_rows + one.dead_rows,
            size_bytes=done.size_bytes + one.file.size_bytes,
        )
        progress(done)
    return conform(pa.Table.from_pylist(rows, schema=contract("manifest").schema), "manifest")


def _manifest_row(one: CutShard, frozen: FrozenOrder, cell: CellName, work: float) -> dict[str, Any]:
    return {
        "shard_id": one.shard_id,
        "cell": cell,
        "key": layout.shard(frozen.key, one.shard_id),
        "rows": len(one.uris),
        "dead_rows": one.dead_rows,
        "row_groups": len(one.file.row_group_rows),
        "row_group_rows": one.file.row_group_rows,
        "row_group_start": one.file.row_group_start,
        "row_group_stop": one.file.row_group_stop,
        "size_bytes": one.file.size_bytes,
        "sha256": one.file.sha256,
        "work_units": work,
        "first_item_id": item_id(one.shard_id, 0),
        "last_item_id": item_id(one.shard_id, len(one.uris) - 1),
    }


def _sources_table(one: CutShard) -> pa.Table:
    groups = [number for number, rows in enumerate(one.file.row_group_rows) for _ in range(rows)]
    rows = len(one.uris)
    columns = {
        "item_id": pa.array(item_ids(one.shard_id, range(rows)), pa.string()),
        "shard_id": pa.repeat(pa.scalar(one.shard_id, pa.uint64()), rows),
        "row_group": pa.array(groups, pa.int32()),
        "source_uri": pa.array(one.uris, pa.string()),
        "answers": pa.array(one.answers, pa.int32()),
    }
    return conform(pa.table(columns), "sources")


def _stored_manifest(store: Store, frozen: FrozenOrder) -> pa.Table | None:
    name = layout.manifest(frozen.key)
    if store.size(name) is None:
        return None
    return conform(pq.read_table(pa.BufferReader(store.read(name))), "manifest")


def _put_manifest(store: Store, frozen: FrozenOrder, manifest: pa.Table, path: Path) -> pa.Table:
    pq.write_table(manifest, path)
    if store.create_file(layout.manifest(frozen.key), path):
        return manifest
    return conform(pq.read_table(pa.BufferReader(store.read(layout.manifest(frozen.key)))), "manifest")


def _put_sources(store: Store, frozen: FrozenOrder, path: Path) -> None:
    """Create the table of sources; one that an interrupted cut left is replaced unless it says the same."""
    name = layout.sources(frozen.key)
    if store.create_file(name, path):
        return
    left = path.with_name("left.parquet")
    store.fetch(name, left)
    if _digest(left) != _digest(path):
        store.delete(name)
        store.create_file(name, path)


def _digest(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
