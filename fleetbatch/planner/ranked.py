"""Places by a small rank, put in order only as far as they are asked for. Pure.

A round takes from the front of its lists; the order of all the shards would be four fifths for nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.inputs import Ints

BLOCK = 1 << 17
"""Places that are looked at at a time, so that what is between stays in the cache."""
BYTES = 1 << 8

NOTHING: Ints = np.zeros(0, np.int64)
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Places with a rank each."""

    rank: npt.NDArray[Any]
    """[place], of 8 or 16 bits or more, without sign; what has no part in the order has a rank beyond all others."""
    counts: Ints
    """[rank]"""

    def places(self, wanted: Bools) -> Ints:
        """Return the places of the wanted ranks, in order of rank, equals in order of place."""
        ranks = np.flatnonzero(wanted)
        found = np.empty(int(self.counts[ranks].sum()), np.int64)
        ends = np.cumsum(self.counts[ranks]) - self.counts[ranks]
        for first in range(0, len(self.rank), BLOCK):
            rank = self.rank[first : first + BLOCK]
            some = np.flatnonzero(looked_up(wanted, rank))
            mine = rank.take(some)
            some = some.take(np.argsort(mine, kind="stable"))
            some += first
            at = 0
            for place, count in enumerate(np.bincount(mine, minlength=len(wanted))[ranks].tolist()):
                found[ends[place] : ends[place] + count] = some[at : at + count]
                ends[place] += count
                at += count
        return found


def looked_up(table: npt.NDArray[Any], rank: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return each rank's entry in a table of bytes; ranks beyond the table have none.

    What is a byte is looked up in a third of the time.
    """
    if rank.dtype.itemsize > 1:
        return np.append(table, np.zeros(1, table.dtype)).take(rank, mode="clip")
    whole = np.zeros(BYTES, np.uint8)
    whole[: len(table)] = table.view(np.uint8)
    return np.frombuffer(bytearray(rank).translate(whole.tobytes()), table.dtype)
