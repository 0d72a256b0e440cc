"""`plan_round`: cars and open shards in, a whole round out, with a reason for everything left out. Pure.

The same tables in any row order give the same round; nothing is asked of a clock, and chance only by the seed.
"""

from datetime import datetime

import numpy as np
import pyarrow as pa

from fleetbatch.planner.certify import certify
from fleetbatch.planner.greedy import greedy
from fleetbatch.planner.inputs import read_inputs
from fleetbatch.planner.leftovers import car_plan, unassigned
from fleetbatch.planner.nouns import Round
from fleetbatch.planner.pieces import assignments, expected_units, in_order, running
from fleetbatch.planner.policy import Policy


def plan_round(cars: pa.Table, shards: pa.Table, now: datetime, policy: Policy) -> Round:
    """Plan a round by the simple rule; raise RejectedError that lists everything wrong with tables or policy.

    Hard: consent, hardware, memory, region, ready and limit times, deadlines, one holder a shard, the commit horizon.
    A running car keeps its shard.
    """
    fleet, work = read_inputs(cars, shards, policy)
    pieces = in_order(greedy(fleet, work, policy, running(fleet, work, policy)))
    expected = expected_units(fleet, work, policy, pieces)
    stats = {
        "cars": float(len(fleet.car_id)),
        "shards": float(len(work.shard_id)),
        "pieces": float(len(pieces.car)),
        "running": float(np.sum(fleet.running >= 0)),
    }
    return Round(
        at=now,
        planner="greedy",
        assignments=assignments(fleet, work, pieces, expected),
        car_plan=car_plan(fleet, work, policy, pieces),
        unassigned=unassigned(fleet, work, policy, pieces),
        certificate=certify(fleet, work, policy, pieces, expected),
        stats=stats,
    )
