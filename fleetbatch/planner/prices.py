"""The linear program over classes: which share of a class does which kind in which block, and what that work is worth.

Pure. Solved by HiGHS's interior point without crossover: the centred solution comes sooner, and expands better than a
corner. HiGHS is bounded by iterations, so that the same input gives the same plan.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.classes import Fleet
from fleetbatch.planner.grid import Grid
from fleetbatch.planner.inputs import Floats, Ints
from fleetbatch.planner.kinds import Work
from fleetbatch.planner.policy import Policy, energy_prices
from fleetbatch.planner.risk import worth

TOLERANCE = 1e-4
SCALE = 1e3
"""Units are scaled so that all the demand is this many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A plan for classes that keeps every bound, and prices; value is worth less cost and risk."""

    share: Floats
    """[class, block, kind] of the class's time; sums over kinds are at most 1."""
    flow: Floats
    """[kind, block, deadline, priority] units; no more than share gives and than there is."""
    price: Floats
    """[kind, block], value of one more unit of the kind in that block; at least 0."""
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """What may be decided: time (class, block, kind), and where units go (kind, block, deadline, priority)."""

    c: Ints
    h: Ints
    k: Ints
    flow: npt.NDArray[np.bool_]
    workload: Ints
    """[kind], numbered from 0 without gaps."""
    weight: Floats
    """[class, block], units by which a column of time is measured, so that coefficients are near 1."""


def costs(fleet: Fleet, grid: Grid, policy: Policy, *, dearest: bool) -> Floats:
    """Return [class, block], what a busy second costs in value, at the block's dearest or cheapest tariff.

    The two are equal where blocks end with tariffs.
    """
    until = np.asarray(policy.price_until_s, np.float64)
    first = np.minimum(np.searchsorted(until, grid.edges[:-1], "right"), len(until) - 1)
    last = np.minimum(np.searchsorted(until, grid.edges[1:], "left"), len(until) - 1)
    pick = np.max if dearest else np.min
    prices = energy_prices(policy)
    block = np.stack([pick(prices[:, a : b + 1], axis=1) for a, b in zip(first, last, strict=True)], axis=1)
    power = np.asarray(policy.power_w, np.float64)
    return np.asarray(power[fleet.hw][:, None] * block[fleet.zone] / policy.unit_currency)


def solve(fleet: Fleet, work: Work, grid: Grid, policy: Policy) -> Solution | None:
    """Return the plan and the prices; None when HiGHS does not come to an end within its bounds."""
    scale = SCALE / max(float(work.demand.sum()), 1e-12)
    demand, supply = work.demand * scale, fleet.work * scale
    # Values are measured by the highest, so that a policy in other units gives the same numbers to the solver.
    highest = max([*policy.value_per_unit, 1e-300])
    value = worth(fleet, work, grid, policy) / highest
    cost = costs(fleet, grid, policy, dearest=True) * fleet.seconds * scale / highest
    # Hours that cost more than any work is worth, as a dear tonne of CO2 can make them, would drown all other numbers.
    supply = np.where(supply * FLOOR_PRICE > cost[:, :, None], supply, 0.0)
    columns = _columns(supply, demand, work, grid)
    floors = _floors(columns, supply, demand, policy)
    model = _model(columns, floors, (supply, demand, cost, value))
    if not model.num_col_:  # all that is open is held, or of no units: there is nothing to decide
        return nothing_planned(supply.shape, demand.shape, price=0.0)
    import highspy  # late: most processes that import this room plan nothing

    highs: Any = highspy.Highs()  # type: ignore[no-untyped-call] # highspy has no stubs
    for name, setting in _OPTIONS.items():
        highs.setOptionValue(name, setting)
    highs.setOptionValue("time_limit", policy.solver_s_max)
    highs.setOptionValue("ipm_iteration_limit", policy.solver_iterations_max)
    highs.passModel(model)
    highs.run()
    if highs.getModelStatus().name not in _ENDED or highs.getInfo().ipm_iteration_count >= policy.solver_iterations_max:
        return None
    found = highs.getSolution()
    raw, dual = np.asarray(found.col_value), np.asarray(found.row_dual)
    if not (np.isfinite(raw).all() and np.isfinite(dual).all()):
        return None
    rows = supply.shape[0] * supply.shape[1]
    hubs = supply.shape[1] * supply.shape[2]
    price = np.maximum(dual[rows : rows + hubs], 0.0).reshape(supply.shape[2], supply.shape[1])
    price = _lowered(columns, price, value, dual[len(dual) - len(floors) :])
    return _in_units(_feasible(columns, raw, price, (supply, demand, cost, value)), scale, highest)


