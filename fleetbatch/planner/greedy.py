"""The simple honest rule: the most urgent open shard goes to the car that is free first, the longest window first.

Pure. Also the fallback of every cleverer plan: it keeps all the hard rules and needs no solver.
"""

import heapq
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.inputs import Cars, Floats, Shards, window_s
from fleetbatch.planner.pieces import Pieces, Running, allowed, concat
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.reasons import Reason

LOOK_AHEAD = 8
"""Shards of one list that a car tries before it leaves the list alone, because none fits into its window."""

_Row = tuple[int, int, int, int, float, float, float]
"""Car, shard, start, stop, begins, ends, seconds of a row group."""


def greedy(cars: Cars, shards: Shards, policy: Policy, running: Running) -> Pieces:
    """Return what every car does next, the running pieces first.

    Whoever is free first picks first; of those free at the same time the one with the longest bookable window, then
    the one whose owner is due most, then the lowest id. It picks by priority, deadline, id among the lists it may
    have. Within a list no shard is placed while a more urgent one would have fitted there.
    """
    until = cars.until(slice(None), policy.stay_min)
    window = np.minimum(window_s(cars.survival, 1.0 - policy.window_risk, np.arange(len(until))), until)
    free = np.maximum(cars.ready, running.free)
    able = np.flatnonzero(free < np.minimum(until, policy.commit_s))
    due = -cars.deficit[able].astype(np.float64)
    heap = list(zip(free[able].tolist(), (-window[able]).tolist(), due.tolist(), able.tolist(), strict=True))
    heapq.heapify(heap)
    board = _Board(cars, shards, policy, until)
    left = policy.pieces_max - np.bincount(running.pieces.car, minlength=len(cars.car_id))
    rows, turns = list[_Row](), list[int]()
    while heap:
        at, stays, due_one, car = heapq.heappop(heap)
        row = board.take(car, at) if left[car] > 0 else None
        if row is None:
            continue
        rows.append(row)
        turns.append(policy.pieces_max - int(left[car]))
        left[car] -= 1
        if row[5] < policy.commit_s:
            heapq.heappush(heap, (row[5], stays, due_one, car))
    return concat([running.pieces, _as_pieces(rows, turns, shards)])


def _as_pieces(rows: list[_Row], turns: list[int], shards: Shards) -> Pieces:
    columns = list(zip(*rows, strict=True)) if rows else [()] * 7
    car, shard, start, stop = (np.array(column, np.int64) for column in columns[:4])
    begins, ends, tau = (np.array(column, np.float64) for column in columns[4:])
    return Pieces.of(
        car=car,
        shard=shard,
        start=start,
        stop=stop,
        begins=begins,
        ends=ends,
        tau=tau,
        units=shards.units(shard),
        reason=np.full(len(rows), Reason.LONGEST_WINDOW, np.uint8),
        whole=stop == shards.stop[shard],
        turn=np.array(turns, np.int64),
    )


class _Board:
    """The open shards as lists; within one all shards ask the same of a car, the most urgent first."""

    def __init__(self, cars: Cars, shards: Shards, policy: Policy, until: Floats) -> None:
        self.cars, self.shards, self.policy, self.until = cars, shards, policy, until
        self.lists = [places.tolist() for places in lists_of(shards, np.flatnonzero(shards.open()))]
        self.heads = [0] * len(self.lists)
        self.first = np.array([places[0] for places in self.lists], np.int64)
        self.taken: set[int] = set()
        self.may: dict[tuple[int, ...], list[int]] = {}
        self.loaded: set[tuple[int, int]] = set()

    def take(self, car: int, at: float) -> _Row | None:
        """Return the row of the most urgent shard that fits on the car from `at` on, and take it off its list."""
        best: tuple[tuple[int, float, int], int, float, float] | None = None
        for number in self._lists_for(car):
            for shard in self._waiting(number):
                urgency = (int(self.shards.priority[shard]), float(self.shards.deadline[shard]), shard)
                if best is not None and best[0] < urgency:
                    break
                stop, ends, tau = self._fit(car, shard, at)
                if stop > self.shards.start[shard]:
                    best = (urgency, stop, ends, tau)
                    break
        if best is None:
            return None
        (_, _, shard), stop, ends, tau = best
        self.taken.add(shard)
        self.loaded.add((car, int(self.shards.workload[shard])))
        return car, shard, int(self.shards.start[shard]), stop, at, ends, tau

    def _lists_for(self, car: int) -> list[int]:
        """Return the lists of which the car may have every shard; cars that are alike share the answer."""
        c = self.cars
        alike = (int(c.hw[car]), int(c.consent[car]), int(c.memory[car]), int(c.region[car]))
        if alike not in self.may:
            same = np.full(len(self.first), car)
            self.may[alike] = np.flatnonzero(allowed(c, self.shards, same, self.first)).tolist()
        return self.may[alike]

    def _waiting(self, number: int) -> Iterator[int]:
        """Yield the first shards of a list that nobody took; forget taken ones at its head."""
        places, tried = self.lists[number], 0
        while self.heads[number] < len(places) and places[self.heads[number]] in self.taken:
            self.heads[number] += 1
        for place in range(self.heads[number], len(places)):
            if tried == LOOK_AHEAD:
                return
            if places[place] not in self.taken:
                tried += 1
                yield places[place]

    def _fit(self, car: int, shard: int, at: float) -> tuple[int, float, float]:
        """Return the row group at which the car must stop, when, and the seconds of one; the start where none fits."""
        c, s, policy = self.cars, self.shards, self.policy
        start, stop, workload = int(s.start[shard]), int(s.stop[shard]), int(s.workload[shard])
        rate = policy.rates[int(c.hw[car])][workload] * float(c.speed[car])
        if rate <= 0.0:
            return start, at, math.inf
        link = max(float(c.link[car]), 1e-9)
        fetch = float(s.size_bytes[shard]) / stop / link
        tau = max(float(s.work_units[shard]) / stop / rate, fetch)
        cached = bool((c.cached[car] >> workload) & 1) or (car, workload) in self.loaded or not policy.model_bytes
        begins = at + fetch + (0.0 if cached else policy.model_bytes[workload] / link)
        room = min(float(self.until[car]), float(s.deadline[shard])) - begins
        fits = (
            min(stop - start, int(min(room / tau + 1e-9, stop - start)) if tau > 0.0 else stop - start)
            if room >= 0.0
            else 0
        )
        if fits < min(policy.piece_row_groups_min, stop - start):
            return start, at, tau
        return start + fits, begins + fits * tau, tau


def lists_of(shards: Shards, places: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Return the places split into lists of the same workload, mask, region and memory, each in order of urgency."""
    keys = (shards.workload[places], shards.hw_mask[places], shards.region[places], shards.memory[places])
    order = np.lexsort((places, shards.deadline[places], shards.priority[places], *keys))
    if not len(order):
        return []
    sorted_ = [key[order] for key in keys]
    edges = np.flatnonzero(np.any([key[1:] != key[:-1] for key in sorted_], axis=0)) + 1
    return list(np.split(places[order], edges))
