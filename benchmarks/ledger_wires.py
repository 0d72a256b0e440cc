"""Kept connections for a driver that must cost little: no task and no future a call, and callers that lose patience.

A call waits for a free connection, as it would in the proxy in front of a cell; whoever waits longer than `PATIENCE_S`
has hung up, and is not sent.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, cast
from urllib.parse import urlsplit

PATIENCE_S: Final = 20.0
"""What the runner waits for an answer."""
HUNG_UP: Final = 0
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length: "
_RETRY: Final = b"retry-after: "


class Answer(NamedTuple):
    """What came back; HUNG_UP is no status of HTTP."""

    status: int
    body: bytes
    retry_after_s: float | None


Then = Callable[[Answer], None]


class Wires:
    """So many connections; the one that was idle for longest is next."""

    def __init__(self) -> None:
        """Have no connection yet."""
        self._free: deque[_Wire] = deque()
        self._waiting: deque[tuple[float, bytes, Then]] = deque()
        self.open = 0
        """Calls without an answer."""
        self.lost = 0
        """Connections on which the other side hung up; another was opened for each."""
        self._url = ""
        self._opening: set[asyncio.Task[None]] = set()

    async def connect(self, url: str, count: int) -> None:
        """Open so many connections."""
        self._url = url
        for _ in range(count):
            await self._connect()

    def ask(self, request: bytes, then: Then) -> None:
        """Send a whole request as soon as a connection is free, and tell `then` the answer."""
        self.open += 1
        while self._free and not self._free[0].is_open:
            self._free.popleft()
        if self._free:
            self._free.popleft().ask(request, partial(self._answered, then))
        else:
            self._waiting.append((time.monotonic() + PATIENCE_S, request, then))

    def close(self) -> None:
        """Hang up."""
        self._url = ""
        while self._free:
            self._free.popleft().close()

    async def _connect(self) -> None:
        parts = urlsplit(self._url)
        made = partial(_Wire, self._freed, self._hung_up)
        await asyncio.get_running_loop().create_connection(made, parts.hostname or "", parts.port or 0)

    def _hung_up(self) -> None:
        if self._url:
            self.lost += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _answered(self, then: Then, answer: Answer) -> None:
        self.open -= 1
        then(answer)

    def _freed(self, wire: "_Wire") -> None:
        now = time.monotonic()
        while self._waiting:
            give_up_at, request, then = self._waiting.popleft()
            if give_up_at >= now:
                wire.ask(request, partial(self._answered, then))
                return
            self._answered(then, Answer(HUNG_UP, b"nobody answered", None))
        self._free.append(wire)


class _Wire(asyncio.Protocol):
    """One connection, one question at a time."""

    def __init__(self, freed: "Callable[[_Wire], None]", hung_up: Callable[[], None]) -> None:
        self._freed, self._hung_up = freed, hung_up
        self._transport: asyncio.Transport | None = None
        self._got = b""
        self._then: Then | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._freed(self)

    def ask(self, request: bytes, then: Then) -> None:
        assert self._transport is not None
        self._then = then
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._got:
            data = self._got + data
        end = data.find(_HEAD_END)
        if end < 0 or len(data) < end + len(_HEAD_END) + int(_field(data, _LENGTH, end) or 0):
            self._got = data
            return
        self._got = b""
        then, self._then = self._then, None
        status, wait = int(data[9:12]), _field(data, _RETRY, end)
        self._freed(self)
        if then is not None:
            then(Answer(status, data[end + len(_HEAD_END) :], float(wait) if wait else None))

    def connection_lost(self, exc: Exception | None) -> None:
        then, self._then, self._transport = self._then, None, None
        self._hung_up()
        if then is not None:
            then(Answer(HUNG_UP, repr(exc).encode(), None))

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _field(data: bytes, name: bytes, end: int) -> bytes:
    """Return a field of a head as our gateway writes them, in small letters; empty without it."""
    at = data.find(name, 0, end)
    return data[at + len(name) : data.index(b"\r\n", at)] if at >= 0 else b""
