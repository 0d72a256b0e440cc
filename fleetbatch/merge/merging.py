"""Parts become result files: every item of the order stands in them exactly once, or is named missing."""

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import conform, contract, empty
from fleetbatch.errors import RejectedError
from fleetbatch.merge.files import Merging, NamedMissing, ResultFiles
from fleetbatch.nouns import FrozenOrder, Merged, OrderKey
from fleetbatch.store import Store
from fleetbatch.units import CLOUD_CAR, Sha256, ShardId, shard_hex
from fleetbatch.workloads import workload

_BATCH_ROWS: Final = 65_536
_PROBLEMS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    """The sorted parts, the reasons, and where each shard's parts stand."""

    order: FrozenOrder
    contract: str
    parts: pa.Table
    part_shards: np.ndarray[tuple[int], np.dtype[np.uint64]]
    reasons: dict[int, str]


def merge_order(
    store: Store, order: FrozenOrder, parts: pa.Table, missing: pa.Table, *, merging: Merging | None = None
) -> Merged:
    """Join parts with their sources, shard by shard, into staged files; name the rows that nobody computed.

    `parts` are the ledger's valid parts, `missing` its shards given up (shard_id, reason). Memory is bounded by a shard
    and a row group of the result, whatever the night's size. Raises RejectedError when rows would be lost or doubled,
    or when a part is not what the ledger recorded.
    """
    key = order.key
    inputs = _inputs(order, parts, missing)
    token = _token(inputs)
    with tempfile.TemporaryDirectory(prefix="fleetbatch-merge-") as name:
        folder = Path(name)
        results_in = contract(inputs.contract)
        rows_in, shards = 0, 0
        with (
            ResultFiles(store, key, token, folder, results_in, merging or Merging()) as files,
            NamedMissing(folder / "missing.parquet") as named,
        ):
            for shard_id, sources in _shards(store, key, folder):
                results, unanswered = _merge_shard(store, inputs, shard_id, sources)
                files.add(results)
                named.add(_missing_rows(key, unanswered, inputs.reasons.get(shard_id)))
                rows_in, shards = rows_in + sources.num_rows, shards + 1
        missing_data = named.path.read_bytes()
    store.write(layout.missing(key), missing_data)
    merged = Merged(
        key=str(key),
        token=token,
        files=tuple(files.staged),
        missing_sha256=Sha256(hashlib.sha256(missing_data).hexdigest()),
        shards=shards,
        rows_in=rows_in,
        rows_out=files.rows - files.dead,
        dead_letter_rows=files.dead,
        missing_rows=named.rows,
    )
    assert merged.rows_in == merged.rows_out + merged.dead_letter_rows + merged.missing_rows
    store.write(layout.staged(key, "merged.json"), msgspec.json.encode(merged))
    return merged


def load_merged(store: Store, key: OrderKey) -> Merged:
    """Read what the merge wrote down; later rooms are handed the key only."""
    return msgspec.json.decode(store.read(layout.staged(key, "merged.json")), type=Merged)


def _inputs(order: FrozenOrder, parts: pa.Table, missing: pa.Table) -> _Inputs:
    parts = parts.sort_by([("shard_id", "ascending"), ("row_group_start", "ascending"), ("key", "ascending")])
    return _Inputs(
        order=order,
        contract=workload(order.order.workload).results_contract,
        parts=parts,
        part_shards=parts["shard_id"].to_numpy().astype(np.uint64),
        reasons={row["shard_id"]: row["reason"] for row in missing.to_pylist()},
    )


def _token(inputs: _Inputs) -> str:
    digest = hashlib.blake2b(str(inputs.order.key).encode(), digest_size=8)
    for batch in inputs.parts.select(["key", "sha256"]).to_batches(max_chunksize=_BATCH_ROWS):
        for part in batch.to_pylist():
            digest.update(f"{part['key']} {part['sha256']}\n".encode())
    for shard_id, reason in sorted(inputs.reasons.items()):
        digest.update(f"{shard_id} {reason}\n".encode())
    return f"g{inputs.order.key.generation}-{digest.hexdigest()}"


