"""Which leases cars still hold, where cars and shards were read one after the other. Pure."""

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc


def as_held(cars: pa.Table, open_shards: pa.Table) -> pa.Table:
    """Return the ledger's cars without the leases that have ended since, while their shards are still open.

    `open_shards` was read after `cars`. Taken for running, such a shard would be free for others too, and a plan in
    which it has two holders is not allowed: one car that leaves in those seconds would cost all others their round.
    """
    held = pl.DataFrame(open_shards.select(["held_by_car", "shard_id"])).drop_nulls()
    runs = pl.DataFrame(cars.select(["car_id", "running_shard"])).drop_nulls()
    other = runs.join(held, left_on=["car_id", "running_shard"], right_on=["held_by_car", "shard_id"], how="anti")
    open_ = pl.DataFrame(open_shards.select(["shard_id"]))
    ended = other.join(open_, left_on="running_shard", right_on="shard_id", how="semi") if len(other) else other
    if ended.is_empty():
        return cars
    gone = pc.is_in(cars["car_id"], value_set=ended["car_id"].to_arrow())
    for name in ("running_shard", "running_done_through"):
        place, field = cars.column_names.index(name), cars.schema.field(name)
        cars = cars.set_column(place, field, pc.if_else(gone, pa.scalar(None, field.type), cars[name]))
    return cars
