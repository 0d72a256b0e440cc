"""What a car says to a gateway in tests, and what lies behind it: messages, rounds, shards."""

from typing import Any

import pyarrow as pa

from fleetbatch.protocol import Lease
from fleetbatch.units import ShardId, shard_hex


def poll(**changes: Any) -> dict[str, Any]:
    """Return a valid poll as a dict, with some words changed."""
    hardware = {
        "hardware_class": "orin",
        "provider": "CPUExecutionProvider",
        "threads": 2,
        "memory_bytes": 1 << 30,
        "runner_version": "0.1.0",
        "power_w": 60.0,
    }
    return {"protocol": 1, "signals": {"Vehicle.Speed": 0.0}, "hardware": hardware, "willing": True, **changes}


def beat(lease: Lease, done: int = 0, **changes: Any) -> dict[str, Any]:
    said = {"lease_id": lease.lease_id, "fence": lease.fence, "row_groups_done": done, "energy_wh": 0.5, "busy_s": 1.0}
    return {**said, **changes}


def release(lease: Lease, reason: str = "unplugged") -> dict[str, Any]:
    said = {"lease_id": lease.lease_id, "fence": lease.fence, "reason": reason, "energy_wh": 0.5, "busy_s": 1.0}
    return {**said, "detail": "in a test"}


def shard_bytes(shard: int, groups: int) -> bytes:
    """What a shard's file holds here: a gateway never looks inside."""
    return shard_hex(ShardId(shard)).encode().ljust(100 * groups, b".")


def assignments(offers: tuple[tuple[int, int], ...]) -> pa.Table:
    """Return a round of (car, shard), each car's in the order given."""
    seen: dict[int, int] = {}
    rows = []
    for car, shard in offers:
        seen[car] = seen.get(car, -1) + 1
        rows.append({"car_id": car, "seq": seen[car], "shard_id": shard} | _ADVICE)
    return pa.Table.from_pylist(rows)


_ADVICE = {
    "copy": 0,
    "rg_start": 0,
    "rg_end": 1,
    "start_s": 0.0,
    "end_s": 60.0,
    "p_finish": 0.9,
    "expected_units": 1.0,
    "speculative": False,
    "reason": 0,
}
