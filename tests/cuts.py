"""Cutting in the tests of it: an order frozen, its source cut in one cell, and its shards opened again."""

import io
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fleetbatch import layout
from fleetbatch.nouns import Auditing, Cutting, FrozenOrder, Order, OrderKey
from fleetbatch.sealing import KEY_BYTES, shard_key, unseal
from fleetbatch.sharding import cut_order
from fleetbatch.store import Store
from fleetbatch.units import CellName, Night, OrderName, Sha256, ShardId

SECRET = bytes(range(KEY_BYTES))
KEY = OrderKey(night=Night("2026-11-22"), order=OrderName("overnight"), generation=1)
SMALL = Cutting(shard_rows=5, shard_bytes=4000, row_group_rows=2, row_group_bytes=2000)
ONE_CELL = {CellName("eu-1"): 1.0}


def frozen_order(source: Path | str, *, cutting: Cutting = SMALL) -> FrozenOrder:
    order = Order(
        name=KEY.order,
        workload="image",
        source=str(source),
        model="model.zip",
        region="any",
        priority=1,
        deadline_hours=10,
        data_class="open",
        schedule="",
        timezone="UTC",
        cutting=cutting,
        auditing=Auditing(),
    )
    evening = datetime(2026, 11, 22, 20, tzinfo=UTC)
    return FrozenOrder(
        key=KEY,
        order=order,
        model_sha256=Sha256("0" * 64),
        frozen_at=evening,
        deadline_at=evening.replace(hour=23),
        secret_wrapped=b"",
    )


def picture(kind: str = "PNG", *, mode: str = "RGB", size: tuple[int, int] = (9, 7), shade: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, shade).save(file, kind)
    return file.getvalue()


def picture_folder(root: Path) -> Path:
    """Return a folder with twelve pictures in three folders."""
    for number in range(12):
        path = root / f"{number % 3}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(mode="L", shade=number))
    return root


def cut(store: Store, frozen: FrozenOrder) -> pa.Table:
    return cut_order(store, frozen, secret=SECRET, shares=ONE_CELL)


def shard_rows(store: Store, frozen: FrozenOrder, shard: ShardId) -> pa.Table:
    sealed = pa.BufferReader(store.read(layout.shard(frozen.key, shard)))
    with pq.ParquetFile(sealed, decryption_properties=unseal(shard_key(SECRET, shard))) as file:
        return file.read()


def shard_ids(manifest: pa.Table) -> list[ShardId]:
    return [ShardId(row["shard_id"]) for row in manifest.to_pylist()]


def total(manifest: pa.Table, column: str) -> float:
    return sum(float(row[column]) for row in manifest.to_pylist())


def metadata(store: Store, frozen: FrozenOrder, shard: ShardId) -> dict[bytes, bytes]:
    sealed = pa.BufferReader(store.read(layout.shard(frozen.key, shard)))
    return pq.ParquetFile(sealed, decryption_properties=unseal(shard_key(SECRET, shard))).metadata.metadata or {}


def all_rows(store: Store, frozen: FrozenOrder, manifest: pa.Table) -> pa.Table:
    return pa.concat_tables(shard_rows(store, frozen, shard) for shard in shard_ids(manifest))
