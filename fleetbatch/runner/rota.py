"""Which worker computes which row group, and which row is to blame for a worker that was lost. Pure.

A row group waits, is given to a worker (one in work, one ahead), and is done. When its worker is lost it waits again:
the one in work is computed row by row the next time; lost again at one row, that row is dead, with the reason.

Whoever has nothing left to do is given half of what another has not begun, so that all cores are busy to a lease's end:
row groups differ by a factor of six in time, and a car may have as many cores as a shard has row groups.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from fleetbatch.runner.whereabouts import Place

AHEAD: Final = 2
"""Row groups that a worker has: one in work, and the next, which is fetched meanwhile. The memory bound counts them."""

Worker: TypeAlias = int


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One row group to compute, or rows [start, stop) of it."""

    row_group: int
    start: int = 0
    stop: int | None = None
    """None: up to its end."""
    rows: bytes = b""
    """The rows as another worker has read them; empty when they are still in the store."""
    last: bool = False
    """Others may be idle before it is done."""
    one_by_one: bool = False
    """Its worker was lost at some of its rows: each is computed alone, so that the one to blame is known."""
    dead: tuple[tuple[int, str], ...] = ()
    """(row, why): rows that are not computed any more."""


@dataclass(slots=True)
class Rota:
    """The row groups of one lease that are not computed yet."""

    waiting: list[Task] = field(default_factory=list)
    given: dict[Worker, list[Task]] = field(default_factory=dict)
    workers: int = 1
    asked: set[Worker] = field(default_factory=set)
    """Who is to give half of what it has not begun, and has not yet."""

    @classmethod
    def of(cls, row_groups: Iterable[int], *, workers: int = 1) -> "Rota":
        """Return the rota of these row groups, to be computed in this order by so many workers."""
        numbers = list(row_groups)
        last = set(numbers[-AHEAD * workers :]) if workers > 1 else set()
        return cls(waiting=[Task(row_group=number, last=number in last) for number in numbers], workers=workers)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to compute."""
        return not self.waiting and not any(self.given.values())

    def give(self, worker: Worker, ahead: int = AHEAD) -> list[Task]:
        """Return what a worker is to be told, so that it has one row group in work and one ahead.

        What another gave up is for who has nothing else: it need not be fetched, and a third may be idle sooner.
        """
        mine = self.given.setdefault(worker, [])
        told = []
        while self.waiting and len(mine) < (1 if self.waiting[0].rows else ahead):
            told.append(self.waiting.pop(0))
            mine.append(told[-1])
        return told

    def ask(self) -> list[Worker]:
        """Return who is to give half of what it has not begun: one for each that is idle, who has most to do first."""
        busy = sorted((worker for worker in self.given if self.given[worker]), key=lambda one: -len(self.given[one]))
        idle = 0 if self.waiting else self.workers - len(busy) - len(self.asked)
        chosen = [worker for worker in busy if worker not in self.asked][: max(idle, 0)]
        self.asked.update(chosen)
        return chosen

    def spared(self, worker: Worker, piece: Task) -> bool:
        """Let a piece of what a worker has wait for another; return False when it has no such row group any more."""
        mine = self.given.get(worker, [])
        self.asked.discard(worker)
        for place, task in enumerate(mine):
            if task.row_group == piece.row_group and task.start < piece.start:
                dead = tuple((row, why) for row, why in task.dead if row < piece.start)  # the others say so themselves
                mine[place] = replace(task, stop=piece.start, dead=dead)
                self.waiting.append(piece)
                return True
        return False

    def done(self, worker: Worker, row_group: int, start: int = 0) -> bool:
        """Take note of what is computed; return False when nobody waits for it."""
        mine = self.given.get(worker, [])
        kept = [task for task in mine if (task.row_group, task.start) != (row_group, start)]
        self.given[worker] = kept
        if not kept:
            self.asked.discard(worker)
        return len(kept) < len(mine)

    def computed(self, row_group: int) -> bool:
        """Return whether nothing of a row group is left to compute."""
        tasks = itertools.chain(self.waiting, *self.given.values())
        return all(task.row_group != row_group for task in tasks)

    def lost(self, worker: Worker, place: Place | None, why: str) -> bool:
        """Take back what a lost worker had; return False when it had something and no row can be blamed."""
        mine = self.given.pop(worker, [])
        self.asked.discard(worker)
        at_a_row = bool(mine) and place is not None and place.row_group == mine[0].row_group
        if at_a_row and place is not None:
            mine[0] = blame(mine[0], place, why)
        self.waiting = sorted(mine + self.waiting, key=lambda task: (task.row_group, task.start))
        return at_a_row or not mine


def blame(task: Task, place: Place, why: str) -> Task:
    """Return the row group as the next worker is to compute it."""
    if not task.one_by_one and place.stop - place.start > 1:
        return replace(task, one_by_one=True)
    return replace(task, one_by_one=True, dead=(*task.dead, (place.start, why)))


def overdue(place: Place | None, *, now_s: float, row_limit_s: float) -> bool:
    """Return whether the rows in work have taken longer than one row may."""
    return place is not None and now_s - place.since_s > row_limit_s