def nothing_planned(supply: tuple[int, ...], demand: tuple[int, ...], *, price: float) -> Solution:
    """Return no shares and one price for everything.

    `supply` is the shape [class, block, kind], `demand` is [kind, deadline, priority]. At a price that everything pays,
    every idle car takes the front of the fullest list.
    """
    _, blocks, kinds = supply
    return Solution(
        share=np.zeros(supply),
        flow=np.zeros((kinds, blocks, *demand[1:])),
        price=np.full((kinds, blocks), price),
        value=0.0,
    )


_OPTIONS: Final[dict[str, Any]] = {
    "output_flag": False,
    "threads": 1,
    "solver": "ipm",
    "run_crossover": "off",
    "ipm_optimality_tolerance": TOLERANCE,
    "presolve": "off",  # it finds nothing in these programs, and costs a quarter of the solver's time
}
_ENDED = ("kOptimal", "kUnknown")
"""Without crossover a solution within the tolerance is called unknown; its own gap is looked at afterwards."""


def _columns(supply: Floats, demand: Floats, work: Work, grid: Grid) -> _Columns:
    c, h, k = np.nonzero(supply > 0.0)
    usable = grid.usable(grid.deadlines)
    flow = (demand[:, None] > 0.0) & usable.T[None, :, :, None]
    workload = np.unique(work.kinds.workload, return_inverse=True)[1]
    weight = np.maximum(supply.max(axis=2, initial=0.0), 1e-12)
    return _Columns(c=c, h=h, k=k, flow=flow, workload=workload, weight=weight)


def _floors(columns: _Columns, supply: Floats, demand: Floats, policy: Policy) -> Floats:
    """Return the units that each workload gets at least, by its share of the cars' time; empty without the dial.

    The share is counted as if every car did the same mix: all the work, or as much of each as there is time for.
    """
    if policy.workload_floor == 0.0:
        return np.zeros(0)
    wanted, able = demand.sum(axis=(1, 2)), supply.sum(axis=(0, 1))
    load = float(np.sum(np.divide(wanted, able, out=np.zeros_like(wanted), where=able > 0.0)))
    part = np.where(able > 0.0, wanted, 0.0) * policy.workload_floor / max(load, 1.0)
    return np.asarray(np.bincount(columns.workload, weights=part), np.float64)


