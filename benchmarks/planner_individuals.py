"""The same program over classes of cars or over every car alone: what the classes cost in value, and save in time.

Both are measured against the bound that the classes' prices give. The whole night, one thread, 2,000 cars.
"""

import sys
import time

import numpy as np

from benchmarks.planner_fleet import evening
from benchmarks.run import tell
from fleetbatch.planner.bound import upper_bound
from fleetbatch.planner.classes import Fleet, fleet_of
from fleetbatch.planner.grid import Grid, grid_of
from fleetbatch.planner.inputs import read_inputs
from fleetbatch.planner.kinds import Work, work_of
from fleetbatch.planner.pieces import running
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.prices import costs, solve
from fleetbatch.planner.risk import worth

CARS = 2000


def main(subject: str) -> None:
    e = evening(CARS, load=1.3)
    cars, shards = read_inputs(e.cars, e.shards, e.policy)
    grid = grid_of(shards, e.policy)
    work = work_of(shards, cars.memory, grid, e.policy)
    classes = fleet_of(cars, running(cars, shards, e.policy).free, work.kinds, grid, e.policy)
    prices = solve(classes, work, grid, e.policy)
    assert prices is not None
    if subject == "write":
        write(classes, work, grid, e.policy)
        return
    bound = upper_bound(classes, work, grid, e.policy, prices.price, costs(classes, grid, e.policy, dearest=False))
    fleet = classes if subject == "classes" else alone(classes)
    started = time.process_time()
    found = solve(fleet, work, grid, e.policy)
    assert found is not None
    tell(f"program for {CARS:,} cars, CPU", time.process_time() - started, "s")
    tell(f"program for {CARS:,} cars, rows of time", fleet.classes(), "rows")
    tell(f"program for {CARS:,} cars, value / bound", found.value / bound, "share")


def write(fleet: Fleet, work: Work, grid: Grid, policy: Policy) -> None:
    """Write what a flow of the same night needs to standard output, for a process that cannot import ours."""
    prices = solve(fleet, work, grid, policy)
    assert prices is not None
    single = alone(fleet)
    cheapest = costs(fleet, grid, policy, dearest=False)
    arrays = {
        "work": single.work,
        "seconds": single.seconds,
        "cost": costs(single, grid, policy, dearest=True),
        "demand": work.demand,
        "usable": grid.usable(grid.deadlines),
        "worth": worth(fleet, work, grid, policy),
        "bound": np.array(upper_bound(fleet, work, grid, policy, prices.price, cheapest)),
    }
    np.savez(sys.stdout.buffer, **arrays)  # type: ignore[arg-type] # the stubs take no mapping


def alone(fleet: Fleet) -> Fleet:
    """Return the fleet with every car a class of its own."""
    cars = len(fleet.order)
    of = np.repeat(np.arange(fleet.classes()), np.diff(fleet.starts))
    return Fleet(
        order=fleet.order,
        starts=np.arange(cars + 1),
        hw=fleet.hw[of],
        zone=fleet.zone[of],
        turn=fleet.turn,
        later=fleet.later,
        presence=fleet.presence,
        rate=fleet.rate,
        best=fleet.best,
        compute=fleet.compute,
        speed=fleet.speed,
        begins=fleet.begins,
        limit=fleet.limit,
        link=fleet.link,
        work=np.einsum("hi,ki->ihk", fleet.presence.astype(np.float64), fleet.rate.astype(np.float64)),
        seconds=fleet.presence.T.astype(np.float64),
    )


if __name__ == "__main__":
    main(sys.argv[1])
