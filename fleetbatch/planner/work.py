"""The ledger's open shards and measured rates become the planner's tables. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch.contracts import conform
from fleetbatch.planner.nouns import Round
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.reasons import Reason
from fleetbatch.units import UNIT_S

Kind = tuple[str, str, str]
"""Workload, hash of its model, data class: what an index of `workload` stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beliefs:
    """What is taken for true before anything was measured."""

    rate_units_per_s: float = 1.02
    """A unit of work is a second of the reference car. Rather too fast than too slow: what is believed too slow for a
    deadline is never tried, and never measured."""
    row_units: Mapping[str, float] = field(default_factory=dict)
    """By workload, the units of a row. Orders of unlike workloads meet at the value of a car's time: by the row, twenty
    pictures of the lowest priority were worth more of it than a scenario of the highest."""
    row_units_usual: float = UNIT_S
    """Of a workload that is not among them; 20,000 rows are 20 minutes."""
    unit_s: float = UNIT_S
    """What the ledger calls a unit of work, in the plan's."""
    rate_weight_s: float = 5.0
    """Seconds of measuring after which the measured rate counts as much as the belief."""
    trust_per_car: float = 2.0
    """How many times faster or slower than believed a class may be for each car that was measured: one that says too
    much or too little of itself halves a class or doubles it, and does not stop it."""
    power_w: float = 150.0
    memory_base_bytes: int = 64 << 20
    """What the runner itself and a small model take."""

    def units_of_row(self, workload: str) -> float:
        """Return the units of a row."""
        return self.row_units.get(workload, self.row_units_usual)


def as_registered(beliefs: Beliefs, open_shards: pa.Table, kinds: Sequence[Kind]) -> Beliefs:
    """Return the beliefs with the units of a row of workloads that are not installed here, as open shards say them.

    Whoever registered the shards knew it: measured rows and the work ahead are counted alike. Dead rows count nothing,
    so the shard of which a row counts most says it.
    """
    unknown = {workload for workload, _, _ in kinds} - beliefs.row_units.keys()
    if not unknown:
        return beliefs
    a_row = (pl.col("work_units") / pl.col("rows").clip(1)).max() * beliefs.unit_s
    found = _frame(open_shards).filter(pl.col("workload").is_in(unknown), pl.col("work_units") > 0.0)
    said = dict(found.group_by("workload").agg(a_row).iter_rows())
    return replace(beliefs, row_units={**said, **beliefs.row_units})


def open_work(
    open_shards: pa.Table, cars: pa.Table, kinds: Sequence[Kind], beliefs: Beliefs, *, now: datetime
) -> pa.Table:
    """Return the open shards of the known kinds as contract shards, in order of shard_id.

    `cars` gives the owner of whoever holds a lease; the cloud lane's is 0. A shard needs memory for four of its row
    groups.
    """
    place = _places(open_shards, kinds)
    rows = _frame(open_shards).with_columns(pl.col("held_by_car", "shard_id").cast(pl.UInt64), kind=place)
    rows = rows.drop_nulls("kind")
    rows = rows.with_columns(pl.col("work_units").cast(pl.Float64) * beliefs.unit_s)
    rows = rows if rows["shard_id"].is_sorted() else rows.sort("shard_id")
    row_group_bytes = pl.col("size_bytes") // pl.col("row_groups").clip(lower_bound=1)
    until = pl.col("deadline_at").cast(pl.Datetime("us", "UTC")) - pl.lit(now.astimezone(UTC))
    table = rows.select(
        "shard_id",
        pl.col("kind").cast(pl.UInt8).alias("workload"),
        "work_units",
        pl.col("size_bytes").cast(pl.UInt64).alias("size_B"),
        pl.col("row_groups").cast(pl.UInt16),
        pl.col("done_through").cast(pl.UInt16).alias("rg_next"),
        pl.lit(0, pl.UInt16).alias("region"),
        pl.lit(255, pl.UInt8).alias("hw_mask"),
        (row_group_bytes * 4 + beliefs.memory_base_bytes).cast(pl.UInt64).alias("mem_B"),
        pl.col("priority").cast(pl.UInt8),
        (until.dt.total_microseconds() / 1e6).cast(pl.Float32).alias("deadline_s"),
        pl.lit(1, pl.UInt8).alias("replicas"),
    ).to_arrow()
    return conform(table.append_column("held_by", _owners(rows["held_by_car"], cars)), "shards")


def _places(open_shards: pa.Table, kinds: Sequence[Kind]) -> pl.Series:
    """Return the place of each shard's kind, null where it is none; looks at each word once, not at each pair."""
    code, place_of = np.zeros(open_shards.num_rows, np.int64), np.zeros(len(kinds), np.int64)
    for column, name in enumerate(("workload", "model_sha256", "data_class")):
        words = sorted({kind[column] for kind in kinds})
        found = pc.index_in(open_shards[name], value_set=pa.array(words, pa.string())).fill_null(len(words))
        code = code * (len(words) + 1) + found.to_numpy()
        place_of = place_of * (len(words) + 1) + np.array([words.index(kind[column]) for kind in kinds], np.int64)
    table = np.full(int(max(code.max(initial=0), place_of.max(initial=0))) + 1, NO_KIND, np.int16)
    table[place_of] = np.arange(len(kinds))
    place = table[code]
    return pl.Series(place).set(pl.Series(place == NO_KIND), None)


