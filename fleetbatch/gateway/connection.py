"""One caller's connection: what cars usually say is answered here, all else by the application.

Most of what a cell hears is short messages of cars, and most of such a call's cost would be ASGI's: a scope, an event,
a task and four messages. Whatever is unusual about a request goes the
ordinary way, which knows every limit; both ways ask the same functions, so that they give the same answers and count
the same.
"""

from asyncio import BaseTransport, TimerHandle
from functools import partial
from http import HTTPStatus
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from fleetbatch.gateway.admission import ROUTES, Route
from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.heads import Heads, Request
from fleetbatch.gateway.problems import JSON_MEDIA, Headers, Kind, ProblemError, Reply
from fleetbatch.gateway.quick import OK, POLL, answer, empty_poll

_USUAL: Final = {path.encode(): route for path, route in ROUTES.items() if route.endpoint.caller == "car"}
_PATIENCE_S: Final = 1.0
"""How long the rest of a body is waited for here; the application waits longer, with more care."""
_HEAD_BYTES_MAX: Final = 64 << 10
_PIPELINED_MAX: Final = 1000
"""Requests that wait for answers to those before; uvicorn reads on with every answer, and keeps what it has read."""
_CONTINUE: Final = b"100-continue"


def connections(gate: Gate) -> type[HttpToolsProtocol]:
    """Return the kind of connection that serves one gate, for uvicorn's `http`."""
    return type("GateConnection", (_Connection,), {"gate": gate, "written": _Written(), "heads": Heads()})


