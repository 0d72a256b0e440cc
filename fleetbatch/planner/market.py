"""A round by prices: a program over classes of cars says what each kind of work is worth when; cars follow. Pure."""

from datetime import datetime

from fleetbatch.planner.certify import certificate_by_prices, certificate_of
from fleetbatch.planner.classes import fleet_of
from fleetbatch.planner.fill import Given, fill
from fleetbatch.planner.grid import Grid
from fleetbatch.planner.handover import handed_over
from fleetbatch.planner.idle import car_plan_by_kind
from fleetbatch.planner.inputs import Cars, Shards
from fleetbatch.planner.kinds import work_of
from fleetbatch.planner.nouns import Round
from fleetbatch.planner.pieces import running
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.prices import Solution, costs, nothing_planned, solve
from fleetbatch.planner.reasons import Reason
from fleetbatch.planner.waiting import unassigned_by_kind
from fleetbatch.planner.weighing import assignments, weighed

EVERYTHING_PAYS = 1e30


def by_prices(cars: Cars, shards: Shards, grid: Grid, now: datetime, policy: Policy) -> Round:
    """Plan a round by prices; where the solver comes to no good end, by everybody taking what is most urgent."""
    held = running(cars, shards, policy)
    work = work_of(shards, cars.memory, grid, policy)
    fleet = fleet_of(cars, held.free, work.kinds, grid, policy)
    cost = costs(fleet, grid, policy, dearest=True)
    given = Given(cars=cars, shards=shards, fleet=fleet, work=work, grid=grid, policy=policy, cost=cost)
    solution = solve(fleet, work, grid, policy)
    rule = Reason.PRICE if solution else Reason.LONGEST_WINDOW
    # Nothing holds on to pieces that are not in order yet: memory is dearer than arithmetic here.
    pieces = handed_over(cars, shards, policy, fill(given, solution or _everything_pays(given), held, rule))
    found = weighed(cars, shards, policy, pieces)
    certificate = (
        certificate_of(cars, shards, policy, found)
        if solution is None
        else certificate_by_prices(given, solution, found)
    )
    taken = found.pieces.taken(len(shards.shard_id))
    stats = {
        "cars": float(len(cars.car_id)),
        "shards": float(len(shards.shard_id)),
        "pieces": float(len(found.chance)),
        "classes": float(fleet.classes()),
        "kinds": float(len(work.kinds)),
    }
    return Round(
        at=now,
        planner="fallback" if solution is None else "prices",
        assignments=assignments(cars, shards, found),
        car_plan=car_plan_by_kind(given, solution, found.pieces, taken),
        unassigned=unassigned_by_kind(given, solution, found.pieces, taken),
        certificate=certificate,
        stats=stats,
    )


def _everything_pays(given: Given) -> Solution:
    return nothing_planned(given.fleet.work.shape, given.work.demand.shape, price=EVERYTHING_PAYS)
