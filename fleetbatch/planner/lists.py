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
        kinds, deadlines, levels = work.demand.shape
        self.order = work.order
        edges = work.starts[::levels]
        self.at: list[list[int]] = edges[:-1].reshape(kinds, deadlines).tolist()
        self.end: list[list[int]] = edges[1:].reshape(kinds, deadlines).tolist()
        self.back: dict[tuple[int, int], Ints] = {}

    def waiting(self, kind: int) -> list[int]:
        """Return how many shards wait for each deadline."""
        edges = enumerate(zip(self.at[kind], self.end[kind], strict=True))
        return [end - at + len(self.back.get((kind, deadline), ())) for deadline, (at, end) in edges]

    def take(self, kind: int, counts: Sequence[int]) -> Ints:
        """Take so many from the front of each deadline's list, early deadlines first."""
        taken = []
        for deadline, count in enumerate(counts):
            back = self.back.pop((kind, deadline), NOTHING)
            at, fresh = self.at[kind][deadline], max(count - len(back), 0)
            taken += [part for part in (back[:count], self.order.places(at, at + fresh)) if len(part)]
            self.at[kind][deadline] = at + fresh
            self.give_back(kind, deadline, back[count:])
        return taken[0] if len(taken) == 1 else np.concatenate([NOTHING, *taken])

    def give_back(self, kind: int, deadline: int, places: Ints) -> None:
        """Put shards in front of their list again."""
        if len(places):
            known = self.back.get((kind, deadline), NOTHING)
            self.back[kind, deadline] = np.concatenate([places, known])


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
