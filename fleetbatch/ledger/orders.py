"""Orders and their shards: opened in the evening, counted through the night, closed in the morning."""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from fleetbatch import layout
from fleetbatch.contracts import conform
from fleetbatch.errors import RejectedError
from fleetbatch.ledger.arrays import copy_out
from fleetbatch.ledger.ids import lease_id
from fleetbatch.ledger.leases import order_key
from fleetbatch.ledger.messages import CloudShard, NightStats, OrderRow, OrderState, ShardCounts
from fleetbatch.ledger.pool import Connection, Pool, Row, statement
from fleetbatch.nouns import FrozenOrder, Order, OrderKey
from fleetbatch.units import Night, OrderName, Sha256, ShardId

_REGISTER_ROWS: Final = 20_000
CAR_POWER_W_MAX: Final = 2000.0
"""More than any car's computers draw: of the energy that a car claims, what is above counts nowhere."""
_OPEN_SHARDS: Final = {
    "shard_id": "i8",
    "order_no": "i4",
    "row_groups": "i2",
    "done_through": "i2",
    "rows": "i4",
    "work_units": "f8",
    "size_bytes": "i8",
    "held_by_car": "i8",
    "held_us": "i8",
}
_MOMENT: Final = pa.timestamp("us", tz="UTC")


class Orders:
    """The statements about orders and shards."""

    _pool: Pool

    def open_order(self, frozen: FrozenOrder) -> None:
        """Make an order known to this cell, once; its partitions exist from here on."""
        parameters = {
            **_name(frozen.key),
            "frozen": msgspec.json.encode(frozen.order).decode(),
            "workload": frozen.order.workload,
            "model_sha256": frozen.model_sha256,
            "data_class": frozen.order.data_class,
            "priority": frozen.order.priority,
            "attempts_max": frozen.order.auditing.attempts_max,
            "frozen_at": frozen.frozen_at,
            "deadline_at": frozen.deadline_at,
            "secret_wrapped": frozen.secret_wrapped,
        }
        self._pool.rows("ensure_night", {"night": parameters["night"]})
        self._pool.rows("open_order", parameters)

    def order(self, key: OrderKey) -> OrderRow | None:
        """Return one order; None when this cell does not know it."""
        rows = self._orders(key)
        return order_row(rows[0]) if rows else None

    def newest_generation(self, night: Night, name: OrderName) -> OrderKey | None:
        """Return the key of an order's newest generation in a night; None when this cell knows none."""
        [row] = self._pool.rows("newest_generation", {"night": dt.date.fromisoformat(night), "name": name})
        known = row["generation"] is not None
        return OrderKey(night=night, order=name, generation=row["generation"]) if known else None

    def orders_open(self) -> list[OrderRow]:
        """Return the orders that are open or paused, oldest first."""
        return [order_row(row) for row in self._orders(only_open=True)]

    def register_shards(self, key: OrderKey, manifest: pa.Table) -> int:
        """Register the shards of a manifest (contract `manifest`); return how many were new."""
        number, table = self._number(key), conform(manifest, "manifest")
        new = 0
        for batch in table.sort_by("shard_id").to_batches(max_chunksize=_REGISTER_ROWS):
            parameters = {"night": _night(key), "order_no": number, **_register_columns(batch)}

            def work(connection: Connection, parameters: dict[str, Any] = parameters) -> int:
                return connection.execute(statement("register"), parameters).rowcount

            new += self._pool.run(work)
        if new:
            self._pool.rows("analyze_shards", {"night": _night(key)})
        return new

    def counts(self, key: OrderKey) -> ShardCounts:
        """Return how many shards of an order are in which state."""
        rows = self._pool.rows("counts", self._where(key))
        return ShardCounts(**{row["state"]: row["count"] for row in rows})

    def open_shards(self) -> pa.Table:
        """Return the shards of open orders that cars may compute or are computing, sorted by shard_id.

        Columns shard_id (uint64), order_key, workload, data_class, region, model_sha256 (strings), row_groups,
        done_through, rows, work_units, size_bytes, priority, deadline_at, held_by_car (uint64; null when free),
        lease_started_at (null when free).
        """
        orders = {row["order_no"]: order_row(row) for row in self._orders()}
        found = self._pool.run(lambda connection: copy_out(connection, "open_shards", {}, _OPEN_SHARDS))
        of = [orders[number] for number in found["order_no"].tolist()]
        free = found["held_by_car"] < 0
        return pa.table(
            {
                "shard_id": pa.array(found["shard_id"].view(np.uint64)),
                "order_key": pa.array([str(o.key) for o in of], pa.string()),
                "workload": pa.array([o.frozen.order.workload for o in of], pa.string()),
                "data_class": pa.array([o.frozen.order.data_class for o in of], pa.string()),
                "region": pa.array([o.frozen.order.region for o in of], pa.string()),
                "model_sha256": pa.array([o.frozen.model_sha256 for o in of], pa.string()),
                "row_groups": pa.array(found["row_groups"]),
                "done_through": pa.array(found["done_through"]),
                "rows": pa.array(found["rows"]),
                "work_units": pa.array(found["work_units"]),
                "size_bytes": pa.array(found["size_bytes"]),
                "priority": pa.array([o.frozen.order.priority for o in of], pa.int16()),
                "deadline_at": pa.array([o.frozen.deadline_at for o in of], _MOMENT),
                "held_by_car": pa.array(found["held_by_car"].view(np.uint64), mask=free),
                "lease_started_at": pa.array(found["held_us"], _MOMENT, mask=free),
            }
        )

    def cloud_shards(self, limit: int, *, deadline_before: dt.datetime) -> list[CloudShard]:
        """Return free shards for the cloud lane: those that no car gets any more, and those due before that instant."""
        rows = self._pool.rows("cloud_shards", {"limit": limit, "deadline_before": deadline_before})
        return [
            CloudShard(
                shard_id=ShardId(row["shard_id"]),
                order_key=order_key(row),
                work_units=row["work_units"],
                cloud_only=row["cloud_only"],
            )
            for row in rows
        ]

    def missing_shards(self, key: OrderKey) -> pa.Table:
        """Return shard_id (uint64) and reason of the shards that were given up."""
        rows = self._pool.rows("missing_shards", self._where(key))
        return pa.Table.from_pylist(rows, pa.schema(_MISSING))

    def valid_parts(self, key: OrderKey) -> pa.Table:
        """Return the parts that may be published: of shards that are valid or done, sorted by shard and row group.

        Columns shard_id (uint64), row_group_start, row_group_stop, key, rows, size_bytes, sha256, hardware_class,
        provider, runner_version, energy_wh, energy_source, confirmed_at, car_id (uint64), lease_id, audit_state (a
        `Credit`; `none` for the cloud lane, which needs no audit), audited_items (item ids of the lease's shard).
        """
        where = self._where(key)
        rows = self._pool.rows("valid_parts", {**where, "power_w_max": CAR_POWER_W_MAX})
        for row in rows:
            row["lease_id"] = lease_id(where["night"], row["shard_id"], row["fence"])
            span = (row["row_group_start"], row["row_group_stop"])
            row["key"] = layout.part(key, ShardId(row["shard_id"]), row["lease_id"], *span, Sha256(row["sha256"]))
        return pa.Table.from_pylist(rows, pa.schema(_PARTS))

    def mark_published(self, key: OrderKey) -> None:
        """Make the valid shards of a closed order done: its table is committed. Done twice is done once."""
        where = self._where(key)
        self._pool.rows("publish_shards", where)
        if not self._pool.rows("publish_order", where):
            summary = f"{key} is not closed, so nothing of it can have been published; run its publish task"
            raise RejectedError(summary)

    def night_stats(self, key: OrderKey) -> NightStats:
        """Return what an order's night was so far."""
        [row] = self._pool.rows("night_stats", {**self._where(key), "power_w_max": CAR_POWER_W_MAX})
        return NightStats(**row)

    def _orders(self, key: OrderKey | None = None, *, only_open: bool = False) -> list[Row]:
        name = _name(key) if key else {"night": None, "name": None, "generation": None}
        return self._pool.rows("orders", {**name, "only_open": only_open})

    def _number(self, key: OrderKey) -> int:
        rows = self._orders(key)
        if not rows:
            summary = f"the ledger does not know the order {key}; it is opened by the night's first task"
            raise RejectedError(summary)
        number: int = rows[0]["order_no"]
        return number

    def _where(self, key: OrderKey) -> dict[str, Any]:
        return {"night": _night(key), "order_no": self._number(key)}


