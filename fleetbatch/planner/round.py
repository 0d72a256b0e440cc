"""`plan_round`: cars and open shards in, a whole round out, with a reason for everything left out. Pure.

The same tables in any row order give the same round; nothing is asked of a clock, and nothing of chance.
"""

from datetime import datetime
from typing import overload

import numpy as np
import polars as pl
import pyarrow as pa

from fleetbatch.planner.certify import certificate_of
from fleetbatch.planner.frames import FramedRound, as_table, framed
from fleetbatch.planner.greedy import greedy
from fleetbatch.planner.grid import grid_of
from fleetbatch.planner.handover import handed_over
from fleetbatch.planner.idle import car_plan
from fleetbatch.planner.inputs import Cars, Shards, read_inputs
from fleetbatch.planner.leases import check_leases
from fleetbatch.planner.market import by_prices
from fleetbatch.planner.nouns import Round
from fleetbatch.planner.pieces import running
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.waiting import unassigned
from fleetbatch.planner.weighing import assignments, weighed


@overload
def plan_round(cars: pa.Table, shards: pa.Table, now: datetime, policy: Policy) -> Round: ...


@overload
def plan_round(cars: pl.DataFrame, shards: pl.DataFrame, now: datetime, policy: Policy) -> FramedRound: ...


def plan_round(
    cars: pa.Table | pl.DataFrame, shards: pa.Table | pl.DataFrame, now: datetime, policy: Policy
) -> Round | FramedRound:
    """Plan a round; raise RejectedError that lists everything wrong with tables or policy.

    Arrow tables give a round of tables, polars frames the same round with frames.

    Hard: consent, hardware, memory, region, ready and limit times, deadlines, one holder a shard, the commit horizon.
    A running car keeps its shard. From `policy.prices_from_cars` cars on the round is planned by prices, with a
    certificate; below, and where the solver comes to no end, by a simple rule. `Round.planner` says which.
    """
    if isinstance(cars, pl.DataFrame):
        return framed(_planned(as_table(cars), as_table(shards), now, policy))
    return _planned(cars, as_table(shards), now, policy)


def _planned(cars: pa.Table, shards: pa.Table, now: datetime, policy: Policy) -> Round:
    _keep_pages()
    fleet, work = _read(cars, shards, policy)
    grid = grid_of(work, policy)
    if grid.blocks() and len(fleet.car_id) >= policy.prices_from_cars:
        return by_prices(fleet, work, grid, now, policy)
    return _by_rule(fleet, work, now, policy)


def _read(cars: pa.Table, shards: pa.Table, policy: Policy) -> tuple[Cars, Shards]:
    fleet, work = read_inputs(cars, shards, policy)
    check_leases(fleet, work)
    return fleet, work


def _keep_pages() -> None:
    """Let the process keep what a round's arrays give back for its next arrays, instead of asking the kernel again.

    glibc maps every block apart that is larger than any mapped one it was given back so far, and returns what is free
    at the end of its heap beyond twice that: new pages were a tenth of a round of 100,000 cars. Nothing is written
    here, so that this block itself never has pages; elsewhere it does nothing.
    """
    np.empty(KEPT_BYTES, np.uint8)


KEPT_BYTES = 31 << 20
"""glibc's limit for this is 32 MiB."""


def plan_simply(cars: pa.Table, shards: pa.Table, now: datetime, policy: Policy) -> Round:
    """Plan a round by the simple rule whatever its size, as plan_round does for a few cars."""
    fleet, work = _read(cars, shards, policy)
    return _by_rule(fleet, work, now, policy)


def _by_rule(cars: Cars, shards: Shards, now: datetime, policy: Policy) -> Round:
    pieces = greedy(cars, shards, policy, running(cars, shards, policy))
    found = weighed(cars, shards, policy, handed_over(cars, shards, policy, pieces))
    return Round(
        at=now,
        planner="greedy",
        assignments=assignments(cars, shards, found),
        car_plan=car_plan(cars, shards, policy, found.pieces),
        unassigned=unassigned(cars, shards, policy, found.pieces),
        certificate=certificate_of(cars, shards, policy, found),
        stats={
            "cars": float(len(cars.car_id)),
            "shards": float(len(shards.shard_id)),
            "pieces": float(len(found.chance)),
        },
    )
