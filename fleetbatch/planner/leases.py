"""Do cars and shards tell of the same leases? Pure."""

from collections.abc import Iterator

import numpy as np

from fleetbatch.errors import RejectedError
from fleetbatch.planner.inputs import Cars, Shards


def check_leases(cars: Cars, shards: Shards) -> None:
    """Raise RejectedError where a shard is run by two cars, or by one while nobody holds it: it would go to others."""
    problems = list(_problems(cars, shards))
    if problems:
        summary = "the round cannot be planned"
        raise RejectedError(summary, problems)


def _problems(cars: Cars, shards: Shards) -> Iterator[str]:
    runs = cars.running[cars.running >= 0]
    twice, free = np.flatnonzero(np.bincount(runs) > 1), runs[~shards.held[runs]]
    for some, what in ((twice, "run by two cars"), (free, "run by a car and held by nobody")):
        if len(some):
            yield f"{len(some)} shards are {what}; the first is shard_id {int(shards.shard_id[some[0]]):016x}"
