"""A round that passed verification, or none."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeAlias

import pyarrow as pa

from fleetbatch.errors import RejectedError
from fleetbatch.logs import say
from fleetbatch.planner.nouns import Round
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.verify import verify_round

Plan: TypeAlias = Callable[[pa.Table, pa.Table, datetime, Policy], Round]


def verified(cars: pa.Table, shards: pa.Table, now: datetime, policy: Policy, *, plans: Sequence[Plan]) -> Round:
    """Return the first plan that passes verify_round; raise RejectedError with every violation when none does."""
    problems = []
    for make in plans:
        candidate = make(cars, shards, now, policy)
        broken = verify_round(cars, shards, now, policy, candidate)
        if not broken:
            return candidate
        found = [f"{candidate.planner}: {one.rule}: {one.rows} rows, {one.example}" for one in broken]
        say("plan refused", level=logging.ERROR, planner=candidate.planner, violations=found)
        problems += found
    summary = "no plan of this round is allowed; nothing was published"
    raise RejectedError(summary, problems)
