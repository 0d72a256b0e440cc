"""What drives and weighs the ledger's benchmarks: plain HTTP/1.1 over kept connections, and CPU time from /proc.

It needs nothing but uvloop and psutil-free /proc, so that it runs in a peer's environment, too. The driver's own CPU
is never part of what is weighed.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import subprocess

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_NO_STATUS: Final = 0
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length: "


class Line(asyncio.Protocol):
    """One kept connection; one question at a time."""

    def __init__(self) -> None:
        """Wait for nothing yet."""
        self._transport: asyncio.Transport | None = None
        self._got = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to write."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        """Answer when the whole body is there."""
        self._got = self._got + data if self._got else data
        end = self._got.find(_HEAD_END)
        if end < 0:
            return
        at = self._got.lower().find(_LENGTH, 0, end)
        length = int(self._got[at + len(_LENGTH) : self._got.index(b"\r\n", at)]) if at >= 0 else 0
        if len(self._got) < end + len(_HEAD_END) + length:
            return
        status, body = int(self._got[9:12]), self._got[end + len(_HEAD_END) :]
        self._got = b""
        self._settle((status, body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits that the other side hung up: status 0."""
        self._transport = None
        self._settle((_NO_STATUS, repr(exc).encode()))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send one whole request; return status and body."""
        if self._transport is None:
            return _NO_STATUS, b"not connected"
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def _settle(self, answer: tuple[int, bytes]) -> None:
        waiting, self._answer = self._answer, None
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)


async def line_to(url: str) -> Line:
    """Open a connection to http://host:port."""
    parts = urlsplit(url)
    _, line = await asyncio.get_running_loop().create_connection(Line, parts.hostname or "", parts.port or 0)
    return line


def request(method: str, path: str, body: bytes, *, headers: str = "") -> bytes:
    """Return the bytes of one request; `headers` are whole lines."""
    head = f"{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


async def side_by_side(lines: int, work: Callable[[int], Awaitable[None]]) -> None:
    """Do the work in so many tasks at once."""
    async with asyncio.TaskGroup() as group:
        for number in range(lines):
            group.create_task(_as_coroutine(work, number))


async def _as_coroutine(work: Callable[[int], Awaitable[None]], number: int) -> None:
    await work(number)


@dataclass(slots=True)
class Scale:
    """Weighs the CPU seconds of groups of processes, by name, and of this one ("driver")."""

    groups: dict[str, Callable[[], Iterable[int]]]
    _before: dict[str, float] = field(default_factory=dict)
    _started: float = 0.0

    def start(self) -> None:
        """Begin."""
        self._before, self._started = self._now(), time.monotonic()

    def read(self) -> dict[str, float]:
        """Return the CPU seconds of each group since the start, and "wall"."""
        now = self._now()
        found = {name: now[name] - self._before[name] for name in now}
        return {**found, "wall": time.monotonic() - self._started}

    def _now(self) -> dict[str, float]:
        weighed = {name: sum(cpu_s(pid) for pid in pids()) for name, pids in self.groups.items()}
        return {**weighed, "driver": time.process_time()}


def cpu_s(pid: int) -> float:
    """Return what a process and its children that ended have used, user and system."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(fields[place]) for place in (11, 12, 13, 14)) / _TICKS


def family_of(pid: int) -> list[int]:
    """Return a process and its living children."""
    found = [pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def memory_mib(pid: int) -> float:
    """Return a process's resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def wait_for_port(url: str, process: "subprocess.Popen[bytes]", *, within_s: float = 30) -> None:
    """Wait until somebody listens; raise when the process ends first."""
    import socket

    parts = urlsplit(url)
    give_up_at = time.monotonic() + within_s
    while time.monotonic() < give_up_at:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    message = f"nobody listens on {url}"
    raise TimeoutError(message)
