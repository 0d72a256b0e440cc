"""Places in order of a small rank, sorted block by block and put together only where they are asked for. Pure.

A round takes from the front of its lists; the order of all the shards at once would be four fifths for nothing, and
costs more in new pages than in arithmetic.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.inputs import Ints, counting_order

BLOCK = 1 << 16
"""Places that are sorted at a time: their order fits into 16 bits, where their ranks have been."""

NOTHING: Ints = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Places in order of rank, equals in order of place."""

    inside: npt.NDArray[Any]
    """[place], of each block one after the other: its places in order of rank, counted from its first."""
    ends: Ints
    """Where in the whole order each run of a rank in a block ends: rank by rank, in each block by block, none empty."""
    ahead: Ints
    """How much further each of these runs stands in `inside` than in the whole order."""
    counts: Ints
    """[rank]"""

    @classmethod
    def of(cls, rank: npt.NDArray[Any], ranks: int) -> Self:
        """Order all places of a rank below `ranks`. Takes `rank` over: the order is written where the ranks have been.

        `rank` is of at least 16 bits and without sign.
        """
        firsts, edges = range(0, len(rank), BLOCK), np.arange(ranks + 1, dtype=rank.dtype)
        bounds = np.empty((ranks + 1, len(firsts)), np.int64)
        for block, first in enumerate(firsts):
            part = rank[first : first + BLOCK]
            order = counting_order(part)
            bounds[:, block] = np.searchsorted(part, edges, sorter=order) + first
            part[:] = order
        lengths = np.diff(bounds, axis=0)
        some = np.flatnonzero(lengths)
        ends = np.cumsum(lengths.ravel()[some])
        ahead = bounds[1:].ravel()[some] - ends
        return cls(inside=rank, ends=ends, ahead=ahead, counts=lengths.sum(axis=1))

    def places(self, first: int, last: int) -> Ints:
        """Return the places that stand at [first, last) in the whole order."""
        if first >= last:
            return NOTHING
        runs = slice(int(self.ends.searchsorted(first, "right")), int(self.ends.searchsorted(last)) + 1)
        place = np.arange(first, last)
        place += self.ahead[runs].repeat(np.diff(np.minimum(self.ends[runs], last), prepend=first))
        inside = self.inside.take(place)
        place &= -BLOCK
        place += inside
        return place
