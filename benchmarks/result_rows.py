"""A finished night as files, with as many rows as one likes: manifest, sources, parts, as the merge finds them.

Every shard has `SHARD_ROWS` rows in `PARTS` parts; what differs between shards are the items. Written through the
store, a shard at a time.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import conform, contract
from fleetbatch.nouns import Auditing, Cutting, FrozenOrder, Order, OrderKey
from fleetbatch.store import Store
from fleetbatch.units import LeaseId, Night, OrderName, Sha256, ShardId, shard_hex

SHARD_ROWS: Final = 62_500
PARTS: Final = 10
LABELS: Final = tuple(f"label {number}" for number in range(1_000))
_TOP: Final = 5
_NOW: Final = datetime(2026, 11, 23, 5, tzinfo=UTC)
_STRIDE: Final = 0x9E3779B97F4A7C15
"""Odd, so that ordinals become different shard ids that fill 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRows:
    """A night over: the order and its parts, as the ledger would list them."""

    order: FrozenOrder
    parts: pa.Table


def synthetic_order() -> FrozenOrder:
    """Return the order of the night."""
    name = OrderName("synthetic")
    order = Order(
        name=name,
        workload="image",
        source="/pictures",
        model="/bundle.zip",
        region="any",
        priority=1,
        deadline_hours=8.0,
        data_class="open",
        schedule="",
        timezone="Europe/Berlin",
        cutting=Cutting(),
        auditing=Auditing(),
    )
    return FrozenOrder(
        key=OrderKey(night=Night("2026-11-22"), order=name, generation=1),
        order=order,
        model_sha256=Sha256("a" * 64),
        frozen_at=_NOW - timedelta(hours=9),
        deadline_at=_NOW - timedelta(hours=1),
        secret_wrapped=b"",
    )


def write_night(store: Store, *, shards: int, pool: Executor) -> ResultRows:
    """Write manifest, sources and parts of so many shards; return the order and its parts."""
    order = synthetic_order()
    with tempfile.TemporaryDirectory(prefix="fleetbatch-rows-") as name:
        sources = Path(name) / "sources.parquet"
        with pq.ParquetWriter(sources, contract("sources").schema, compression="zstd") as writer:
            for ordinal in range(shards):
                writer.write_table(_sources(_shard_id(ordinal)))
        store.create_file(layout.sources(order.key), sources)
        manifest = Path(name) / "manifest.parquet"
        rows = list(_manifest(order, shards))
        pq.write_table(pa.Table.from_pylist(rows, schema=contract("manifest").schema), manifest)
        store.create_file(layout.manifest(order.key), manifest)
    jobs = [(store, order, number) for number in range(shards)]
    parts = [part for some in pool.map(write_parts, jobs) for part in some]
    ids = pa.array([part.pop("shard_id") for part in parts], pa.uint64())
    return ResultRows(order=order, parts=pa.Table.from_pylist(parts).append_column("shard_id", ids))


def write_parts(job: tuple[Store, FrozenOrder, int]) -> list[dict[str, Any]]:
    """Write one shard's parts; return what the ledger would say of them."""
    store, order, ordinal = job
    shard, found = _shard_id(ordinal), []
    for number in range(PARTS):
        answers = _answers(shard, number, seed=ordinal * PARTS + number)
        sink = pa.BufferOutputStream()
        pq.write_table(answers, sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        digest = Sha256(hashlib.sha256(data).hexdigest())
        key = layout.part(order.key, shard, LeaseId(f"{ordinal}"), number, number + 1, digest)
        store.write(key, data)
        found.append(_part(shard, number, key, digest))
    return found


def _part(shard: ShardId, number: int, key: str, sha256: str) -> dict[str, Any]:
    rows = SHARD_ROWS // PARTS
    return {
        "shard_id": shard,
        "row_group_start": number,
        "row_group_stop": number + 1,
        "key": key,
        "rows": rows,
        "sha256": sha256,
        "hardware_class": "ecu_2",
        "provider": "CPUExecutionProvider",
        "runner_version": "0.1.0",
        "energy_wh": 0.01 * rows,
        "energy_source": "estimated",
        "confirmed_at": _NOW - timedelta(hours=3),
        "car_id": 7 + number,
        "audited_items": [f"{shard_hex(shard)}-{number * rows:06d}"],
    }


def _shard_id(ordinal: int) -> ShardId:
    return ShardId((ordinal + 1) * _STRIDE % 2**64)


def _items(shard: ShardId, start: int = 0, stop: int = SHARD_ROWS) -> pl.Series:
    row = pl.int_range(start, stop).cast(pl.String).str.zfill(6)
    return pl.select(item_id=pl.concat_str(pl.lit(f"{shard_hex(shard)}-"), row)).to_series()


def _sources(shard: ShardId) -> pa.Table:
    columns = {
        "item_id": (items := _items(shard)),
        "shard_id": np.full(SHARD_ROWS, shard, np.uint64),
        "row_group": np.repeat(np.arange(PARTS, dtype=np.int32), SHARD_ROWS // PARTS),
        "source_uri": "s3://photographs/2026/" + items + ".jpg",
    }
    return conform(pl.DataFrame(columns).to_arrow(), "sources")


def _answers(shard: ShardId, row_group: int, *, seed: int) -> pa.Table:
    random, rows = np.random.default_rng(seed), SHARD_ROWS // PARTS
    items = _items(shard, row_group * rows, (row_group + 1) * rows)
    names = random.integers(0, len(LABELS), (rows, _TOP))
    scores = np.sort(random.random((rows, _TOP), dtype=np.float32))[:, ::-1]
    starts, labels = pa.array(np.arange(0, rows * _TOP + 1, _TOP), pa.int32()), pa.array(LABELS)
    columns = {
        "item_id": items.to_arrow(),
        "row_group": pa.array(np.full(rows, row_group, np.int32)),
        "label": labels.take(names[:, 0]),
        "score": pa.array(scores[:, 0].copy()),
        "labels": pa.ListArray.from_arrays(starts, labels.take(names.ravel())),
        "scores": pa.ListArray.from_arrays(starts, pa.array(scores.ravel())),
    }
    return conform(pa.table(columns), "answers_image")


def _manifest(order: FrozenOrder, shards: int) -> Iterator[dict[str, Any]]:
    for ordinal in range(shards):
        shard = _shard_id(ordinal)
        yield {
            "shard_id": shard,
            "cell": "eu-1",
            "key": layout.shard(order.key, shard),
            "rows": SHARD_ROWS,
            "dead_rows": 0,
            "row_groups": PARTS,
            "row_group_rows": [SHARD_ROWS // PARTS] * PARTS,
            "row_group_start": [0] * PARTS,
            "row_group_stop": [1] * PARTS,
            "size_bytes": 1,
            "sha256": "b" * 64,
            "work_units": float(SHARD_ROWS),
            "first_item_id": f"{shard_hex(shard)}-{0:06d}",
            "last_item_id": f"{shard_hex(shard)}-{SHARD_ROWS - 1:06d}",
        }