NO_KIND: Final = -1
OTHER_HARDWARE: Final = "other"
"""The class that stands for all beyond the commonest (contract `cars`)."""


def _owners(holder: pl.Series, cars: pa.Table) -> "pa.ChunkedArray[Any]":
    """Return the owner of each shard's holder as a list of one, 0 for a stranger; an empty list where nobody holds."""
    owners = _frame(cars).select(held_by_car=pl.col("car_id").cast(pl.UInt64), owner=pl.col("owner_id").cast(pl.UInt64))
    held = holder.is_not_null()
    asked = holder.filter(held).to_frame("held_by_car")
    known = asked.join(owners, on="held_by_car", how="left", maintain_order="left")
    offsets: Any = pa.array(np.append(0, np.cumsum(held.to_numpy())).astype(np.int32))
    values: Any = known["owner"].fill_null(0).to_arrow()
    return pa.chunked_array([pa.ListArray.from_arrays(offsets, values)])


def measured_policy(
    policy: Policy, rates: pa.Table, kinds: Sequence[Kind], hardware: Sequence[str], beliefs: Beliefs
) -> Policy:
    """Return the policy with the rates measured: units a busy second, shrunk towards the belief while little is known.

    `rates` is as the ledger gives it. Where cars of a class compute in several ways, the way of the middle car counts.
    A class that is not in `hardware` counts for `other`, where that is in it, and for none where it is not: that no
    car of a fast class is heard tonight makes no other class faster.
    """
    measured = (
        _frame(rates)
        .with_columns(
            pl.when(pl.col("hardware_class").is_in(list(hardware)))
            .then("hardware_class")
            .otherwise(pl.lit(OTHER_HARDWARE))
        )
        .sort(pl.col("busy_s") / pl.col("rows").clip(1))
        .group_by("hardware_class", "workload", maintain_order=True)
        .agg("cars", "rows", "busy_s")
    )
    known = {(name, workload): _middle(*groups) for name, workload, *groups in measured.iter_rows()}

    def rate(name: str, workload: str) -> float:
        cars, rows, busy_s = known.get((name, workload), (0, 0.0, 0.0))
        units = rows * beliefs.units_of_row(workload)
        weight, believed = beliefs.rate_weight_s, beliefs.rate_units_per_s
        trust = beliefs.trust_per_car ** min(cars, _CARS_BELIEVED)
        return min(max((units + believed * weight) / (busy_s + weight), believed / trust), believed * trust)

    return replace(
        policy,
        rates=tuple(tuple(rate(name, workload) for workload, _, _ in kinds) for name in hardware),
        power_w=tuple(beliefs.power_w for _ in hardware),
    )


def _middle(cars: list[int], rows: list[int], busy_s: list[float]) -> tuple[int, float, float]:
    """Return how many cars there are, and the rows of all at the pace of the middle one's group; sorted by pace."""
    total = sum(cars)
    group = int(np.searchsorted(np.cumsum(cars), total / 2))
    scale = sum(rows) / rows[group] if rows[group] else 1.0
    return total, rows[group] * scale, busy_s[group] * scale


def with_free_times(cars: pa.Table, shards: pa.Table, policy: Policy) -> pa.Table:
    """Return the cars with `free_in_s`: when each will have computed what it has not delivered of its running shard."""
    fleet, work = _frame(cars), _frame(shards)
    rates = pl.DataFrame(
        [(hw, workload, rate) for hw, row in enumerate(policy.rates) for workload, rate in enumerate(row)],
        schema={"hw": pl.UInt8, "workload": pl.UInt8, "rate": pl.Float64},
        orient="row",
    )
    held = work.join(fleet.select("running_shard"), left_on="shard_id", right_on="running_shard", how="semi")
    running = held.select(
        "workload",
        running_shard="shard_id",
        left_units=pl.col("work_units") * (pl.col("row_groups") - pl.col("rg_next")) / pl.col("row_groups").clip(1),
    )
    busy = fleet.join(running, on="running_shard", how="left", maintain_order="left").join(
        rates, on=["hw", "workload"], how="left", maintain_order="left"
    )
    free = (pl.col("left_units") / (pl.col("rate") * pl.col("speed"))).fill_nan(0.0).fill_null(0.0)
    filled = busy.select(free.clip(0.0, _DAY_S).cast(pl.Float32).alias("free_in_s")).to_arrow()
    return cars.set_column(cars.column_names.index("free_in_s"), "free_in_s", filled["free_in_s"])


def offers_of(round_: Round) -> pa.Table:
    """Return what gateways may offer: all but the pieces that run already."""
    return round_.assignments.filter(pc.field("reason") != int(Reason.RUNNING))


def given_away(cars: pa.Table, round_: Round) -> list[tuple[int, int]]:
    """Return (car_id, shard_id) of the leases that end with the round, because it gives their shard to another car."""
    handed = round_.assignments.filter(pc.field("reason") == int(Reason.HANDED_OVER))["shard_id"]
    givers = cars.filter(pc.is_in(cars["running_shard"], value_set=handed.combine_chunks()))
    return [(row["car_id"], row["running_shard"]) for row in givers.select(["car_id", "running_shard"]).to_pylist()]


_DAY_S = 86_400.0
_CARS_BELIEVED = 64
"""So many cars are believed whatever they say."""


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
