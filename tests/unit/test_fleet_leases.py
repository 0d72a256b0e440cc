"""Cars and shards that are read one after the other still tell of the same leases."""

import pyarrow as pa
import pytest

from fleetbatch.fleet import as_held

CARS = pa.table(
    {
        "car_id": pa.array([1, 2, 3], pa.uint64()),
        "owner_id": pa.array([7, 8, 9], pa.uint64()),
        "running_shard": pa.array([11, None, 2**64 - 1], pa.uint64()),
        "running_done_through": pa.array([4, None, 2], pa.int16()),
    }
)


def opened(held: dict[int, int | None]) -> pa.Table:
    shards, holders = pa.array(held.keys(), pa.uint64()), pa.array(held.values(), pa.uint64())
    return pa.table({"shard_id": shards, "held_by_car": holders})


@pytest.mark.parametrize(
    ("held", "running"),
    [
        pytest.param({11: 1, 2**64 - 1: 3}, [11, None, 2**64 - 1], id="nothing has changed"),
        pytest.param({11: None, 2**64 - 1: 3}, [None, None, 2**64 - 1], id="a car has left"),
        pytest.param({11: 2, 2**64 - 1: 3}, [None, None, 2**64 - 1], id="another car has it by now"),
        pytest.param({2**64 - 1: 3}, [11, None, 2**64 - 1], id="it was finished"),
        pytest.param({11: 1, 12: 2, 2**64 - 1: 3}, [11, None, 2**64 - 1], id="a lease has begun"),
        pytest.param({11: None, 2**64 - 1: None}, [None, None, None], id="all have left"),
        pytest.param({}, [11, None, 2**64 - 1], id="nothing is open"),
    ],
)
def test_a_lease_that_ended_while_its_shard_is_open_is_not_running(
    held: dict[int, int | None], running: list[int | None]
) -> None:
    found = as_held(CARS, opened(held))
    assert found.schema == CARS.schema
    assert found["running_shard"].to_pylist() == running
    done = dict(zip(CARS["running_shard"].to_pylist(), CARS["running_done_through"].to_pylist(), strict=True))
    assert found["running_done_through"].to_pylist() == [done[shard] for shard in running]
    assert found.drop_columns(["running_shard", "running_done_through"]) == CARS.select(["car_id", "owner_id"])
