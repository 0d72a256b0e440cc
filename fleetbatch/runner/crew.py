"""The runner's side of its workers, one a core: starts and hears them, replaces the lost, kills all in a moment."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import IO, TypeAlias

import pyarrow as pa

from fleetbatch.protocol import Lease
from fleetbatch.runner.allocator import let_go_of_libraries, pass_memory_on
from fleetbatch.runner.forkserver import Forked, ForkServer
from fleetbatch.runner.frames import Failed, GroupDone, Share, Spare, Work, from_worker, read_frame, write_frame
from fleetbatch.runner.rota import AHEAD, Rota, Task, Worker, overdue
from fleetbatch.runner.whereabouts import Whereabouts
from fleetbatch.runner.worker import WorkerSettings, load, work
from fleetbatch.workloads import why_ended


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnded:
    """A worker's process is gone, whoever ended it."""

    pid: int
    returncode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FromWorker:
    """What a worker says."""

    pid: int
    said: GroupDone | Spare | Failed


FromCrew: TypeAlias = FromWorker | WorkerEnded


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """All of a row group."""

    lease_id: str
    row_group: int
    answers: pa.Table
    down_bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Workers ended, and no row can be blamed: the work cannot go on."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hand:
    """One worker's process, and the runner's ends of its pipes."""

    process: Forked
    tell: IO[bytes]
    listening: threading.Thread
    whereabouts: Whereabouts


class Crew:
    """At most so many workers; `heard` is told what they say, from other threads. Called from one thread."""

    def __init__(self, settings: WorkerSettings, heard: Callable[[FromCrew], None]) -> None:
        """Start no worker yet, but what they will be forked from: this process must have no second thread."""
        self._settings = settings
        self._heard = heard
        pass_memory_on()
        self._forks = ForkServer(load, partial(work, settings))
        let_go_of_libraries()
        self._hands: dict[Worker, _Hand] = {}
        self._rota = Rota()
        self._lease: Lease | None = None
        self._pieces: dict[int, dict[int, GroupDone]] = {}

    @property
    def at_work(self) -> bool:
        """Whether any row group is waited for."""
        return not self._rota.idle

    def start(self, lease: Lease, row_groups: Collection[int]) -> None:
        """Compute these row groups of a lease; workers that are idle are used again."""
        self._lease, self._pieces = lease, {}
        self._rota = Rota.of(row_groups, workers=self._settings.workers)
        self._staff()

    def note(self, message: FromCrew) -> Computed | Failed | Lost | None:
        """Keep track of who computes what; return what came of it, or None while there is more to come."""
        match message:
            case FromWorker(said=GroupDone() as done):
                return self._done(message.pid, done)
            case FromWorker(said=Spare() as spare):
                piece = Task(row_group=spare.row_group, start=spare.start, stop=spare.stop, rows=spare.rows, last=True)
                if self._rota.spared(message.pid, piece):
                    self._staff()
                return None
            case FromWorker(said=Failed() as failed):
                return failed
            case WorkerEnded() if message.pid in self._hands:
                if not self._lose(message.pid, why_ended(message.returncode)):
                    return Lost(detail=f"worker ended: {message.returncode}")
                self._staff()
            case _:
                pass  # we ended it
        return None

    def _done(self, pid: Worker, done: GroupDone) -> Computed | None:
        """Let its worker go on; return the row group when this was the last of it."""
        if not self._rota.done(pid, done.row_group, done.start):
            return None
        pieces = self._pieces.setdefault(done.row_group, {})
        pieces[done.start] = done
        if pid in self._hands:
            self._give(pid)
        self._ask()
        if not self._rota.computed(done.row_group):
            return None
        del self._pieces[done.row_group]
        tables = [pa.ipc.open_stream(pieces[start].answers).read_all() for start in sorted(pieces)]
        return Computed(
            lease_id=done.lease_id,
            row_group=done.row_group,
            answers=pa.concat_tables(tables),
            down_bytes_per_s=done.down_bytes_per_s,
        )

    def look(self) -> None:
        """Replace the workers that have been at one row for too long."""
        for pid, hand in list(self._hands.items()):
            limit_s = self._settings.row_limit_s
            if overdue(hand.whereabouts.place(), now_s=time.monotonic(), row_limit_s=limit_s):
                self._lose(pid, f"given up: this row took more than {limit_s:g} s")
                self._staff()

    def kill(self, *, idle_too: bool) -> None:
        """End the workers that are at work at once; the operating system takes back what they held."""
        for pid in list(self._hands):
            if idle_too or self._rota.given.get(pid):
                self._end(pid)
        self._rota, self._lease, self._pieces = Rota(), None, {}

    def close(self) -> None:
        """End all workers, and what they are forked from."""
        self.kill(idle_too=True)
        self._forks.close()

    def _staff(self) -> None:
        """Start what is missing, as long as there is something to compute, and tell all what to do."""
        wanted = min(self._settings.workers, len(self._rota.waiting) + len(self._rota.given))
        while len(self._hands) < wanted:
            self._spawn()
        for ahead in range(1, AHEAD + 1):  # nobody is idle before anybody has something ahead
            for pid in list(self._hands):
                self._give(pid, ahead)
        self._ask()

    def _ask(self) -> None:
        """Have those who have more to do share it with those who have nothing."""
        for pid in self._rota.ask():
            assert self._lease is not None
            with contextlib.suppress(BrokenPipeError):  # its end is heard soon
                write_frame(self._hands[pid].tell, Share(lease_id=self._lease.lease_id))

    def _give(self, pid: Worker, ahead: int = AHEAD) -> None:
        pipe = self._hands[pid].tell
        assert self._lease is not None
        try:
            for task in self._rota.give(pid, ahead):
                write_frame(pipe, _work(self._lease, task))
        except BrokenPipeError:
            return  # its end is heard soon

    def _lose(self, pid: Worker, why: str) -> bool:
        """End a worker and take back what it had; return False when no row is to blame."""
        place = self._hands[pid].whereabouts.place() if why else None
        self._end(pid)
        return self._rota.lost(pid, place, why)

    def _end(self, pid: Worker) -> None:
        hand = self._hands.pop(pid)
        self._forks.kill(pid)
        hand.listening.join()
        with contextlib.suppress(BrokenPipeError):
            hand.tell.close()
        hand.whereabouts.close()

    def _spawn(self) -> None:
        whereabouts = Whereabouts.create()
        told, tell = os.pipe()
        listen, says = os.pipe()
        process = self._forks.spawn([told, says, whereabouts.descriptor])
        os.close(told)
        os.close(says)
        listening = threading.Thread(target=self._listen, args=(process, listen), daemon=True)
        listening.start()
        self._hands[process.pid] = _Hand(
            process=process, tell=os.fdopen(tell, "wb"), listening=listening, whereabouts=whereabouts
        )

    def _listen(self, process: Forked, listen: int) -> None:
        with os.fdopen(listen, "rb") as pipe:
            while (frame := read_frame(pipe)) is not None:
                self._heard(FromWorker(pid=process.pid, said=from_worker(frame)))
        self._heard(WorkerEnded(pid=process.pid, returncode=process.wait()))


def _work(lease: Lease, task: Task) -> Work:
    return Work(
        lease=lease,
        row_group=task.row_group,
        start=task.start,
        stop=task.stop,
        rows=task.rows,
        few=task.last,
        one_by_one=task.one_by_one,
        dead=dict(task.dead),
    )
