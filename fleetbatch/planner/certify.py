"""What a round is worth, and what it is measured against. Pure."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch.planner.bound import upper_bound
from fleetbatch.planner.carbon import carbon_g
from fleetbatch.planner.fill import Given
from fleetbatch.planner.grid import Grid
from fleetbatch.planner.inputs import Cars, Floats, Ints, Shards, Singles
from fleetbatch.planner.kinds import Work
from fleetbatch.planner.nouns import Certificate, Plan
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.prices import Solution, costs
from fleetbatch.planner.risk import worth
from fleetbatch.planner.weighing import Weighed

_PRICE_TYPES: dict[str, pa.DataType] = {
    "workload": pa.uint8(),
    "hw_mask": pa.uint8(),
    "region": pa.uint16(),
    "bytes_per_unit_min": pa.float64(),
    "bytes_per_unit": pa.float64(),
    "mem_B_min": pa.float64(),
    "mem_B": pa.float64(),
    "from_s": pa.float64(),
    "until_s": pa.float64(),
    "price": pa.float64(),
}
NO_PRICES = pa.schema(_PRICE_TYPES)
EVEN: Final = 2.0**-21
"""Prices are stated so little lower. At a price that only pays for their energy, many cars that come out even would
earn what 32-bit numbers make of nothing: beside little work more than all that it is worth beyond the energy."""


def certificate_of(cars: Cars, shards: Shards, policy: Policy, found: Weighed) -> Certificate:
    """Return the certificate of a plan without prices: its bound is all the open work done, if anybody is there.

    It holds for every plan and is loose when work abounds.
    """
    open_ = np.flatnonzero(shards.open())
    levels = len(policy.value_per_unit)
    units = shards.units(open_) * shards.left(open_) * bool(len(cars.car_id))
    demand = _sums(_level(shards, policy, open_), units, levels)
    level = _level(shards, policy, found.pieces.shard)
    expected = _sums(level, found.expected, levels)
    of_open = _sums(level, found.expected * ~shards.held[found.pieces.shard], levels)
    return Certificate(
        placed=_value(policy, expected),
        value=_value(policy, of_open),
        value_in_full=_value(policy, of_open),
        upper_bound=_value(policy, demand),
        carbon_g=carbon_g(cars, policy, found),
        priorities=_priorities(expected, demand),
        prices=NO_PRICES.empty_table(),
    )


def certificate_by_prices(given: Given, solution: Solution, found: Weighed) -> Certificate:
    """Return the certificate of a plan by prices."""
    cheapest = costs(given.fleet, given.grid, given.policy, dearest=False)
    price = solution.price * (1.0 - EVEN)
    bound = upper_bound(given.fleet, given.work, given.grid, given.policy, price, cheapest)
    level = _level(given.shards, given.policy, found.pieces.shard)
    expected = _sums(level, found.expected, len(given.policy.value_per_unit))
    discount = np.asarray(given.policy.value_per_unit) - worth(given.fleet, given.work, given.grid, given.policy)
    return Certificate(
        placed=_value(given.policy, expected),
        value=solution.value,
        value_in_full=solution.value + float(np.sum(solution.flow * discount)),
        upper_bound=bound,
        carbon_g=carbon_g(given.cars, given.policy, found),
        priorities=_priorities(expected, given.work.demand.sum(axis=(0, 1))),
        prices=_prices(given.work, given.grid, price),
        plan=Plan(
            order=given.fleet.order,
            starts=given.fleet.starts,
            share=solution.share,
            flow=solution.flow,
            deadlines=given.grid.deadlines,
            latest=given.grid.latest,
        ),
    )


def _level(shards: Shards, policy: Policy, places: npt.NDArray[Any]) -> Ints:
    """Return priorities, those beyond the last dial as the last."""
    return np.minimum(shards.priority.take(places), len(policy.value_per_unit) - 1).astype(np.int64)


def _sums(level: Ints, units: Floats | Singles, levels: int) -> Floats:
    """Return the units of each priority."""
    return np.asarray(np.bincount(level, weights=units, minlength=levels), np.float64)


def _value(policy: Policy, units: Floats) -> float:
    """Return what the units of each priority are worth."""
    return float(np.dot(np.asarray(policy.value_per_unit, np.float64), units))


def _priorities(expected: Floats, demand: Floats) -> pa.Table:
    return pa.table(
        {
            "priority": np.arange(len(demand), dtype=np.uint8),
            "demand": demand,
            "expected": expected,
        }
    )


def _prices(work: Work, grid: Grid, price: Floats) -> pa.Table:
    kinds, blocks = price.shape
    of = work.kinds
    asks = (of.workload, of.hw_mask, of.region, of.bytes_least, of.bytes_most, of.memory_least, of.memory)
    columns = [np.repeat(ask, blocks) for ask in asks]
    columns += [np.tile(grid.edges[:-1], kinds), np.tile(grid.edges[1:], kinds), price.ravel()]
    typed = (pa.array(column).cast(kind) for column, kind in zip(columns, _PRICE_TYPES.values(), strict=True))
    return pa.Table.from_arrays(list(typed), schema=NO_PRICES)
