"""Parts become result files: every item of the order stands in them exactly once, or is named missing."""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import contract
from fleetbatch.errors import RejectedError
from fleetbatch.merge.codes import conform_coded
from fleetbatch.merge.files import ROW_GROUP_BYTES, RowFile
from fleetbatch.merge.joining import Joined, JoinJob, join_shards
from fleetbatch.nouns import FrozenOrder, Merged, OrderKey
from fleetbatch.store import Store
from fleetbatch.units import Sha256, ShardId

_BATCH_ROWS: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Merging:
    """Dials of the merge; they bound its memory."""

    rows_per_file: int = 1_000_000
    row_group_bytes: int = ROW_GROUP_BYTES
    """A row group of a result file is written when this much waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """Shards that go into one file."""

    first_row: int
    shards: tuple[tuple[ShardId, int], ...]


def merge_order(
    store: Store,
    order: FrozenOrder,
    parts: pa.Table,
    missing: pa.Table,
    *,
    merging: Merging | None = None,
    pool: Executor | None = None,
) -> Merged:
    """Join parts with their sources, shard by shard, into staged files; name the rows that nobody computed.

    `parts` are the ledger's valid parts, `missing` its shards given up (shard_id, reason). Several files are joined on
    the pool, when one is given; which file a row goes to does not depend on it. Memory is bounded by a shard and a row
    group, whatever the night's size. Raises RejectedError when rows would be lost or doubled, or when a part is not
    what the ledger recorded.
    """
    key, dials = order.key, merging or Merging()
    parts, reasons = _in_order(parts), _reasons(missing)
    token = _token(key, parts, reasons)
    shards = _planned(store, key)
    jobs = [
        JoinJob(
            store=store,
            order=order,
            token=token,
            number=number,
            first_row=file.first_row,
            shards=file.shards,
            parts=_of_shards(parts, file),
            reasons={shard: reasons[shard] for shard, _ in file.shards if shard in reasons},
            row_group_bytes=dials.row_group_bytes,
        )
        for number, file in enumerate(_files(shards, dials.rows_per_file))
    ]
    joined = list((pool.map if pool and len(jobs) > 1 else map)(join_shards, jobs))
    files = tuple(one.file for one in joined if one.file)
    dead, rows_in = sum(one.dead_rows for one in joined), sum(rows for _, rows in shards)
    merged = Merged(
        key=str(key),
        token=token,
        files=files,
        missing_sha256=_gather_missing(store, key, joined),
        shards=len(shards),
        rows_in=rows_in,
        rows_out=sum(one.items for one in joined) - dead,
        dead_letter_rows=dead,
        missing_rows=sum(one.missing_rows for one in joined),
        answers=sum(file.rows for file in files),
    )
    _refuse_unplanned(merged, parts, shards)
    store.write(layout.staged(key, "merged.json"), msgspec.json.encode(merged))
    return merged


def load_merged(store: Store, key: OrderKey) -> Merged:
    """Read what the merge wrote down; later rooms are handed the key only."""
    return msgspec.json.decode(store.read(layout.staged(key, "merged.json")), type=Merged)


def parts_token(key: OrderKey, parts: pa.Table, missing: pa.Table) -> str:
    """Return the token that a merge of these parts and missing shards has. Pure."""
    return _token(key, _in_order(parts), _reasons(missing))


def _in_order(parts: pa.Table) -> pa.Table:
    return parts.sort_by([("shard_id", "ascending"), ("row_group_start", "ascending"), ("key", "ascending")])


def _reasons(missing: pa.Table) -> dict[int, str]:
    return {row["shard_id"]: row["reason"] for row in missing.to_pylist()}


def _token(key: OrderKey, parts: pa.Table, reasons: dict[int, str]) -> str:
    digest = hashlib.blake2b(str(key).encode(), digest_size=8)
    for batch in parts.select(["key", "sha256"]).to_batches(max_chunksize=_BATCH_ROWS):
        for part in batch.to_pylist():
            digest.update(f"{part['key']} {part['sha256']}\n".encode())
    for shard_id, reason in sorted(reasons.items()):
        digest.update(f"{shard_id} {reason}\n".encode())
    return f"g{key.generation}-{digest.hexdigest()}"


def _planned(store: Store, key: OrderKey) -> list[tuple[ShardId, int]]:
    """Return the manifest's shards with their rows; raise RejectedError when the sources have another number."""
    with tempfile.TemporaryDirectory(prefix="fleetbatch-merge-") as folder:
        local = Path(folder) / "manifest.parquet"
        store.fetch(layout.manifest(key), local)
        manifest = pq.read_table(local, columns=["shard_id", "rows"])
    shards = [(ShardId(row["shard_id"]), int(row["rows"])) for row in manifest.to_pylist()]
    sources = pl.scan_parquet(store.uri(layout.sources(key)), storage_options=store.storage_options())
    found, planned = sources.select(pl.len()).collect().item(), sum(rows for _, rows in shards)
    if found != planned:
        summary = f"the sources of {key} are not those of its manifest; cut the order again (force)"
        raise RejectedError(summary, [f"the sources have {found} rows, the manifest has {planned}"])
    return shards


def _files(shards: Sequence[tuple[ShardId, int]], rows_max: int) -> Iterator[_File]:
    """Yield shards that follow each other, at most so many rows together; a shard's rows stay in one file."""
    waiting: list[tuple[ShardId, int]] = []
    first_row = held = 0
    for shard, rows in shards:
        if waiting and held + rows > rows_max:
            yield _File(first_row=first_row, shards=tuple(waiting))
            first_row, held, waiting = first_row + held, 0, []
        waiting.append((shard, rows))
        held += rows
    if waiting:
        yield _File(first_row=first_row, shards=tuple(waiting))


def _of_shards(parts: pa.Table, file: _File) -> pa.Table:
    wanted = pa.array([shard for shard, _ in file.shards], pa.uint64())
    return parts.filter(pc.is_in(parts["shard_id"], value_set=wanted))


def _gather_missing(store: Store, key: OrderKey, joined: Sequence[Joined]) -> Sha256:
    """Put the files' missing rows into one, which exists also when nothing is missing; return its sha256."""
    with tempfile.TemporaryDirectory(prefix="fleetbatch-merge-") as folder:
        path, one = Path(folder) / "missing.parquet", Path(folder) / "one.parquet"
        with RowFile(path, contract("missing_rows"), always=True) as named:
            for staged in (found.missing_key for found in joined if found.missing_key):
                store.fetch(staged, one)
                for batch in pq.ParquetFile(one).iter_batches(_BATCH_ROWS):
                    named.add(conform_coded(pa.Table.from_batches([batch]), "missing_rows"))
        data = path.read_bytes()
    store.write(layout.missing(key), data)
    return Sha256(hashlib.sha256(data).hexdigest())


def _refuse_unplanned(merged: Merged, parts: pa.Table, shards: Sequence[tuple[ShardId, int]]) -> None:
    """Raise RejectedError when parts belong to no shard of the order, or the balance is not even."""
    unplanned = {*parts["shard_id"].to_numpy().tolist()} - {shard for shard, _ in shards}
    if unplanned or merged.rows_in != merged.rows_out + merged.dead_letter_rows + merged.missing_rows:
        summary = f"the parts of {merged.key} are not those of its shards; cut the order again (force)"
        raise RejectedError(summary, [f"shard {shard:016x} is not in the manifest" for shard in sorted(unplanned)])
