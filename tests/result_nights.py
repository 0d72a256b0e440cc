"""A night that is over, as files: sources, manifest, parts and audits, as the rooms before the merge leave it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import conform
from fleetbatch.nouns import Auditing, Cutting, FrozenOrder, Order, OrderKey
from fleetbatch.store import Store
from fleetbatch.units import CarId, LeaseId, Night, OrderName, Sha256, ShardId, shard_hex

LABELS = ("stop", "yield", "priority")
NOW = datetime(2026, 11, 23, 5, tzinfo=UTC)


def frozen_order(
    *, night: str = "2026-11-22", order: str = "signs", generation: int = 1, **changed: Any
) -> FrozenOrder:
    values: dict[str, Any] = {
        "name": OrderName(order),
        "workload": "image",
        "source": "/pictures",
        "model": "/bundle.zip",
        "region": "any",
        "priority": 1,
        "deadline_hours": 8.0,
        "data_class": "open",
        "schedule": "",
        "timezone": "Europe/Berlin",
        "cutting": Cutting(),
        "auditing": Auditing(),
    }
    return FrozenOrder(
        key=OrderKey(night=Night(night), order=OrderName(order), generation=generation),
        order=Order(**(values | changed)),
        model_sha256=Sha256("a" * 64),
        frozen_at=NOW - timedelta(hours=9),
        deadline_at=NOW - timedelta(hours=1),
        secret_wrapped=b"",
    )


@dataclass
class ResultNight:
    """Shards as lists of row-group sizes; `deliver` puts parts into the store, as the ledger would list them."""

    store: Store
    shards: Mapping[int, Sequence[int]]
    order: FrozenOrder = field(default_factory=frozen_order)
    parts: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        sources = [
            {"item_id": item, "shard_id": shard, "row_group": group, "source_uri": f"file:///pictures/{item}.jpg"}
            for shard, groups in self.shards.items()
            for item, group in self.items(shard)
        ]
        self._table(layout.sources(self.order.key), sources, "sources")
        manifest = [self._shard(shard, groups) for shard, groups in self.shards.items()]
        self._table(layout.manifest(self.order.key), manifest, "manifest")

    def items(self, shard: int) -> list[tuple[str, int]]:
        groups = [group for group, rows in enumerate(self.shards[shard]) for _ in range(rows)]
        return [(f"{shard_hex(ShardId(shard))}-{row:06d}", group) for row, group in enumerate(groups)]

    def all_items(self) -> list[str]:
        return sorted(item for shard in self.shards for item, _ in self.items(shard))

    def deliver(self, shard: int, start: int, stop: int, *, car: int = 7, **changed: Any) -> None:
        rows = [self.answer(item, group) for item, group in self.items(shard) if start <= group < stop]
        self.deliver_rows(shard, start, stop, rows, car=car, **changed)

    def deliver_rows(
        self, shard: int, start: int, stop: int, rows: list[dict[str, Any]], *, car: int = 7, **changed: Any
    ) -> None:
        digest = Sha256(f"{car:064x}")
        key = layout.part(self.order.key, ShardId(shard), LeaseId(f"{shard}-{start}-{car}"), start, stop, digest)
        part = {
            "shard_id": shard,
            "row_group_start": start,
            "row_group_stop": stop,
            "key": key,
            "rows": len(rows),
            "sha256": self._table(key, rows, "answers_image"),
            "hardware_class": "cloud" if car == 0 else "ecu_2",
            "provider": "CPUExecutionProvider",
            "runner_version": "0.1.0",
            "energy_wh": 0.5 * len(rows),
            "energy_source": "estimated",
            "confirmed_at": NOW,
            "car_id": CarId(car),
            "audited_items": [] if car == 0 else [rows[0]["item_id"]],
        }
        self.parts.append(part | changed)

    def deliver_all(self) -> "ResultNight":
        for shard, groups in self.shards.items():
            self.deliver(shard, 0, len(groups))
        return self

    def parts_table(self) -> pa.Table:
        names = {"shard_id": pa.uint64(), "row_group_start": pa.int32(), "key": pa.string(), "sha256": pa.string()}
        schema = pa.schema([pa.field(name, kind) for name, kind in names.items()])
        table = pa.Table.from_pylist(self.parts) if self.parts else schema.empty_table()
        return table.set_column(0, "shard_id", table["shard_id"].cast(pa.uint64()))

    @staticmethod
    def answer(item: str, group: int, **changed: Any) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "item_id": item,
            "row_group": group,
            "label": LABELS[0],
            "score": 0.9,
            "labels": list(LABELS),
            "scores": [0.9, 0.06, 0.04],
            "error": None,
        }
        return answer | changed

    def dead(self, item: str, group: int, error: str = "not a picture") -> dict[str, Any]:
        return self.answer(item, group, label=None, score=None, labels=None, scores=None, error=error)

    def _shard(self, shard: int, groups: Sequence[int]) -> dict[str, Any]:
        items = self.items(shard)
        return {
            "shard_id": shard,
            "cell": "eu-1",
            "key": layout.shard(self.order.key, ShardId(shard)),
            "rows": len(items),
            "dead_rows": 0,
            "row_groups": len(groups),
            "row_group_rows": list(groups),
            "row_group_start": [0] * len(groups),
            "row_group_stop": [1] * len(groups),
            "size_bytes": 1,
            "sha256": "b" * 64,
            "work_units": float(len(items)),
            "first_item_id": items[0][0],
            "last_item_id": items[-1][0],
        }

    def _table(self, key: str, rows: list[dict[str, Any]], name: str) -> Sha256:
        sink = pa.BufferOutputStream()
        pq.write_table(conform(pa.Table.from_pylist(rows), name), sink)
        data = sink.getvalue().to_pybytes()
        self.store.write(key, data)
        return Sha256(hashlib.sha256(data).hexdigest())


def missing_shards(reasons: Mapping[int, str] | None = None) -> pa.Table:
    reasons = reasons or {}
    return pa.table(
        {
            "shard_id": pa.array(list(reasons), pa.uint64()),
            "reason": pa.array(list(reasons.values()), pa.string()),
        }
    )
