"""Why this car, why not: answered from a round's stored tables, in sentences. Pure."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch.planner.reasons import said

SURE = 0.9
CERTAIN = 255

Tables = Mapping[str, pa.Table]
"""By name, as stored under layout.round_table: assignments, unassigned, car_plan, excluded, cars."""


def why(tables: Tables, wanted: int) -> tuple[str, ...]:
    """Return what the round says of a shard or a car with this id, one sentence a line; empty when it knows neither."""
    return (*why_shard(tables, wanted), *why_car(tables, wanted))


def why_shard(tables: Tables, shard_id: int) -> tuple[str, ...]:
    """Return which cars have the shard and why, and why it waits."""
    placed = [
        f"shard {shard_id:016x}: row groups {row['rg_start']} to {row['rg_end']} go to car {row['car_id']:016x}, "
        f"from {row['start_s']:.0f} s to {row['end_s']:.0f} s after the round, "
        f"finished with probability {row['p_finish']:.2f}: {said(row['reason'])}"
        for row in _rows(tables["assignments"], "shard_id", shard_id)
    ]
    waits = [
        f"shard {shard_id:016x} waits: {said(row['reason'])}"
        for row in _rows(tables["unassigned"], "shard_id", shard_id)
    ]
    return (*placed, *waits)


def why_car(tables: Tables, car_id: int) -> tuple[str, ...]:
    """Return the car's queue with reasons, or why it has none, or why it was not planned for."""
    queue = [
        f"car {car_id:016x}, place {row['seq']}: shard {row['shard_id']:016x}, row groups {row['rg_start']} to "
        f"{row['rg_end']}: {said(row['reason'])}"
        for row in _rows(tables["assignments"], "car_id", car_id)
    ]
    idle = [
        f"car {car_id:016x} has nothing: {said(row['reason'])} (it will probably stay {_stays_min(tables, car_id)} min)"
        for row in _rows(tables["car_plan"], "car_id", car_id)
        if row["pieces"] == 0
    ]
    out = [
        f"car {car_id:016x} was not planned for: {row['reason']}{': ' * bool(row['detail'])}{row['detail']}"
        for row in _rows(tables["excluded"], "car_id", car_id)
    ]
    return (*queue, *idle, *out)


def _rows(table: pa.Table, column: str, wanted: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.filter(pc.equal(table[column], pa.scalar(wanted, pa.uint64()))).to_pylist()
    return rows


def _stays_min(tables: Tables, car_id: int) -> int:
    """Return for how many minutes the car is there with the probability SURE, in steps of 15."""
    [row] = _rows(tables["cars"], "car_id", car_id)
    points: list[int] = row["survival"]
    return 15 * (sum(point >= SURE * CERTAIN for point in points) - 1)
