"""Builders of planner tables: valid rows; a test changes one word."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from fleetbatch.contracts import conform, empty
from fleetbatch.planner.policy import Policy

NOW = datetime(2026, 11, 22, 21, 0, tzinfo=UTC)
POLICY = Policy(rates=((1.0, 0.5), (2.0, 4.0)), power_w=(150.0, 300.0), prices_from_cars=200)
"""A few cars by the simple rule; tests that mean prices say so."""
STAYS = [255] * 97

_CAR: dict[str, Any] = {
    "owner_id": 1, "region": 0, "price_zone": 0, "hw": 0, "consent": 3, "cached": 3, "speed": 1.0, "mem_B": 1 << 30,
    "link_down_Bps": 1e7, "link_up_Bps": 1e7, "ready_s": 0.0, "limit_s": 28_800.0, "survival": STAYS,
    "reputation": 1.0, "deficit_units": 0.0, "running_shard": None, "running_row_group": None, "free_in_s": 0.0,
    "last_seen_s": 1.0,
}  # fmt: skip
_SHARD: dict[str, Any] = {
    "workload": 0, "work_units": 600.0, "size_B": 6_000_000, "row_groups": 10, "rg_next": 0, "region": 0,
    "hw_mask": 255, "mem_B": 1 << 20, "priority": 1, "deadline_s": 28_800.0, "replicas": 1, "held_by": [],
}  # fmt: skip


def car(car_id: int, **changes: Any) -> dict[str, Any]:
    """A willing car that stays the whole day; owned by nobody else."""
    return {"car_id": car_id, **_CAR, "owner_id": 1000 + car_id, **changes}


def shard(shard_id: int, **changes: Any) -> dict[str, Any]:
    """Ten row groups of a minute each on a slow car."""
    return {"shard_id": shard_id, **_SHARD, **changes}


def table(rows: list[Mapping[str, Any]], name: str) -> pa.Table:
    """The rows under their contract."""
    schema = empty(name).schema
    return conform(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), name) if rows else empty(name)


def cars(*rows: Mapping[str, Any]) -> pa.Table:
    return table(list(rows), "cars")


def shards(*rows: Mapping[str, Any]) -> pa.Table:
    return table(list(rows), "shards")


def falling(hours: float) -> list[int]:
    """A curve that falls to nothing in so many hours."""
    return [max(0, round(255 * (1 - k / (hours * 4)))) for k in range(97)]


def mixed_fleet(count: int, seed: int) -> pa.Table:
    """Cars of all kinds: consents, hardware, links, charge, windows."""
    chance = np.random.default_rng(seed)
    return cars(
        *(
            car(
                int(number),
                hw=int(chance.integers(2)),
                consent=int(chance.integers(4)),
                cached=int(chance.integers(4)),
                speed=float(chance.uniform(0.5, 2.0)),
                mem_B=int(chance.choice([1 << 19, 1 << 30])),
                link_down_Bps=float(chance.choice([1e4, 1e6, 1e8])),
                ready_s=float(chance.choice([0.0, 600.0, 4000.0])),
                limit_s=float(chance.uniform(0.0, 30_000.0)),
                survival=falling(float(chance.uniform(0.5, 24.0))),
            )
            for number in chance.permutation(np.arange(1, count + 1))
        )
    )


def mixed_work(count: int, seed: int) -> pa.Table:
    """Shards of all kinds: workloads, sizes, priorities, deadlines, progress."""
    chance = np.random.default_rng(seed + 1)
    return shards(
        *(
            shard(
                int(number),
                workload=int(chance.integers(2)),
                work_units=float(chance.uniform(10.0, 5000.0)),
                row_groups=int(chance.integers(4, 30)),
                rg_next=int(chance.integers(0, 4)),
                hw_mask=int(chance.choice([255, 1, 2])),
                priority=int(chance.integers(3)),
                deadline_s=float(chance.choice([-10.0, 3000.0, 28_800.0])),
                mem_B=int(chance.choice([1 << 10, 1 << 20])),
            )
            for number in chance.permutation(np.arange(1, count + 1)) + 10_000
        )
    )
