"""A min-cost flow over every car alone, by OR-tools, on planner_individuals' night: a peer that knows no speeds.

A car's block supplies units at its mean speed over the kinds that it may compute, since what leaves a node of a flow is
what enters it; the plan that follows is then counted at the true speeds. Runs in an environment of its own, because
OR-tools and HiGHS cannot share a process; it asks ours for the night as arrays.
"""

import io
import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ortools.graph.python import min_cost_flow  # type: ignore[import-not-found] # only in its own environment

ROOT = Path(__file__).parents[1]
Array = np.ndarray[Any, Any]
UNIT = 10.0
"""Flow is counted in whole tenths of a unit, cost in thousandths of a value."""
CENTS = 1000.0


def main() -> None:
    night = np.load(io.BytesIO(inputs()))
    started = time.process_time()
    made, arcs = flow(night)
    spent = time.process_time() - started
    work, seconds, cost = night["work"], night["seconds"], night["cost"]
    c, h, k = arcs.T
    mean = np.where(work > 0, work, 0.0).sum(axis=2) / np.maximum((work > 0).sum(axis=2), 1)
    share = made / np.maximum(mean[c, h], 1e-9)
    units = np.zeros(work.shape[1:])
    np.add.at(units, (h, k), share * work[c, h, k])
    energy = float(np.sum(share * seconds[c, h] * cost[c, h]))
    value = served(units, night) - energy
    for metric, figure, unit in (
        ("program for 2,000 cars, CPU", spent, "s"),
        ("program for 2,000 cars, value / bound", value / float(night["bound"]), "share"),
        ("program for 2,000 cars, arcs", float(len(arcs)), "arcs"),
    ):
        print(json.dumps({"metric": metric, "value": figure, "unit": unit}), flush=True)


def inputs() -> bytes:
    """Return the night, from an interpreter that has our packages."""
    command = [str(ROOT / ".venv/bin/python"), "-m", "benchmarks.planner_individuals", "write"]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


def flow(night: Mapping[str, Any]) -> tuple[Array, Array]:
    """Return the units on each (car, block, kind) arc, at mean speeds."""
    work, seconds, cost, demand = night["work"], night["seconds"], night["cost"], night["demand"]
    cars, blocks, kinds = work.shape
    arcs = np.argwhere(work > 0)
    c, h, k = arcs.T
    mean = work.sum(axis=2) / np.maximum((work > 0).sum(axis=2), 1)
    hub = cars * blocks + k * blocks + h
    energy = seconds[c, h] * cost[c, h] / np.maximum(work[c, h, k], 1e-9)
    kk, hh, dd, pp = np.nonzero((demand[:, None] > 0) & night["usable"].T[None, :, :, None])
    tiers = cars * blocks + kinds * blocks + np.arange(demand.size).reshape(demand.shape)
    source, sink = tiers.max() + 1, tiers.max() + 2
    supply = np.floor(mean * UNIT).astype(np.int64)
    solver = min_cost_flow.SimpleMinCostFlow()
    solver.add_arcs_with_capacity_and_unit_cost(
        np.full(cars * blocks, source), np.arange(cars * blocks), supply.ravel(), np.zeros(cars * blocks, np.int64)
    )
    first = solver.add_arcs_with_capacity_and_unit_cost(
        c * blocks + h, hub, supply[c, h], np.rint(energy * CENTS).astype(np.int64)
    )
    worth = -np.rint(night["worth"][hh, dd, pp] * CENTS).astype(np.int64)
    out = cars * blocks + kk * blocks + hh
    everything = np.full(len(kk), int(supply.sum()))
    solver.add_arcs_with_capacity_and_unit_cost(out, tiers[kk, dd, pp], everything, worth)
    wanted = np.floor(demand * UNIT).astype(np.int64).ravel()
    solver.add_arcs_with_capacity_and_unit_cost(
        tiers.ravel(), np.full(len(wanted), sink), wanted, np.zeros_like(wanted)
    )
    total = int(supply.sum())
    solver.add_arc_with_capacity_and_unit_cost(int(source), int(sink), total, 0)
    solver.set_nodes_supplies(np.array([source, sink]), np.array([total, -total]))
    status = solver.solve()
    assert status == solver.OPTIMAL, status
    return np.asarray(solver.flows(first)) / UNIT, arcs


def served(units: Array, night: Mapping[str, Any]) -> float:
    """Return what units made [block, kind] are worth: the dearest work first, early blocks first."""
    left, value = night["demand"].copy(), 0.0
    for h, k in np.ndindex(units.shape):
        have = units[h, k]
        order = np.argsort(-night["worth"][h].ravel(), kind="stable")
        for d, p in zip(*np.unravel_index(order, night["worth"][h].shape), strict=True):
            take = min(have, left[k, d, p]) if night["usable"][d, h] else 0.0
            left[k, d, p] -= take
            have -= take
            value += take * night["worth"][h, d, p]
    return value


if __name__ == "__main__":
    main()
