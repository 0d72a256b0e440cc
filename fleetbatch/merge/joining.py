"""One result file: some shards of the order, each with all its rows, joined from their parts on any machine."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch import layout
from fleetbatch.contracts import contract, empty
from fleetbatch.errors import RejectedError
from fleetbatch.merge.codes import CODES, beside, conform_coded, either, read_coded, repeated
from fleetbatch.merge.files import RowFile, stage
from fleetbatch.merge.placing import Placed, place
from fleetbatch.merge.sources import SourceRows
from fleetbatch.nouns import FrozenOrder, OrderKey, StagedFile
from fleetbatch.store import Store
from fleetbatch.units import CLOUD_CAR, ShardId, shard_hex
from fleetbatch.workloads import workload


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinJob:
    """Shards that follow each other in the order's sources; it pickles, so that any machine of the engine may do it."""

    store: Store
    order: FrozenOrder
    token: str
    number: int
    """Of the file among the night's."""
    first_row: int
    """Of the first shard, in the table of sources."""
    shards: tuple[tuple[ShardId, int], ...]
    """Each shard with its rows, in the order of the sources."""
    parts: pa.Table
    """The shards' valid parts, by shard and row group."""
    reasons: dict[int, str]
    """Why shards were given up."""
    row_group_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What one job staged."""

    file: StagedFile | None
    items: int
    """Rows of the shards that are answered; each may have several rows in the file."""
    dead_rows: int
    missing_rows: int
    missing_key: str | None
    """Where the names of its missing rows are staged, if it has any."""


def join_shards(job: JoinJob) -> Joined:
    """Stage one result file, and the names of the rows that nobody computed.

    Memory is bounded by a shard, its sources and a row group. Raises RejectedError when rows would be lost or doubled,
    or when a part is not what the ledger recorded.
    """
    key, name = job.order.key, f"{job.token}-{job.number:05d}"
    sources, items, dead = SourceRows(job.store, key, job.first_row), 0, 0
    sources.refuse_others(job.shards)
    results_in = contract(workload(job.order.order.workload).results_contract)
    with tempfile.TemporaryDirectory(prefix="fleetbatch-merge-") as folder:
        path, missing_path = Path(folder) / "results.parquet", Path(folder) / "missing.parquet"
        with (
            RowFile(path, results_in, job.row_group_bytes) as results,
            RowFile(missing_path, contract("missing_rows")) as missing,
        ):
            for shard_id, rows in job.shards:
                placed = _join_shard(job, shard_id, sources.take(rows))
                results.add(placed.results)
                items, dead = items + placed.items, dead + placed.dead
                missing.add(_missing_rows(key, placed.unanswered, job.reasons.get(shard_id)))
        staged = _stage_results(job, path, f"{name}.parquet", results.rows) if results.rows else None
        missing_key = layout.staged(key, f"{name}-missing.parquet") if missing.rows else None
        if missing_key:
            stage(job.store, missing_path, missing_key)
    return Joined(file=staged, items=items, dead_rows=dead, missing_rows=missing.rows, missing_key=missing_key)


def _stage_results(job: JoinJob, path: Path, name: str, rows: int) -> StagedFile:
    key = layout.staged(job.order.key, name)
    size, digest = stage(job.store, path, key)
    return StagedFile(name=name, key=key, rows=rows, size_bytes=size, sha256=digest)


def _join_shard(job: JoinJob, shard_id: ShardId, sources: pa.Table) -> Placed:
    """Return a shard's results in the order of its rows, and the sources of the rows that have none."""
    name = workload(job.order.order.workload).results_contract
    ids = job.parts["shard_id"].to_numpy()
    first, last = (int(np.searchsorted(ids, np.uint64(shard_id), side=s)) for s in ("left", "right"))
    parts = job.parts.slice(first, last - first).to_pylist()
    if not parts:
        return Placed(results=empty(name), unanswered=sources, items=0, dead=0)
    answered = pa.concat_tables(_answers(job, part) for part in parts)
    return place(name, shard_id, answered, sources)


def _answers(job: JoinJob, part: dict[str, Any]) -> pa.Table:
    """Read one part and put beside each row what the ledger knows of it."""
    data = job.store.read(part["key"])
    found = hashlib.sha256(data).hexdigest()
    if found != part["sha256"]:
        summary = f"part {part['key']} is not the file that was delivered"
        raise RejectedError(summary, [f"sha256 is {found}, the ledger recorded {part['sha256']}"])
    work = workload(job.order.order.workload)
    table = read_coded(data, work.answers_contract)
    known = {
        "shard_id": shard_hex(ShardId(part["shard_id"])),
        "car_class": part["hardware_class"],
        "provider": part["provider"],
        "model_sha256": job.order.model_sha256,
        "runner_version": part["runner_version"],
        "computed_at": part["confirmed_at"],
        "energy_wh": part["energy_wh"] / max(1, table.num_rows),
        "energy_source": part["energy_source"],
    }
    return beside(table, known, work.results_contract, audit_state=_audit_state(table["item_id"], part))


def _audit_state(items: "pa.ChunkedArray[Any]", part: dict[str, Any]) -> "pa.Array[Any]":
    if part["car_id"] == CLOUD_CAR:
        return repeated("trusted", len(items), CODES)
    audited = pa.array(part.get("audited_items") or [], pa.string())
    return either(pc.is_in(items, value_set=audited).to_numpy(), "sampled", "audited")


def _missing_rows(key: OrderKey, unanswered: pa.Table, reason: str | None) -> pa.Table:
    """Name the rows without an answer; raise RejectedError when nobody gave their shard up: they would be lost."""
    if not unanswered.num_rows:
        return empty("missing_rows")
    if reason is None:
        first = unanswered["item_id"][0].as_py()
        summary = f"{unanswered.num_rows} rows have neither answer nor reason, the first is {first}; is {key} over?"
        raise RejectedError(summary)
    rows = unanswered.select(["item_id", "source_uri"])
    named = {"night": key.night, "order": key.order, "generation": key.generation, "reason": reason}
    return conform_coded(beside(rows, named, "missing_rows"), "missing_rows")
