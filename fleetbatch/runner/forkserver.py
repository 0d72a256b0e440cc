"""Workers are forked from a process that has loaded what they need: its pages are theirs as long as nobody writes.

It has one thread and does nothing else. The runner itself could not fork: a lock that another of its threads holds
would be held for ever in the child. It ends when the runner is gone, and all that it forked ends with it.
"""

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import struct
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

from fleetbatch.errors import TransientError

_NUMBER: Final = struct.Struct("=q")
_FORK: Final = 0
"""Asks for a process, with its descriptors beside it; any other number is a process to be killed."""
_DESCRIPTORS_MAX: Final = 8
_PDEATHSIG: Final = 1
"""PR_SET_PDEATHSIG of prctl(2): a signal for when the process that forked this one is gone."""

Work: TypeAlias = Callable[[Sequence[int]], None]
"""What a forked process does with the descriptors that it was given."""


class ForkServerGoneError(TransientError):
    """The server has ended, and with it all that it forked; a runner that is started anew has another."""


@dataclass(frozen=True, slots=True)
class Forked:
    """A process of the server's."""

    pid: int
    _status: int

    def wait(self) -> int:
        """Return how it ended, once it has: its exit code, or minus a signal. For one caller, once."""
        with os.fdopen(self._status, "rb") as pipe:
            told = pipe.read(_NUMBER.size)
        return int(_NUMBER.unpack(told)[0]) if told else -signal.SIGKILL  # the server is gone, and all with it


class ForkServer:
    """The runner's end of it, called from one thread. Both verbs raise ForkServerGoneError."""

    def __init__(self, load: Callable[[], object], work: Work) -> None:
        """Fork the server, which loads at once, from this process; it must have no second thread yet."""
        self._control, theirs = socket.socketpair()
        _freeze()
        if (pid := os.fork()) == 0:
            self._control.close()
            _run_to_the_end(lambda: _serve(theirs, load, work))
        self._pid = pid
        theirs.close()

    def spawn(self, descriptors: Sequence[int]) -> Forked:
        """Start a process with copies of these descriptors."""
        status, theirs = os.pipe()
        with _gone_if_closed():
            socket.send_fds(self._control, [_NUMBER.pack(_FORK)], [*descriptors, theirs])
            os.close(theirs)
            [pid] = _NUMBER.unpack(self._control.recv(_NUMBER.size, socket.MSG_WAITALL))
        return Forked(pid, status)

    def kill(self, pid: int) -> None:
        """Kill a process; one that has ended already is left alone, whoever has its number now."""
        with _gone_if_closed():
            self._control.sendall(_NUMBER.pack(pid))

    def close(self) -> None:
        """End the server and all that it forked."""
        self._control.close()
        os.waitpid(self._pid, 0)


@contextlib.contextmanager
def _gone_if_closed() -> Iterator[None]:
    try:
        yield
    except (ConnectionError, struct.error) as error:  # an answer that was cut is none
        message = "the process that workers are forked from has ended"
        raise ForkServerGoneError(message) from error


def _serve(control: socket.socket, load: Callable[[], object], work: Work) -> None:
    """Fork, kill and bury until the runner is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # these reach the whole group; the runner says when to end
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    load()
    _freeze()
    living: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, select.PIPE_BUF)
            _bury(living)
        if control.fileno() in ready:
            told, descriptors, _, _ = socket.recv_fds(control, _NUMBER.size, _DESCRIPTORS_MAX)
            if not told:
                return
            [asked] = _NUMBER.unpack(told)
            if asked == _FORK:
                pid = _fork([control.fileno(), woken, wakes, *living.values()], descriptors, work)
                living[pid] = descriptors[-1]
                control.sendall(_NUMBER.pack(pid))
            elif asked in living:  # not buried yet, so that its number is its own
                os.kill(asked, signal.SIGKILL)


def _fork(ours: Sequence[int], descriptors: Sequence[int], work: Work) -> int:
    """Start a process that has none of `ours`; return its number. The last descriptor, its status, stays here."""
    *given, status = descriptors
    server = os.getpid()
    if (pid := os.fork()) == 0:
        _end_with(server)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for descriptor in (*ours, status):
            os.close(descriptor)
        _run_to_the_end(lambda: work(given))
    for descriptor in given:
        os.close(descriptor)
    return pid


def _end_with(parent: int) -> None:
    """Have this process killed when its parent is gone."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before
        os.kill(os.getpid(), signal.SIGKILL)


def _bury(living: dict[int, int]) -> None:
    """Tell how each process ended that has."""
    for pid in list(living):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with os.fdopen(living.pop(pid), "wb") as pipe:
                pipe.write(_NUMBER.pack(os.waitstatus_to_exitcode(status)))


def _freeze() -> None:
    """Keep the garbage collector, here and in children, from what there is now: it would write to every page."""
    gc.collect()
    gc.freeze()


def _run_to_the_end(run: Callable[[], None]) -> NoReturn:
    """Run what a forked process is for; it never returns to where it was forked from."""
    code = 1
    try:
        run()
        code = 0
    except BaseException:  # noqa: BLE001 (there is nobody above to tell)
        traceback.print_exc()
    finally:
        os._exit(code)