def _shards(store: Store, key: OrderKey, folder: Path) -> Iterator[tuple[ShardId, pa.Table]]:
    """Yield each shard's sources as soon as all its rows were read; the file keeps a shard's rows together."""
    local = folder / "manifest.parquet"
    store.fetch(layout.manifest(key), local)
    manifest = pq.read_table(local, columns=["shard_id", "rows"])
    rows: dict[int, int] = {row["shard_id"]: row["rows"] for row in manifest.to_pylist()}
    local = folder / "sources.parquet"
    store.fetch(layout.sources(key), local)
    waiting: dict[int, pa.Table] = {}
    for batch in pq.ParquetFile(local).iter_batches(_BATCH_ROWS):
        table = conform(pa.Table.from_batches([batch]), "sources")
        shard_ids = table["shard_id"].to_numpy()
        for shard_id in map(int, np.unique(shard_ids)):
            pieces = [waiting.pop(shard_id, table.slice(0, 0)), table.filter(pa.array(shard_ids == shard_id))]
            waiting[shard_id] = pa.concat_tables(pieces)
            if waiting[shard_id].num_rows == rows.get(shard_id):
                yield ShardId(shard_id), waiting.pop(shard_id)
                del rows[shard_id]
    if waiting or rows:
        summary = f"the sources of {key} are not those of its manifest; cut the order again (force)"
        odd = [shard_hex(ShardId(shard_id)) for shard_id in {*waiting, *rows}]
        raise RejectedError(summary, [f"shard {name}" for name in sorted(odd)[:_PROBLEMS_SHOWN]])


def _merge_shard(store: Store, inputs: _Inputs, shard_id: ShardId, sources: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return a shard's results in the order of its rows, and the sources of the rows that have none."""
    first, last = (int(np.searchsorted(inputs.part_shards, np.uint64(shard_id), side=s)) for s in ("left", "right"))
    parts = inputs.parts.slice(first, last - first).to_pylist()
    if not parts:
        return empty(inputs.contract), sources
    answered = pa.concat_tables(_answers(store, inputs, part) for part in parts)
    _refuse_strangers(shard_id, answered["item_id"], sources["item_id"])
    place = pc.index_in(sources["item_id"], value_set=answered["item_id"].combine_chunks())
    found = pc.is_valid(place)
    results = answered.take(place.drop_null()).append_column("source_uri", sources["source_uri"].filter(found))
    return conform(results, inputs.contract), sources.filter(pc.invert(found))


def _refuse_strangers(shard_id: ShardId, answered: "pa.ChunkedArray[Any]", known: "pa.ChunkedArray[Any]") -> None:
    strangers = answered.filter(pc.invert(pc.is_in(answered, value_set=known.combine_chunks())))
    doubled = len(answered) - pc.count_distinct(answered).as_py()
    if len(strangers) or doubled:
        summary = f"the valid parts of shard {shard_hex(shard_id)} are not its rows; audit it again"
        problems = [f"row {item} is not in the shard" for item in strangers.to_pylist()[:_PROBLEMS_SHOWN]]
        raise RejectedError(summary, problems + ([f"{doubled} rows are answered twice"] if doubled else []))


def _answers(store: Store, inputs: _Inputs, part: dict[str, Any]) -> pa.Table:
    """Read one part and put beside each row what the ledger knows of it."""
    data = store.read(part["key"])
    found = hashlib.sha256(data).hexdigest()
    if found != part["sha256"]:
        summary = f"part {part['key']} is not the file that was delivered"
        raise RejectedError(summary, [f"sha256 is {found}, the ledger recorded {part['sha256']}"])
    table = conform(pq.read_table(pa.BufferReader(data)), workload(inputs.order.order.workload).answers_contract)
    known = {
        "shard_id": shard_hex(ShardId(part["shard_id"])),
        "car_class": part["hardware_class"],
        "provider": part["provider"],
        "model_sha256": inputs.order.model_sha256,
        "runner_version": part["runner_version"],
        "computed_at": part["confirmed_at"],
        "energy_wh": part["energy_wh"] / max(1, table.num_rows),
        "energy_source": part["energy_source"],
    }
    types = contract(inputs.contract).schema
    for column, value in known.items():
        table = table.append_column(column, pa.repeat(pa.scalar(value, types.field(column).type), table.num_rows))
    if part["car_id"] == CLOUD_CAR:
        return table.append_column("audit_state", pa.repeat(pa.scalar("trusted"), table.num_rows))
    audited = pa.array(part.get("audited_items") or [], pa.string())
    state = pc.if_else(pc.is_in(table["item_id"], value_set=audited), "audited", "sampled")
    return table.append_column("audit_state", state)


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
    for column, value in named.items():
        rows = rows.append_column(column, pa.array([value] * unanswered.num_rows))
    return conform(rows, "missing_rows")
