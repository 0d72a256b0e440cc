"""One caller's connection: what cars usually say is answered here, all else by the application.

Most of what a cell hears is short messages of cars, and most of such a call's cost would be ASGI's: a scope, an event
and four messages. A poll that gets no work does not even need a task. Whatever is unusual about a request goes the
ordinary way, which knows every limit; both ways ask the same functions, so that they give the same answers and count
the same.
"""

from asyncio import BaseTransport, TimerHandle
from http import HTTPStatus
from time import perf_counter
from typing import Final

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from fleetbatch.gateway.admission import ROUTES, Route, admitted, bearer_of, count_request, decoded, overrun, refusal
from fleetbatch.gateway.endpoints import POLL_PATH
from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.polls import may_get_work, refuse_unserved
from fleetbatch.gateway.problems import Reply
from fleetbatch.protocol import PollReply, PollRequest
from fleetbatch.units import CarId

_POLL: Final = ROUTES[POLL_PATH]
_USUAL: Final = {path.encode(): route for path, route in ROUTES.items() if route.endpoint.caller == "car"}
_PATIENCE_S: Final = 1.0
"""How long the rest of a body is waited for here; the application waits longer, with more care."""
_OK: Final = int(HTTPStatus.OK)
_HEAD_BYTES_MAX: Final = 64 << 10
_HARDWARE_MAX: Final = 4096
_HARDWARE_BYTES_MAX: Final = 4096
_PIPELINED_MAX: Final = 1000
"""Requests that wait for answers to those before; uvicorn reads on with every answer, and keeps what it has read."""
_HARDWARE: Final = b'"hardware"'
_encode = msgspec.json.Encoder().encode


class _Outline(PollRequest, frozen=True, kw_only=True):
    """A poll whose hardware is text: a fleet has few kinds, and to read it is more than half of reading a poll."""

    hardware: msgspec.Raw  # type: ignore[assignment] # the same bytes, not yet read


_outline = msgspec.json.Decoder(_Outline).decode


def connections(gate: Gate) -> type[HttpToolsProtocol]:
    """Return the kind of connection that serves one gate, for uvicorn's `http`."""
    return type("GateConnection", (_Connection,), {"gate": gate})


class _Call:
    """A call that is being answered here, as far as uvicorn's connection wants to know of it."""

    def __init__(self) -> None:
        """Begin."""
        self.response_complete, self.disconnected, self.keep_alive = False, False, True
        self.message_event = self

    def set(self) -> None:
        """Hear that the caller hung up: nobody waits for it here."""


class _Connection(HttpToolsProtocol):
    """uvicorn's connection, which alone parses; what it calls when is its contract with the parser."""

    gate: Gate
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
        """Parse what came; whoever stops in the middle is waited for, but not for ever."""
        self._heard_at = self.loop.time()
        head = self.headers if self._in_head else None
        super().data_received(data)
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
        """Begin a head."""
        self._in_head = True
        super().on_message_begin()

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
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a message; the application says no to what is too long."""
        if self._route is None:
            super().on_body(body)
            return
        self._body = self._body + body if self._body else body
        if len(self._body) > self.gate.dials.message_bytes:
            self._hand_over()

    def on_message_complete(self) -> None:
        """Answer: at once what needs neither ledger nor store, else in a task."""
        route, self._route = self._route, None
        if route is None:
            super().on_message_complete()
            return
        self._settle()
        reply = self._answer_poll(self._body) if route is _POLL else None
        if reply is not None:
            self._write(reply)
            self.server_state.total_requests += 1
            return
        self.cycle = call = _Call()  # type: ignore[assignment] # of a cycle what the connection looks at
        task = self.loop.create_task(self._answer(call, route, self._fields, self._body))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_response_complete(self) -> None:
        """Count the silence from here: a long answer is none."""
        self._heard_at = self.loop.time()
        super().on_response_complete()

    def _is_usual(self) -> bool:
        """Tell whether this is a POST with nothing before it and nothing odd about it."""
        fields = self._fields = dict(self.headers)
        return (
            self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and len(fields) == len(self.headers)
            and b"transfer-encoding" not in fields
            and not self._busy()
            and not self.flow.write_paused
        )

    def _busy(self) -> bool:
        """Tell whether the application is answering."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's type leaves out the None that it begins with
        return cycle is not None and not cycle.response_complete

    async def _answer(self, call: _Call, route: Route, fields: dict[bytes, bytes], body: bytes) -> None:
        """Answer one message as the application would, then whatever came after it."""
        gate, started, endpoint = self.gate, perf_counter(), route.endpoint
        gate.metrics.in_flight += 1
        try:
            who, telemetry = admitted(gate, endpoint, fields.get(b"authorization", b""))
            message = decoded(route, body, telemetry=telemetry)
            reply = Reply(status=_OK, body=_encode(await endpoint.does(gate, *who, message)))
        except Exception as error:  # noqa: BLE001 # the border
            reply = refusal(gate, endpoint.path, error)
        finally:
            gate.metrics.in_flight -= 1
        gate.metrics.answered(endpoint.path, reply.status, perf_counter() - started)
        call.response_complete = True
        if self.transport.is_closing():
            return
        self._write(reply)
        if call.keep_alive:
            self.on_response_complete()
        else:
            self.transport.close()

    def _answer_poll(self, body: bytes) -> Reply | None:
        """Return the answer to a poll that gets no work; None, with nothing done or counted, for any other."""
        gate, started = self.gate, perf_counter()
        gate.metrics.in_flight += 1
        try:
            if overrun(gate):
                return None
            now = gate.clock()
            bearer = bearer_of(gate, _POLL.endpoint, self._fields.get(b"authorization", b""), now=now)
            car = CarId(bearer.who)
            if may_get_work(gate, car):
                return None
            count_request(gate, car, now=now)
            protocol, said = self._read(body, telemetry=bearer.telemetry)
            refuse_unserved(protocol)
            gate.telemetry.hear(car, now, said)
            reply = Reply(status=_OK, body=_encode(PollReply(lease=None, retry_after_s=gate.wait_s())))
        except Exception as error:  # noqa: BLE001 # the border
            reply = refusal(gate, POLL_PATH, error)
        finally:
            gate.metrics.in_flight -= 1
        gate.metrics.answered(POLL_PATH, reply.status, perf_counter() - started)
        return reply

    def _read(self, body: bytes, *, telemetry: bool) -> tuple[int, PollRequest | bytes]:
        """Return a valid poll's protocol and what of it may be kept; raise a ProblemError as the application does."""
        if not telemetry:
            request: PollRequest = decoded(_POLL, body, telemetry=False)
            return request.protocol, request
        try:
            outline = _outline(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            decoded(_POLL, body, telemetry=True)  # says what is wrong
            raise
        hardware, known = bytes(outline.hardware), self.gate.hardware
        said_once = body.count(_HARDWARE) == 1 and b"\\" not in body  # the outline has looked at the last one only
        if not said_once or hardware not in known:
            decoded(_POLL, body, telemetry=True)
            if len(known) >= _HARDWARE_MAX:
                known.clear()
            if len(hardware) <= _HARDWARE_BYTES_MAX:
                known.add(hardware)
        return outline.protocol, body

    def _write(self, reply: Reply) -> None:
        """Send an answer in one piece."""
        more = b"".join([b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *reply.headers)])
        known = reply.media, len(reply.body)
        self.transport.write(
            b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b\r\n%b"
            % (STATUS_LINE[reply.status], *known, more, reply.body)
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
        super().on_headers_complete()
        if self._body:
            super().on_body(self._body)

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

    def _settle(self) -> None:
        """Wait for nothing any more."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
