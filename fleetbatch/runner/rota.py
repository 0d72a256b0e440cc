"""Which worker computes which row group, and which row is to blame for a worker that was lost. Pure.

A row group waits, is given to a worker (one in work, one ahead), and is done. When its worker is lost it waits again:
the one in work is computed row by row the next time; lost again at one row, that row is dead, with the reason.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from fleetbatch.runner.whereabouts import Place

AHEAD: Final = 2
"""Row groups that a worker has: one in work, and the next, which is fetched meanwhile. The memory bound counts them."""

Worker: TypeAlias = int


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One row group to compute."""

    row_group: int
    one_by_one: bool = False
    """Its worker was lost at some of its rows: each is computed alone, so that the one to blame is known."""
    dead: tuple[tuple[int, str], ...] = ()
    """(row, why): rows that are not computed any more."""


@dataclass(slots=True)
class Rota:
    """The row groups of one lease that are not computed yet."""

    waiting: list[Task] = field(default_factory=list)
    given: dict[Worker, list[Task]] = field(default_factory=dict)

    @classmethod
    def of(cls, row_groups: Iterable[int]) -> "Rota":
        """Return the rota of these row groups, to be computed in this order."""
        return cls(waiting=[Task(row_group=number) for number in row_groups])

    @property
    def idle(self) -> bool:
        """Whether nothing is left to compute."""
        return not self.waiting and not any(self.given.values())

    def give(self, worker: Worker) -> list[Task]:
        """Return what a worker is to be told, so that it has one row group in work and one ahead."""
        mine = self.given.setdefault(worker, [])
        told = self.waiting[: AHEAD - len(mine)]
        self.waiting = self.waiting[len(told) :]
        mine += told
        return told

    def done(self, worker: Worker, row_group: int) -> bool:
        """Take note of a row group that is computed; return False when nobody waits for it."""
        mine = self.given.get(worker, [])
        kept = [task for task in mine if task.row_group != row_group]
        self.given[worker] = kept
        return len(kept) < len(mine)

    def lost(self, worker: Worker, place: Place | None, why: str) -> bool:
        """Take back what a lost worker had; return False when it had something and no row can be blamed."""
        mine = self.given.pop(worker, [])
        at_a_row = bool(mine) and place is not None and place.row_group == mine[0].row_group
        if at_a_row and place is not None:
            mine[0] = blame(mine[0], place, why)
        self.waiting = sorted(mine + self.waiting, key=lambda task: task.row_group)
        return at_a_row or not mine


def blame(task: Task, place: Place, why: str) -> Task:
    """Return the row group as the next worker is to compute it."""
    if not task.one_by_one and place.stop - place.start > 1:
        return replace(task, one_by_one=True)
    return replace(task, one_by_one=True, dead=(*task.dead, (place.start, why)))


def overdue(place: Place | None, *, now_s: float, row_limit_s: float) -> bool:
    """Return whether the rows in work have taken longer than one row may."""
    return place is not None and now_s - place.since_s > row_limit_s
