"""What waits while a round is filled: a list for each kind and deadline, taken from the front. Pure."""

import math
from collections.abc import Sequence

import numpy as np

from fleetbatch.planner.inputs import Ints
from fleetbatch.planner.kinds import Work
from fleetbatch.planner.ranked import NOTHING


class Lists:
    """What waits of each kind and deadline, the most urgent first."""

    def __init__(self, work: Work) -> None:
        """Line up all the open work."""
        kinds, deadlines, _ = work.demand.shape
        self.order = work.order
        self.counts = work.order.counts.reshape(kinds * deadlines, -1)
        """[list, rank in it]"""
        self.left: list[list[int]] = self.counts.sum(axis=1).reshape(kinds, deadlines).tolist()
        """How many of each list nobody has taken from its front yet."""
        self.fronts: dict[tuple[int, int], Ints] = {}
        """The next of them, as far as they are in order."""
        self.ordered = np.zeros(len(self.counts), np.int64)
        """So many ranks of each list are in order."""
        self.back: dict[tuple[int, int], Ints] = {}

    def waiting(self, kind: int) -> list[int]:
        """Return how many shards wait for each deadline."""
        left = enumerate(self.left[kind])
        return [count + len(self.back.get((kind, deadline), ())) for deadline, count in left]

    def take(self, kind: int, counts: Sequence[int]) -> Ints:
        """Take so many from the front of each deadline's list, early deadlines first."""
        taken = []
        for deadline, count in enumerate(counts):
            back = self.back.pop((kind, deadline), NOTHING)
            fresh = max(count - len(back), 0)
            taken += [part for part in (back[:count], self._from_front((kind, deadline), fresh)) if len(part)]
            self.give_back(kind, deadline, back[count:])
        return taken[0] if len(taken) == 1 else np.concatenate([NOTHING, *taken])

    def put_in_order(self, wanted: Sequence[Sequence[int]]) -> None:
        """Put at least so many at the front of each list [kind][deadline] in order, as far as there are so many.

        One pass over all the shards: a list that turns out too short for what is taken costs another.
        """
        lists = {}
        for kind, row in enumerate(wanted):
            for deadline, count in enumerate(row):
                missing = min(count, self.left[kind][deadline]) - len(self.fronts.get((kind, deadline), ()))
                if missing > 0:
                    lists[kind, deadline] = missing
        if not lists:
            return
        ranks, grown = np.zeros(self.counts.shape, bool), []
        for (kind, deadline), missing in lists.items():
            of = kind * len(wanted[0]) + deadline
            first = int(self.ordered[of])
            upto = np.cumsum(self.counts[of, first:])
            last = first + int(np.searchsorted(upto, missing)) + 1
            ranks[of, first:last], self.ordered[of] = True, last
            grown.append(((kind, deadline), int(upto[last - first - 1])))
        places, at = self.order.places(ranks.ravel()), 0
        for key, count in grown:
            new = places[at : at + count]
            self.fronts[key] = np.concatenate([self.fronts[key], new]) if key in self.fronts else new
            at += count

    def _from_front(self, key: tuple[int, int], count: int) -> Ints:
        kind, deadline = key
        front = self.fronts.get(key, NOTHING)
        if count > len(front):
            wanted = [[0] * len(row) for row in self.left]
            wanted[kind][deadline] = max(count, AHEAD)
            self.put_in_order(wanted)
            front = self.fronts[key]
        self.fronts[key] = front[count:]
        self.left[kind][deadline] -= count
        return front[:count]

    def give_back(self, kind: int, deadline: int, places: Ints) -> None:
        """Put shards in front of their list again."""
        if len(places):
            known = self.back.get((kind, deadline), NOTHING)
            self.back[kind, deadline] = np.concatenate([places, known])


AHEAD = 1 << 14
"""At least so many are put in order where more are taken than was thought."""
DUST = 0.05
"""Of a car: the solver's small flows claim none."""


def split(cars: int, shares: Sequence[float], waiting: Sequence[int]) -> list[int]:
    """Return how many shards of each deadline to take for so many cars: by shares, then whatever waits, early first.

    There are a few deadlines, and this is asked for every wave: arrays of so few would cost more than the numbers.
    """
    total, upto, left = sum(shares), 0.0, cars
    counts, before = [], 0
    for share, there in zip(shares, waiting, strict=True):
        upto += share
        until = math.ceil(cars * upto / total - DUST) if total > 0.0 else 0
        counts.append(max(min(until - before, there, left), 0))
        left, before = left - counts[-1], until
    for deadline, there in enumerate(waiting):
        more = min(left, there - counts[deadline])
        counts[deadline] += more
        left -= more
    return counts
