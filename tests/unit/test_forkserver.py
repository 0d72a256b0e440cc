"""Processes are forked from a loaded one, end as they are told to, and never outlive it."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence

import psutil
import pytest

from fleetbatch.runner.forkserver import ForkServer, ForkServerGoneError

LOADED: list[str] = []


def load() -> None:
    LOADED.append("once")


def says_what_is_loaded(descriptors: Sequence[int]) -> None:
    """Answer with what was loaded before the fork, then wait to be told how to end."""
    told, says = descriptors
    os.write(says, f"{os.getpid()} {' '.join(LOADED)}".encode())
    match os.read(told, 1):
        case b"f":
            os.kill(os.getpid(), signal.SIGUSR1)
        case b"x":
            os._exit(7)


@pytest.fixture
def server() -> Iterator[ForkServer]:
    server = ForkServer(load, says_what_is_loaded)
    yield server
    server.close()


def spawn(server: ForkServer) -> tuple[psutil.Process, Callable[[], int], int]:
    """Fork a process that has spoken; return it, what waits for its end, and the descriptor that tells it to."""
    told, tell = os.pipe()
    listen, says = os.pipe()
    forked = server.spawn([told, says])
    os.close(told)
    os.close(says)
    assert os.read(listen, 100).decode() == f"{forked.pid} once"
    os.close(listen)
    return psutil.Process(forked.pid), forked.wait, tell


def ended(process: psutil.Process) -> bool:
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("word", "code"),
    [
        pytest.param(b"", 0, id="done"),
        pytest.param(b"x", 7, id="exit code"),
        pytest.param(b"f", -signal.SIGUSR1, id="signal"),
    ],
)
def test_it_is_told_how_each_process_ended(server: ForkServer, word: bytes, code: int) -> None:
    _, wait, tell = spawn(server)
    os.write(tell, word)
    os.close(tell)  # no other process holds it, or this would hang
    assert wait() == code


def test_processes_share_what_was_loaded_once_and_end_one_by_one(server: ForkServer) -> None:
    (one, wait_one, tell_one), (two, wait_two, tell_two) = spawn(server), spawn(server)
    assert one.ppid() == two.ppid() != os.getpid()
    server.kill(one.pid)
    assert wait_one() == -signal.SIGKILL
    assert two.is_running()
    server.kill(one.pid)  # buried: nobody is hit
    os.close(tell_two)
    assert wait_two() == 0
    os.close(tell_one)


def test_a_server_that_was_killed_takes_its_processes_along_and_says_so() -> None:
    server = ForkServer(load, says_what_is_loaded)
    process, wait, tell = spawn(server)
    process.parent().kill()  # type: ignore[union-attr]  # it is the server
    assert wait() == -signal.SIGKILL
    assert ended(process)
    with pytest.raises(ForkServerGoneError, match="has ended"):
        server.spawn([tell])
    with pytest.raises(ForkServerGoneError, match="has ended"):
        server.kill(process.pid)
    server.close()
    os.close(tell)


def test_nothing_is_left_when_it_is_closed() -> None:
    server = ForkServer(load, says_what_is_loaded)
    process, wait, tell = spawn(server)
    server.close()
    assert wait() == -signal.SIGKILL
    assert ended(process)
    os.close(tell)
