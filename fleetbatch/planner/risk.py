"""What a unit of work is worth by when it is planned: later is worth less where little time is left to mend an upset.

Pure. Curves say when single cars leave; they say nothing of a storm that takes many at once, of a crash, or of answers
that an audit refuses. Such an upset comes before the instant t with probability 1 - exp(-rate * t), and what was
planned for t is then lost unless the cars have time for it afterwards. The chance that they have is q(t) = min(1, what
the cars can still do between t and the deadline / all the work that is as urgent), so that a unit is worth
v * (1 - (1 - exp(-rate * t)) * (1 - q(t))). Cheap hours are waited for while they save more than that.

The last hour before a deadline is a buffer: what is planned into it has nowhere to go when a car is slower than was
believed, and counts for a share of its value only.
"""

import numpy as np

from fleetbatch.planner.classes import Fleet
from fleetbatch.planner.grid import Grid, buffer_from
from fleetbatch.planner.inputs import Floats
from fleetbatch.planner.kinds import Work
from fleetbatch.planner.policy import Policy

HOUR_S = 3600.0


def worth(fleet: Fleet, work: Work, grid: Grid, policy: Policy) -> Floats:
    """Return [block, deadline, priority], the value of a unit that is planned for the middle of the block."""
    value = np.asarray(policy.value_per_unit, np.float64)
    middle = (grid.edges[:-1] + grid.edges[1:]) / 2.0
    upset = 1.0 - np.exp(-policy.upsets_per_hour * middle / HOUR_S)
    late = (1.0 - policy.buffer_worth) * _in_buffer(grid, policy)
    return np.asarray(
        value * (1.0 - late[:, :, None]) * (1.0 - upset[:, None, None] * (1.0 - mended(fleet, work, grid, policy)))
    )


def _in_buffer(grid: Grid, policy: Policy) -> Floats:
    """Return [block, deadline], which share of each block lies in the buffer before each deadline."""
    begins, ends = grid.edges[:-1, None], grid.edges[1:, None]
    inside = np.minimum(ends, grid.latest) - np.maximum(begins, buffer_from(grid.deadlines, policy))
    return np.asarray(np.maximum(inside, 0.0) / (ends - begins))


def mended(fleet: Fleet, work: Work, grid: Grid, policy: Policy) -> Floats:
    """Return [block, deadline, priority], the chance that an upset in the middle of the block can still be made good.

    The work's share of the cars' time is counted as if every car did the same mix of kinds; the more urgent the work,
    the less stands before it. A shard must be begun as long before the buffer as it takes.
    """
    urgent = work.demand.cumsum(axis=1).cumsum(axis=2)
    able = fleet.work.sum(axis=0)  # [block, kind]
    begins, ends = grid.edges[:-1], grid.edges[1:]
    middle = (begins + ends) / 2.0
    last = buffer_from(grid.deadlines, policy)[:, None] - shard_s(fleet, work)  # [deadline, kind]
    overlap = np.minimum(ends[:, None, None], last) - np.maximum(begins, middle[:, None])[:, :, None, None]
    share = np.maximum(overlap, 0.0) / (ends - begins)[:, None, None]
    left = np.einsum("bhdk,hk->bkd", share, able)
    with np.errstate(divide="ignore", invalid="ignore"):
        load = np.where(urgent > 0.0, urgent / left[..., None], 0.0).sum(axis=1)
    return np.asarray(1.0 / np.maximum(load, 1.0))


def shard_s(fleet: Fleet, work: Work) -> Floats:
    """Return how long a car takes for a shard of each kind, mean by mean."""
    kinds = len(work.kinds)
    shards = work.shards().reshape(kinds, -1).sum(axis=1)
    able_s = np.einsum("ch,chk->k", fleet.seconds, fleet.work > 0.0)
    units = work.demand.sum(axis=(1, 2)) / np.maximum(shards, 1)
    return np.asarray(units * able_s / np.maximum(fleet.work.sum(axis=(0, 1)), 1e-9))
