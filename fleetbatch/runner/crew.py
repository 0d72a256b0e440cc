"""The runner's side of its worker: starts it, hears it, kills it within a moment."""

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from fleetbatch.protocol import Lease
from fleetbatch.runner.frames import Failed, GroupDone, Work, from_worker, read_frame, write_frame


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnded:
    """A worker's process is gone, whoever ended it."""

    pid: int
    returncode: int


FromCrew: TypeAlias = GroupDone | Failed | WorkerEnded


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What every worker of this car is started with."""

    provider: str
    threads: int
    precision: str
    cache: Path

    def command(self) -> list[str]:
        """Return the command line."""
        return [
            *(sys.executable, "-m", "fleetbatch.runner.worker"),
            *("--provider", self.provider, "--threads", str(self.threads)),
            *("--precision", self.precision, "--cache", str(self.cache)),
        ]


class Crew:
    """At most one worker; `heard` is told what it says, from another thread. Called from one thread."""

    def __init__(self, settings: WorkerSettings, heard: Callable[[FromCrew], None]) -> None:
        """Start nothing yet."""
        self._settings = settings
        self._heard = heard
        self._process: subprocess.Popen[bytes] | None = None
        self._lease: Lease | None = None

    def start(self, lease: Lease, start: int) -> None:
        """Give the worker a lease; an idle one is used again."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._spawn()
        assert self._process.stdin is not None
        self._lease = lease
        try:
            write_frame(self._process.stdin, Work(lease=lease, start=start))
        except BrokenPipeError:
            return  # its end is heard soon

    def note(self, message: FromCrew) -> str:
        """Keep track of whether the worker is at work; return the lease that its end interrupted, or nothing."""
        match message:
            case GroupDone() if self._lease is not None and message.row_group + 1 >= self._lease.row_groups:
                self._lease = None
            case Failed():
                self._lease = None
            case WorkerEnded() if self._process is not None and message.pid == self._process.pid:
                interrupted, self._lease, self._process = self._lease, None, None
                return interrupted.lease_id if interrupted is not None else ""
            case _:
                pass
        return ""

    def kill(self, *, idle_too: bool) -> None:
        """End a worker that is at work at once; the operating system takes back what it held."""
        if self._process is None or (self._lease is None and not idle_too):
            return
        self._process.kill()
        self._process.wait()
        self._process, self._lease = None, None

    def _spawn(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self._settings.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 (our own module)
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as pipe:
            while (frame := read_frame(pipe)) is not None:
                self._heard(from_worker(frame))
        self._heard(WorkerEnded(pid=process.pid, returncode=process.wait()))


def answers_of(message: GroupDone) -> pa.Table:
    """Return the answers of a row group."""
    return pa.ipc.open_stream(message.answers).read_all()