_MISSING: Final[Mapping[str, pa.DataType]] = {"shard_id": pa.uint64(), "reason": pa.string()}
_PARTS: Final[Mapping[str, pa.DataType]] = {
    "shard_id": pa.uint64(),
    "row_group_start": pa.int32(),
    "row_group_stop": pa.int32(),
    "key": pa.string(),
    "rows": pa.int32(),
    "size_bytes": pa.int64(),
    "sha256": pa.string(),
    "hardware_class": pa.string(),
    "provider": pa.string(),
    "runner_version": pa.string(),
    "energy_wh": pa.float64(),
    "energy_source": pa.string(),
    "confirmed_at": _MOMENT,
    "car_id": pa.uint64(),
    "lease_id": pa.string(),
    "audit_state": pa.string(),
    "audited_items": pa.list_(pa.string()),
}


def _night(key: OrderKey) -> dt.date:
    return dt.date.fromisoformat(key.night)


def _name(key: OrderKey) -> dict[str, Any]:
    return {"night": _night(key), "name": key.order, "generation": key.generation}


def order_row(row: Row) -> OrderRow:
    """Return an order as the ledger holds it."""
    frozen = FrozenOrder(
        key=order_key(row),
        order=msgspec.convert(row["frozen"], Order),
        model_sha256=Sha256(row["model_sha256"]),
        frozen_at=row["frozen_at"],
        deadline_at=row["deadline_at"],
        secret_wrapped=row["secret_wrapped"],
    )
    state = OrderState(row["state"])
    return OrderRow(frozen=frozen, state=state, opened_at=row["opened_at"], published_at=row["published_at"])


def _register_columns(batch: pa.RecordBatch) -> dict[str, list[Any]]:
    """Return a manifest's batch as parameters; row counts as array literals, since they differ in length."""
    names = ("shard_id", "row_groups", "rows", "work_units", "size_bytes", "sha256", "row_group_rows")
    columns: dict[str, list[Any]] = {name: batch[name].to_pylist() for name in names}
    return columns | {
        "sha256": [bytes.fromhex(text) for text in columns["sha256"]],
        "row_group_rows": [f"{{{','.join(map(str, counts))}}}" for counts in columns["row_group_rows"]],
    }
