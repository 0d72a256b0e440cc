"""Time in a few blocks: edges are the commit horizon, the tariff's changes, the deadlines and their buffers. Pure."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.inputs import CHUNK, Floats, Real, Shards
from fleetbatch.planner.policy import HORIZON_S, Policy

DEADLINES_MAX = 4
BLOCKS_MAX = 8
LONGEST_BLOCK_S = 10_800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Blocks [edges[h], edges[h + 1]) and the deadlines that the plan tells apart, in seconds from now."""

    edges: Floats
    deadlines: Floats
    """Rising. Work whose own deadline lies between two of them must be done by the earlier."""
    latest: Floats
    """[deadline], the latest of the true deadlines behind each; the bound counts on these."""

    def blocks(self) -> int:
        """Return the number of blocks."""
        return len(self.edges) - 1

    def exact(self) -> bool:
        """Say whether every shard's own deadline is one of these."""
        return bool(np.array_equal(self.deadlines, self.latest) and np.all(self.latest < HORIZON_S))

    def usable(self, by: Floats) -> npt.NDArray[np.bool_]:
        """Return [deadline, block]: whether the block ends in time."""
        return np.asarray(self.edges[None, 1:] <= by[:, None] + 1e-6)

    def begun(self, by: Floats) -> npt.NDArray[np.bool_]:
        """Return [deadline, block]: whether the block begins before it, so that some work in it may be in time."""
        return np.asarray(self.edges[None, :-1] < by[:, None])


def grid_of(shards: Shards, policy: Policy) -> Grid:
    """Return the grid of a round; without open work it has no blocks.

    More than four different deadlines are drawn together to four, more edges than fit are dropped from the far end:
    both make the plan coarser and never wrong.
    """
    deadlines, latest = _deadlines(shards.deadline)
    if not len(deadlines):
        return Grid(edges=np.zeros(1), deadlines=np.zeros(0), latest=np.zeros(0))
    end = float(latest[-1])
    wanted = {0.0, end, *deadlines.tolist()}
    buffers = buffer_from(deadlines, policy)
    for edge in (policy.commit_s, *buffers.tolist(), *policy.price_until_s, *latest.tolist()):
        if 0.0 < edge < end and len(wanted) <= BLOCKS_MAX:
            wanted.add(float(edge))
    edges = sorted(wanted)
    while len(edges) <= BLOCKS_MAX and max(np.diff(edges)) > LONGEST_BLOCK_S:
        widest = int(np.argmax(np.diff(edges)))
        edges.insert(widest + 1, (edges[widest] + edges[widest + 1]) / 2.0)
    return Grid(edges=np.array(edges), deadlines=deadlines, latest=latest)


def buffer_from(deadlines: npt.NDArray[Real], policy: Policy) -> npt.NDArray[Real]:
    """Return from when on each deadline is too near for more than what goes wrong."""
    return np.asarray(deadlines - np.minimum(policy.buffer_s, deadlines / 2.0))


def _deadlines(seconds: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Return the deadlines to plan with and the latest true ones behind each.

    Orders are few, so are different deadlines: they are peeled off one by one, which needs no sort of all the shards.
    """
    found: list[float] = []
    for first in range(0, len(seconds), CHUNK):
        part = seconds[first : first + CHUNK]
        new = part > 0.0
        for one in found:
            new &= part != np.float32(one)
        left = np.minimum(part[new], np.float32(HORIZON_S)) if new.any() else part[:0]
        while len(left) and len(found) <= DEADLINES_MAX:
            found.append(float(left[0]))
            left = left[left != left[0]]
    if len(found) <= DEADLINES_MAX:
        exact = np.array(sorted(found))
        return exact, exact
    every = np.unique(np.minimum(seconds[seconds > 0.0], np.float32(HORIZON_S))).astype(np.float64)
    parts = np.array_split(every, DEADLINES_MAX)
    return np.array([part[0] for part in parts]), np.array([part[-1] for part in parts])
