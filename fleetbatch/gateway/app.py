"""The ASGI application: one border where every outcome becomes an answer."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.gateway.bodies import CallerGoneError, Receive, Scope, Send, read_body
from fleetbatch.gateway.endpoints import ENDPOINTS, POLL_PATH, Endpoint
from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.metrics import prometheus
from fleetbatch.gateway.objects import FileReply, serve
from fleetbatch.gateway.problems import Kind, ProblemError, Reply
from fleetbatch.gateway.telemetry import without_vehicle
from fleetbatch.logs import say
from fleetbatch.store.signing import PATH as STORE_PATH
from fleetbatch.units import CarId, OwnerId

_BEARER: Final = b"bearer "
_FIELDS_MAX: Final = 16
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    endpoint: Endpoint
    decode: Callable[[bytes], Any]


_ROUTES: Final = {
    e.path: _Route(endpoint=e, decode=msgspec.json.Decoder(e.asks).decode if e.asks else bytes) for e in ENDPOINTS
}


def application(gate: Gate) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
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
        name = scope["path"] if scope["path"] in _ROUTES else "store" if _stored(scope) else "other"
        gate.metrics.answered(name, int(reply.status), perf_counter() - started)

    return app


async def _answer(gate: Gate, scope: Scope, receive: Receive) -> Reply | FileReply:
    try:
        route = _ROUTES.get(scope["path"])
        if route is not None:
            return await _call(gate, route, scope, receive)
        if _stored(scope):
            return await serve(gate, scope, receive)
        return await _about(gate, scope)
    except ProblemError as problem:
        return problem.reply()
    except (TransientError, RejectedError) as error:
        return _not_now(gate, scope, error)
    except CallerGoneError:
        raise
    except Exception as error:  # noqa: BLE001 # the border: a bug costs one answer, not the process
        say("failed", level=logging.ERROR, error=error, path=scope["path"])
        return ProblemError(Kind.FAILED, "this is a fault of the gateway; it is in its log").reply()


def _not_now(gate: Gate, scope: Scope, error: TransientError | RejectedError) -> Reply:
    """Send the caller away for a while: what is wrong is on our side, and a person hears of it if one must act."""
    if isinstance(error, RejectedError):  # of our own set-up, such as a key file that was replaced
        say("refused", level=logging.ERROR, path=scope["path"], detail=str(error))
        detail = "this gateway's set-up needs a person; its log says why"
    else:
        say("away", level=logging.WARNING, path=scope["path"], detail=str(error))
        detail = "the ledger or the store does not answer now; everything acknowledged is kept"
    wait_s = gate.wait_s(holding=scope["path"] != POLL_PATH)
    return ProblemError(Kind.COME_BACK, detail, retry_after_s=wait_s).reply()


async def _call(gate: Gate, route: _Route, scope: Scope, receive: Receive) -> Reply:
    endpoint = route.endpoint
    if scope["method"] != endpoint.method:
        allow = ((b"allow", endpoint.method.encode()),)
        raise ProblemError(Kind.METHOD_NOT_ALLOWED, f"{endpoint.path} takes {endpoint.method}", headers=allow)
    if endpoint.sheds and gate.metrics.in_flight > gate.dials.in_flight_max:
        wait_s = gate.wait_s(holding=endpoint.path != POLL_PATH)
        raise ProblemError(Kind.COME_BACK, "too many cars at once; yours is not forgotten", retry_after_s=wait_s)
    who, telemetry = _who(gate, endpoint, scope)
    if endpoint.method == "GET":
        query = dict(parse_qsl(bytes(scope["query_string"]).decode("latin-1"), max_num_fields=_FIELDS_MAX))
        return Reply(status=HTTPStatus.OK, body=_encode(await endpoint.does(gate, *who, query)))
    body = await read_body(scope, receive, limit=gate.dials.message_bytes, within=gate.dials.body_within)
    try:
        message = route.decode(body)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(Kind.INVALID_MESSAGE, str(error)) from error
    if not telemetry:
        message = without_vehicle(message)
    return Reply(status=HTTPStatus.OK, body=_encode(await endpoint.does(gate, *who, message)))


def _who(gate: Gate, endpoint: Endpoint, scope: Scope) -> tuple[tuple[()] | tuple[CarId] | tuple[OwnerId], bool]:
    """Return whom the bearer token names, if the endpoint wants to know, and whether the vehicle may be heard."""
    if endpoint.caller == "anyone":
        return (), False
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    if given[: len(_BEARER)].lower() != _BEARER:
        raise ProblemError(Kind.UNAUTHORIZED, "a bearer token is needed")
    token, now = given[len(_BEARER) :].strip(), gate.clock()
    if endpoint.caller == "car":
        bearer = gate.car_tokens.bearer(token, now=now, void_until=gate.void_until)
    else:
        bearer = gate.owner_tokens.bearer(token, now=now)
    if bearer is None:
        raise ProblemError(Kind.UNAUTHORIZED, "the token is not one of this cell's, or has expired; buy another")
    if endpoint.caller == "owner":
        return (OwnerId(bearer.who),), False
    over_s = gate.allowance.left_s(CarId(bearer.who))
    if over_s:
        raise ProblemError(Kind.TOO_MANY_REQUESTS, "this car asks too often", retry_after_s=over_s)
    return (CarId(bearer.who),), bearer.telemetry


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