class _Written:
    """The headers that all answers of a second bear, as they are written."""

    def __init__(self) -> None:
        """Begin without any."""
        self._headers: Headers | list[tuple[bytes, bytes]] = ()
        self._lines = b""

    def of(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return the lines; uvicorn makes a new list when the second is over."""
        if headers is not self._headers:
            self._headers, self._lines = headers, _lines(headers)
        return self._lines


def _lines(headers: Headers | list[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class _Call:
    """A call that is being answered here, as far as uvicorn's connection wants to know of it."""

    response_complete, disconnected, keep_alive = False, False, True

    @property
    def message_event(self) -> "_Call":
        """Return what is told that the caller hung up."""
        return self

    def set(self) -> None:
        """Hear that the caller hung up: nobody waits for it here."""


class _Connection(HttpToolsProtocol):
    """uvicorn's connection, which alone parses; what it calls when is its contract with the parser."""

    gate: Gate
    written: _Written
    heads: Heads
    _between: bool = True
    """The parser has seen the end of a message, and nothing of the next."""
    _whole: bytes = b""
    """A piece that came between two messages; may be one of them."""
    _route: Route | None = None
    """Of a message whose body is being read here."""
    _body: bytes = b""
    _in_head: bool = False
    _head_bytes: int = 0
    """What came of an unfinished head, after the piece that it began in."""
    _waiting: TimerHandle | None = None
    _idle: TimerHandle | None = None
    """Looks now and then whether the caller is still there: cheaper than a timer for each request."""
    _heard_at: float = 0.0
    _unread: int = 0
    """Bytes that the caller had not taken at the last look."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Expect something to be said; who says nothing at all is hung up on like any other."""
        super().connection_made(transport)  # type: ignore[arg-type] # uvicorn's own is narrower than asyncio's
        self._heard_at = self.loop.time()
        self._idle = self.loop.call_later(self.timeout_keep_alive, self._end_if_idle)

    def data_received(self, data: bytes) -> None:
        """Answer or parse what came; whoever stops in the middle is waited for, but not for ever."""
        self._heard_at = self.loop.time()
        if self._between and not self._busy() and not self.flow.write_paused:
            request = self.heads.read(data)
            if request is not None:
                self._answer(request)
                return
            self._whole = data
        head = self.headers if self._in_head else None
        super().data_received(data)
        self._whole = b""
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes = self._head_bytes + len(data) if head is self.headers else 0
            self._wait_for_head()
        elif self._route is not None and self._waiting is None:
            self._waiting = self.loop.call_later(_PATIENCE_S, self._hand_over)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._settle()
        if self._idle is not None:
            self._idle.cancel()
        self._route = None
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a head; what only the application asks for is made when it is asked."""
        self._in_head, self._between = True, False
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a line of the head."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Read the body of a usual message here; give anything else to the application."""
        self._in_head = False
        self._settle()
        if len(self.pipeline) >= _PIPELINED_MAX:
            self.transport.abort()
            return
        route = _USUAL.get(self.url)
        if route is not None and self._is_usual():
            self._route, self._body = route, b""
        else:
            self._pass_on()

    def on_body(self, body: bytes) -> None:
        """Keep a message; the application says no to what is too long."""
        if self._route is None:
            super().on_body(body)
            return
        self._body = self._body + body if self._body else body
        if len(self._body) > self.gate.dials.message_bytes:
            self._hand_over()

    def on_message_complete(self) -> None:
        """Answer."""
        route, self._route = self._route, None
        whole, self._whole = self._whole, b""
        self._between = self.parser.should_keep_alive() and not self.parser.should_upgrade()
        if route is None:
            super().on_message_complete()
            return
        self._settle()
        request = route, self._fields.get(b"authorization", b""), self._body
        if whole:
            self.heads.learn(whole, request)
        self._answer(request)

    def on_response_complete(self) -> None:
        """Go on with what came meanwhile; silence counts from here, since a long answer is none."""
        self._heard_at = self.loop.time()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    def _is_usual(self) -> bool:
        """Tell whether this is a POST with nothing before it and nothing odd about it."""
        fields = self._fields = dict(self.headers)
        return (
            self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and b"expect" not in fields
            and len(fields) == len(self.headers)
            and b"transfer-encoding" not in fields
            and not self._busy()
            and not self.flow.write_paused
        )

    def _busy(self) -> bool:
        """Tell whether the application is answering."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's type leaves out the None that it begins with
        return cycle is not None and not cycle.response_complete

    def _answer(self, request: Request) -> None:
        route, authorization, body = request
        nothing = empty_poll(self.gate, authorization, body) if route is POLL else None
        if nothing is not None:
            self._write(OK, nothing)
            self.server_state.total_requests += 1
            return
        self.cycle = call = _Call()  # type: ignore[assignment] # of a cycle what the connection looks at
        answer(self.gate, *request, partial(self._end, call))

    def _end(self, call: _Call, reply: Reply) -> None:
        """Send the answer of a call, then begin whatever came after it."""
        call.response_complete = True
        self._write(*reply)
        if call.keep_alive:
            self.on_response_complete()
        else:
            self.transport.close()

    def _write(self, status: int, body: bytes, media: bytes = JSON_MEDIA, headers: Headers = ()) -> None:
        """Send an answer in one piece, if anybody still waits for it."""
        if self.transport.is_closing():
            return
        lines = self.written.of(self.server_state.default_headers)
        if headers:
            lines += _lines(headers)
        self.transport.write(
            b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b\r\n%b"
            % (STATUS_LINE[status], media, len(body), lines, body)
        )

    def _end_if_idle(self) -> None:
        """Hang up on a caller that has neither said nor taken anything for the keep-alive time."""
        now, unread = self.loop.time(), self.transport.get_write_buffer_size()
        if unread != self._unread:
            self._unread, self._heard_at = unread, now
        silent_s = now - self._heard_at
        if silent_s >= self.timeout_keep_alive and unread:
            self.transport.abort()
        elif silent_s >= self.timeout_keep_alive and self._route is None and not self._busy():
            self.transport.close()
        else:
            self._idle = self.loop.call_later(max(1.0, self.timeout_keep_alive - silent_s), self._end_if_idle)

    def _hand_over(self) -> None:
        """Let the application answer the message that has begun."""
        self._settle()
        if self._route is None or self.transport.is_closing():
            return
        self._route = None
        self._pass_on()
        if self._body:
            super().on_body(self._body)

    def _pass_on(self) -> None:
        """Give the head to the application, as uvicorn would have from its beginning."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url, self.headers[:] = url, headers
        self.expect_100_continue = any(name == b"expect" and said.lower() == _CONTINUE for name, said in headers)
        super().on_headers_complete()

    def _wait_for_head(self) -> None:
        """End a connection whose head is too long, or does not come."""
        if self._head_bytes > _HEAD_BYTES_MAX:
            self._refuse_head(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._waiting is None:
            within_s = self.gate.dials.body_within.total_seconds()
            self._waiting = self.loop.call_later(within_s, self._refuse_head, HTTPStatus.REQUEST_TIMEOUT)

    def _refuse_head(self, status: HTTPStatus) -> None:
        self._settle()
        if not self._busy():
            self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP as everything is refused, where no answer is on its way."""
        self._settle()
        if not self._busy():
            detail = f"{msg.rstrip('.')}: say it as RFC 9112 does"
            self._write(*ProblemError(Kind.NOT_HTTP, detail, headers=((b"connection", b"close"),)).reply())
        self.transport.close()

    def _settle(self) -> None:
        """Wait for nothing any more."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
