"""Which car the laptop's night takes away in the middle of a shard. Pure."""

from dataclasses import dataclass

import pyarrow as pa

from fleetbatch.units import CarId, ShardId

_LEFT_MIN = 2
"""Row groups that must still be open, or the car would be done before it is taken away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MidShard:
    """A car that delivered some row groups of a shard and has more to do."""

    car_id: CarId
    shard_id: ShardId
    done_through: int
    row_groups: int


def in_mid_shard(open_shards: pa.Table, *, spare: frozenset[CarId] = frozenset()) -> MidShard | None:
    """Return the car with the most left to do among those in the middle of a shard, sparing some; None without one.

    `open_shards` needs shard_id, row_groups, done_through and held_by_car (null or 0: no car).
    """
    candidates = [
        MidShard(
            car_id=CarId(row["held_by_car"]),
            shard_id=ShardId(row["shard_id"]),
            done_through=row["done_through"],
            row_groups=row["row_groups"],
        )
        for row in open_shards.select(["shard_id", "row_groups", "done_through", "held_by_car"]).to_pylist()
        if row["held_by_car"] and row["held_by_car"] not in spare
    ]
    ripe = [c for c in candidates if c.done_through >= 1 and c.row_groups - c.done_through >= _LEFT_MIN]
    return max(ripe, key=lambda c: (c.row_groups - c.done_through, c.shard_id), default=None)
