"""A bound that no plan beats, adaptive ones included, from the prices of any plan. Pure.

For prices mu >= 0 of a unit of each kind in each block (Lagrange), with E_ih the expected seconds of car i in block h:
UB = sum_i sum_h E_ih max(0, max_k(mu_kh rate_ik) - cost_ih) + sum_tiers W max(0, max_{h in time} v_h - mu_kh), where
v_h is what a unit is worth that is done in block h (risk.py): the bound is one on value that counts late work so.
A car that is gone completes nothing, so nobody's expected work in a block exceeds rate * E (dispatch 2.3); whether
cars leave together does not matter. All the open work is a bound as well, and the lower of the two counts.
"""

import numpy as np

from fleetbatch.planner.classes import Fleet, each_car
from fleetbatch.planner.grid import Grid
from fleetbatch.planner.inputs import CHUNK, Floats, Singles
from fleetbatch.planner.kinds import Work
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.risk import worth

ROUNDING = 1e-6
"""32-bit products, summed in 64 bits, are right to better than this; the bound is raised by it."""
ALONE = 8192
"""For products of more than 10,000 numbers numpy's linear algebra wakes a thread on every core."""


def upper_bound(fleet: Fleet, work: Work, grid: Grid, policy: Policy, price: Floats, cost: Floats) -> float:
    """Return the bound at these prices [kind, block]; `cost` is [class, block] at the cheapest tariff."""
    value, total = worth(fleet, work, grid, policy), 0.0
    for deadline, blocks in enumerate(grid.begun(grid.latest)):
        gain = value[blocks, deadline] - price[:, blocks, None]  # [kind, block, priority]
        total += float(np.sum(work.demand[:, deadline] * gain.max(axis=1, initial=0.0)))
    of = each_car(np.arange(fleet.classes()), fleet.starts)
    seconds_cost = np.ascontiguousarray(cost.T, np.float32)  # [block, class]
    for first in range(0, len(fleet.order), CHUNK):
        part = slice(first, min(first + CHUNK, len(fleet.order)))
        total += _cars_worth(fleet.best[:, part], fleet.presence[:, part], seconds_cost.take(of[part], axis=1), price)
    everything = float(np.sum(work.demand * np.asarray(policy.value_per_unit, np.float64)))
    return min(total, everything) * (1.0 + ROUNDING)


def _cars_worth(rate: Singles, presence: Singles, cost: Singles, price: Floats) -> float:
    """Return what some cars earn at these prices when each does what pays best in each block, or nothing."""
    total, best, other = 0.0, np.empty(rate.shape[1], np.float32), np.empty(rate.shape[1], np.float32)
    for block, seconds in enumerate(presence):
        best[:] = 0.0
        for kind, units in enumerate(rate):
            if price[kind, block] > 0.0:
                np.multiply(units, np.float32(price[kind, block]), out=other)
                np.maximum(best, other, out=best)
        best -= cost[block]
        np.maximum(best, 0.0, out=best)
        for first in range(0, len(best), ALONE):
            total += float(np.dot(best[first : first + ALONE], seconds[first : first + ALONE]))
    return total
