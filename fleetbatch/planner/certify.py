"""What a round is worth, and a bound that no plan can beat. Pure."""

import numpy as np
import pyarrow as pa

from fleetbatch.planner.inputs import Cars, Floats, Shards
from fleetbatch.planner.nouns import Certificate
from fleetbatch.planner.pieces import Pieces
from fleetbatch.planner.policy import Policy


def value_of(shards: Shards, policy: Policy) -> Floats:
    """Return the value of a work unit of each shard; priorities beyond the last dial count as the last."""
    values = np.asarray(policy.value_per_unit, np.float64)
    return np.asarray(values[np.minimum(shards.priority, len(values) - 1)])


def certify(cars: Cars, shards: Shards, policy: Policy, pieces: Pieces, expected: Floats) -> Certificate:
    """Return the certificate of pieces whose expected units are given.

    The bound is that of prices of zero: all the open work done. It holds for every plan and is loose when work
    abounds.
    """
    value = value_of(shards, policy)
    demand = shards.units * np.maximum(shards.stop - shards.start, 0) * (shards.deadline > 0.0) * bool(len(cars.car_id))
    levels = len(policy.value_per_unit)
    level = np.minimum(shards.priority, levels - 1)
    table = {
        "priority": np.arange(levels, dtype=np.uint8),
        "demand": np.bincount(level, weights=demand, minlength=levels),
        "expected": np.bincount(level[pieces.shard], weights=expected, minlength=levels),
    }
    return Certificate(
        objective=float(np.sum(value[pieces.shard] * expected)),
        upper_bound=float(np.sum(value * demand)),
        priorities=pa.table(table),
    )
