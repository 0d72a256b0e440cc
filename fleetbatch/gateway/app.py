"""The ASGI application: one border where every outcome becomes an answer."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from time import perf_counter
from typing import Any, Final

import msgspec

from fleetbatch.gateway.addresses import address_of
from fleetbatch.gateway.admission import ROUTES, Route, admitted, decoded, refusal, turn, whole_body
from fleetbatch.gateway.bodies import CallerGoneError, Receive, Scope, Send, read_query
from fleetbatch.gateway.driving import driven
from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.metrics import prometheus
from fleetbatch.gateway.objects import FileReply, serve
from fleetbatch.gateway.problems import Headers, Kind, ProblemError, Reply
from fleetbatch.store.signing import PATH as STORE_PATH

_KEPT_BY_NOBODY: Final = ((b"cache-control", b"no-store"),)
"""Tokens (RFC 6749, section 5.1), and what is known of owners."""
_encode = msgspec.json.Encoder().encode

Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def application(gate: Gate) -> Application:
    """Return the application that serves one gate; the process that runs it starts and ends the chores."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = perf_counter()
        gate.metrics.in_flight += 1
        try:
            reply = await _answer(gate, scope, receive)
            await _send(gate, reply, send)
        except CallerGoneError:
            return
        finally:
            gate.metrics.in_flight -= 1
        name = scope["path"] if scope["path"] in ROUTES else "store" if _stored(scope) else "other"
        gate.metrics.answered(name, int(reply.status), perf_counter() - started)

    return app


async def _answer(gate: Gate, scope: Scope, receive: Receive) -> Reply | FileReply:
    try:
        route = ROUTES.get(scope["path"])
        if route is not None:
            return await _call(gate, route, scope, receive)
        if _stored(scope):
            return await serve(gate, scope, receive)
        return await _about(gate, scope)
    except CallerGoneError:
        raise
    except Exception as error:  # noqa: BLE001 # the border
        return refusal(gate, scope["path"], error)


async def _call(gate: Gate, route: Route, scope: Scope, receive: Receive) -> Reply:
    endpoint = route.endpoint
    if scope["method"] != endpoint.method:
        allow = ((b"allow", endpoint.method.encode()),)
        raise ProblemError(Kind.METHOD_NOT_ALLOWED, f"{endpoint.path} takes {endpoint.method}", headers=allow)
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    who, telemetry = admitted(gate, endpoint, given, address=address_of(scope))
    if endpoint.method == "GET":
        message: Any = read_query(scope)
    else:
        body = await whole_body(gate, scope, receive, limit=gate.dials.message_bytes)
        message = decoded(route, body, telemetry=telemetry)
    headers: Headers = () if endpoint.caller == "car" else _KEPT_BY_NOBODY
    with turn(gate, endpoint):
        answer = await driven(endpoint.does(gate, who, message))
    return Reply(status=HTTPStatus.OK, body=_encode(answer), headers=headers)


async def _about(gate: Gate, scope: Scope) -> Reply:
    """Answer those who watch the gateway."""
    if scope["method"] == "GET" and scope["path"] == "/healthz":
        health = {"status": "ok", "cell": gate.cell.name, "ledger": "up" if gate.ledger_answers else "away"}
        return Reply(status=HTTPStatus.OK, body=_encode({**health, "round": gate.book.round_id}))
    if scope["method"] == "GET" and scope["path"] == "/metrics":
        gauges = {
            "leases_held": len(gate.held),
            "offers_held": len(gate.book),
            "round": gate.book.round_id or 0,
            "pressure": gate.pressure,
            "telemetry_waiting": len(gate.telemetry),
            "telemetry_dropped": gate.telemetry.dropped,
            "ledger_up": float(gate.ledger_answers),
        }
        text = prometheus(gate.metrics, gauges, await gate.glance()).encode()
        return Reply(status=HTTPStatus.OK, body=text, media=b"text/plain; version=0.0.4")
    raise ProblemError(Kind.NOT_FOUND, "nothing is served here")


def _stored(scope: Scope) -> bool:
    return str(scope["path"]).startswith(STORE_PATH)


async def _send(gate: Gate, reply: Reply | FileReply, send: Send) -> None:
    if isinstance(reply, Reply):
        headers = [(b"content-type", reply.media), (b"content-length", b"%d" % len(reply.body)), *reply.headers]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})
        return
    headers = [(b"content-length", b"%d" % (reply.stop - reply.start)), *reply.headers]
    await send({"type": "http.response.start", "status": int(reply.status), "headers": headers})
    async for chunk in reply.chunks(gate):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