def _model(columns: _Columns, floors: Floats, given: tuple[Floats, Floats, Floats, Floats]) -> Any:  # noqa: ANN401 highspy
    """Build the program: rows are each class's time, each (kind, block)'s units, each tier's demand, each floor.

    A floor may be missed at a price above every value: a program without a solution helps nobody.
    """
    import highspy

    supply, demand, cost, value = given
    classes, blocks, kinds = supply.shape
    k, h, d, p = np.nonzero(columns.flow)
    times, flows, hubs, most = len(columns.c), len(k), classes * blocks, highspy.kHighsInf
    weight = columns.weight[columns.c, columns.h]
    model = highspy.HighsLp()
    model.num_col_ = times + flows + len(floors)
    model.num_row_ = hubs + kinds * blocks + demand.size + len(floors)
    # The least of cost less value: when told to maximise, HiGHS without crossover may give prices of either sign.
    missed = np.full(len(floors), FLOOR_PRICE)
    model.col_cost_ = np.concatenate([cost[columns.c, columns.h] / weight, -value[h, d, p], missed])
    model.col_lower_, model.col_upper_ = np.zeros(model.num_col_), np.full(model.num_col_, most)
    still, none = np.zeros(kinds * blocks), np.full(demand.size, -most)
    model.row_lower_ = np.concatenate([np.full(hubs, -most), still, none, floors])
    model.row_upper_ = np.concatenate([columns.weight.ravel(), still, demand.ravel(), np.full(len(floors), most)])
    made = supply[columns.c, columns.h, columns.k] / weight
    tier = hubs + kinds * blocks + (k * demand.shape[1] + d) * demand.shape[2] + p
    floor = model.num_row_ - len(floors) + np.arange(len(floors))
    time = (columns.c * blocks + columns.h, hubs + columns.k * blocks + columns.h)
    out = (hubs + k * blocks + h, tier, floor[columns.workload[k]]) if len(floors) else (hubs + k * blocks + h, tier)
    counts = np.repeat([2, len(out), 1], [times, flows, len(floors)])
    entries = (
        np.stack([np.ones(times), made], 1),
        np.tile([-1.0, 1.0, 1.0][: len(out)], (flows, 1)),
        np.ones(len(floors)),
    )
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = np.append(0, np.cumsum(counts)).astype(np.int32)
    rows = (np.stack(time, 1), np.stack(out, 1), floor)
    model.a_matrix_.index_ = np.concatenate([part.ravel() for part in rows]).astype(np.int32)
    model.a_matrix_.value_ = np.concatenate([part.ravel() for part in entries])
    return model


def _lowered(columns: _Columns, price: Floats, value: Floats, floors: Floats) -> Floats:
    """Return the prices [kind, block], each as low as the most that any work pays there rather than wait for its best.

    Where that is less than what cars ask, any price between the two solves the program. At the lower end the bound is
    lowest, and no car that asks less than its class does what had better wait. `floors` is what workloads' floors add.
    """
    pays = np.where(columns.flow, value, -np.inf)
    if len(floors):
        pays += floors[columns.workload][:, None, None, None]
    saved = np.maximum(pays - price[:, :, None, None], 0.0).max(axis=1, keepdims=True, initial=0.0)
    return np.asarray(np.minimum((pays - saved).max(axis=(2, 3), initial=0.0), price))


def _feasible(columns: _Columns, raw: Floats, price: Floats, given: tuple[Floats, Floats, Floats, Floats]) -> Solution:
    """Trim what the tolerance left over every bound, and count the value of what remains."""
    supply, demand, cost, value = given
    share = np.zeros_like(supply)
    times = len(columns.c)
    share[columns.c, columns.h, columns.k] = np.maximum(raw[:times], 0.0) / columns.weight[columns.c, columns.h]
    share[share < SHARE_LEAST] = 0.0
    share /= np.maximum(share.sum(axis=2, keepdims=True), 1.0)
    flow = np.zeros(columns.flow.shape)
    flow[columns.flow] = np.maximum(raw[times : times + int(columns.flow.sum())], 0.0)
    made = np.einsum("chk,chk->kh", supply, share)
    flow *= np.minimum(1.0, made / np.maximum(flow.sum(axis=(2, 3)), 1e-12))[:, :, None, None]
    flow *= np.minimum(1.0, demand / np.maximum(flow.sum(axis=1), 1e-12))[:, None]
    earned = float(np.sum(flow * value)) - float(np.sum(cost[:, :, None] * share))
    return Solution(share=share, flow=flow, price=price, value=earned)


def _in_units(scaled: Solution, scale: float, highest: float) -> Solution:
    """Return the solution in the units of demand and value."""
    return Solution(
        share=scaled.share,
        flow=scaled.flow / scale,
        price=scaled.price * highest,
        value=scaled.value / scale * highest,
    )


FLOOR_PRICE = 2.0
"""Twice the highest value."""
SHARE_LEAST = 1e-4
"""A smaller share of a class's block is the solver's dust."""
