"""What waits while a round is filled: a list for each kind and deadline, taken from the front. Pure."""

import numpy as np

from fleetbatch.planner.inputs import Floats, Ints
from fleetbatch.planner.kinds import Work


class Lists:
    """What waits of each kind and deadline, the most urgent first."""

    def __init__(self, work: Work) -> None:
        """Line up all the open work."""
        kinds, deadlines, levels = work.demand.shape
        self.order = work.order
        edges = work.starts[::levels]
        self.at = edges[:-1].reshape(kinds, deadlines).copy()
        self.end = edges[1:].reshape(kinds, deadlines)
        self.back: dict[tuple[int, int], Ints] = {}

    def waiting(self, kind: int) -> Ints:
        """Return how many shards wait for each deadline."""
        back = [len(self.back.get((kind, deadline), ())) for deadline in range(self.at.shape[1])]
        return np.asarray(self.end[kind] - self.at[kind] + back)

    def take(self, kind: int, counts: Ints) -> Ints:
        """Take so many from the front of each deadline's list, early deadlines first."""
        taken = []
        for deadline, count in enumerate(counts.tolist()):
            back = self.back.pop((kind, deadline), np.zeros(0, np.int64))
            at, fresh = int(self.at[kind, deadline]), max(count - len(back), 0)
            taken += [back[:count], self.order[at : at + fresh]]
            self.at[kind, deadline] = at + fresh
            self.give_back(kind, deadline, back[count:])
        return np.concatenate(taken)

    def give_back(self, kind: int, deadline: int, places: Ints) -> None:
        """Put shards in front of their list again."""
        if len(places):
            known = self.back.get((kind, deadline), np.zeros(0, np.int64))
            self.back[kind, deadline] = np.concatenate([places, known])


DUST = 0.05
"""Of a car: the solver's small flows claim none."""


def split(cars: int, shares: Floats, waiting: Ints) -> Ints:
    """Return how many shards of each deadline to take for so many cars: by shares, then whatever waits, early first."""
    total = float(shares.sum())
    upto = np.ceil(cars * np.cumsum(shares) / total - DUST) if total > 0.0 else np.zeros(len(waiting))
    counts = np.minimum(np.diff(upto, prepend=0.0).astype(np.int64), waiting)
    for deadline in range(len(counts)):
        over = int(counts.sum()) - cars
        counts[-1 - deadline] -= min(max(over, 0), int(counts[-1 - deadline]))
    for deadline in range(len(counts)):
        counts[deadline] += min(cars - int(counts.sum()), int(waiting[deadline] - counts[deadline]))
    return np.asarray(counts)
