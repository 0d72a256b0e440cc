"""Child processes of the laptop: each in a group of its own, with a log of its own, and none outlives the parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from fleetbatch.errors import FleetbatchError, RejectedError, TransientError
from fleetbatch.local.reaper import end_groups

_READY_S: Final = 60.0
_GRACE_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.05
_LOG_TAIL_LINES: Final = 15
_NOT_READY: Final = 75
"""EX_TEMPFAIL of sysexits.h: what a process of ours says when the world, not its input, was to blame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One running process; its process group has the same number."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def alive(self) -> bool:
        """Tell whether the process is still there."""
        return self.process.poll() is None

    def tail(self) -> str:
        """Return the last lines of its log, for a message to a person."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])


@dataclass(slots=True)
class Children:
    """All children of one night; closing the object ends them."""

    logs: Path
    _reaper: subprocess.Popen[str]
    _children: list[Child] = field(default_factory=list)

    @classmethod
    def start(cls, logs: Path, *, lock: int | None = None) -> Self:
        """Start with the reaper, so that nothing can be started that would not be ended.

        The reaper holds `lock`, a file descriptor, as long as it lives: whoever waits for it waits until all is ended.
        """
        logs.mkdir(parents=True, exist_ok=True)
        reaper = subprocess.Popen(
            [sys.executable, "-m", "fleetbatch.local.reaper"],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
            pass_fds=() if lock is None else (lock,),
        )
        return cls(logs, reaper)

    def spawn(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> Child:
        """Start a process whose output goes to `<logs>/<name>.log`."""
        log = self.logs / f"{name}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(  # noqa: S603 # our own programs
                list(command),
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._tell(f"group {process.pid}")
        child = Child(name=name, process=process, log=log)
        self._children.append(child)
        return child

    def guard(self, data: Path) -> None:
        """Have whatever database runs on that folder ended, too, should this process be killed."""
        self._tell(f"postgres {data}")

    def stop(self, children: Sequence[Child]) -> None:
        """Ask children to end, wait, and kill the groups of those that do not."""
        for child in children:
            if child.alive():
                os.killpg(child.process.pid, signal.SIGTERM)
        give_up_at = time.monotonic() + _GRACE_S
        while any(child.alive() for child in children) and time.monotonic() < give_up_at:
            time.sleep(_LOOK_EVERY_S)
        end_groups([child.process.pid for child in children], grace_s=0.0)
        for child in children:
            child.process.wait()

    def kill(self, child: Child) -> None:
        """End one child as a power cut would: SIGKILL for its process alone, what it started must notice by itself."""
        child.process.send_signal(signal.SIGKILL)
        child.process.wait()

    def close(self) -> None:
        """End whatever still runs, last started first."""
        self.stop(self._children[::-1])
        if self._reaper.stdin is not None:
            self._reaper.stdin.close()
        self._reaper.wait()

    def _tell(self, line: str) -> None:
        assert self._reaper.stdin is not None
        self._reaper.stdin.write(line + "\n")
        self._reaper.stdin.flush()


@contextmanager
def children(logs: Path, *, lock: int | None = None) -> Iterator[Children]:
    """Give a set of children that is empty again at the end, however the end comes."""
    family = Children.start(logs, lock=lock)
    try:
        yield family
    finally:
        family.close()


def wait_ready(child: Child, marker: str, *, timeout_s: float = _READY_S) -> None:
    """Wait until a child's log holds the marker; raise when it ends or stays silent.

    Raises:
        RejectedError: the child ended by itself (its last words are in the message).
        TransientError: it did not get ready in time, or ended because something else was not ready (75).
    """
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        if marker in child.log.read_text(errors="replace"):
            return
        if not child.alive():
            raise _fell_while_starting(child)
        time.sleep(_LOOK_EVERY_S)
    message = f"{child.name} was not ready after {timeout_s:.0f} s; see {child.log}"
    raise TransientError(message)


def _fell_while_starting(child: Child) -> FleetbatchError:
    summary = f"{child.name} stopped with exit code {child.process.returncode} while starting"
    said = f"its log {child.log} ends with:\n{child.tail()}"
    if child.process.returncode == _NOT_READY:
        return TransientError(f"{summary}; {said}")
    return RejectedError(summary, [said])
