"""What stands before every endpoint: shedding, the caller's token and allowance; and behind it: what a refusal says."""

import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.gateway.addresses import NOWHERE, Address
from fleetbatch.gateway.bodies import Patience, Receive, Scope, read_pieces
from fleetbatch.gateway.endpoints import ENDPOINTS, POLL_PATH, Endpoint
from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.identity import Bearer
from fleetbatch.gateway.pacing import unheard_s
from fleetbatch.gateway.problems import Kind, ProblemError, Reply
from fleetbatch.gateway.telemetry import without_vehicle
from fleetbatch.logs import say
from fleetbatch.units import CarId, OwnerId

_AWAY_SAID_EVERY: Final = timedelta(seconds=1)
_BEARER: Final = b"bearer "
_OWNER_AGAIN_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """An endpoint, and how its messages are read."""

    endpoint: Endpoint
    decode: Callable[[bytes], Any]


ROUTES: Final = {
    e.path: Route(endpoint=e, decode=msgspec.json.Decoder(e.asks).decode if e.asks else bytes) for e in ENDPOINTS
}


Who = Address | CarId | OwnerId
"""Who calls, as an endpoint takes it: from where, when anyone may."""


def admitted(gate: Gate, endpoint: Endpoint, authorization: bytes, *, address: Address = NOWHERE) -> tuple[Who, bool]:
    """Return who calls and whether the vehicle may be heard; raise a ProblemError when the call ends here."""
    if endpoint.sheds and overrun(gate):
        wait_s = _unheard_s(gate, endpoint.path)
        raise ProblemError(Kind.COME_BACK, "too many cars at once; yours is not forgotten", retry_after_s=wait_s)
    if endpoint.caller == "anyone":
        return address, False
    now = gate.clock()
    bearer = bearer_of(gate, endpoint, authorization, now=now)
    if endpoint.caller == "owner":
        owner = OwnerId(bearer.who)
        _refuse_over("owner", gate.owner_allowance.left_s(owner, now=now))
        return owner, False
    car = CarId(bearer.who)
    _refuse_over("car", gate.allowance.left_s(car, now=now))
    return car, bearer.telemetry


def overrun(gate: Gate) -> bool:
    """Tell whether so many requests are under way that those that can wait are sent away."""
    return gate.metrics.in_flight > gate.dials.in_flight_max


def _unheard_s(gate: Gate, path: str) -> float:
    """Return when a caller comes back whom nobody heard: soon, if it may be a car that has an offer here."""
    if path == POLL_PATH and gate.book.any_left:
        return unheard_s(gate.dials, pressure=gate.pressure, chance=gate.chance())
    return gate.wait_s(holding=path != POLL_PATH)


def bearer_of(gate: Gate, endpoint: Endpoint, given: bytes, *, now: datetime) -> Bearer:
    """Return whom an authorization header's token stands for; raise a ProblemError unless it opens this endpoint."""
    if given[: len(_BEARER)].lower() != _BEARER:
        raise ProblemError(Kind.UNAUTHORIZED, "a bearer token is needed")
    token = given[len(_BEARER) :].strip()
    if endpoint.caller == "car":
        bearer = gate.car_tokens.bearer(token, now=now, void_until=gate.void_until)
    else:
        bearer = gate.owner_tokens.bearer(token, now=now)
    if bearer is None:
        raise ProblemError(Kind.UNAUTHORIZED, "the token is not one of this cell's, or has expired; buy another")
    return bearer


def _refuse_over(caller: str, over_s: float) -> None:
    """Raise a ProblemError when a caller is over its allowance."""
    if over_s:
        raise ProblemError(Kind.TOO_MANY_REQUESTS, f"this {caller} asks too often", retry_after_s=over_s)


@contextmanager
def turn(gate: Gate, endpoint: Endpoint) -> Iterator[None]:
    """Take one of the few places of owners' calls, if it is one; raise a ProblemError when none is free.

    Each kind of call has its own, so that those who read keep nobody from withdrawing.
    """
    if endpoint.caller != "owner":
        yield
        return
    under_way = gate.metrics.owners_under_way
    if under_way[endpoint.path] >= gate.dials.owner_calls_max:
        wait_s = _OWNER_AGAIN_S * (1 + gate.chance())
        raise ProblemError(Kind.COME_BACK, "too many owners at once; nothing was changed", retry_after_s=wait_s)
    under_way[endpoint.path] += 1
    try:
        yield
    finally:
        under_way[endpoint.path] -= 1


async def whole_body(gate: Gate, scope: Scope, receive: Receive, *, limit: int) -> bytes:
    """Return the body, however it comes; raise a ProblemError as `body_pieces` does."""
    async with aclosing(body_pieces(gate, scope, receive, limit=limit, piece_bytes=limit + 1)) as pieces:
        return b"".join([piece async for piece in pieces])


async def body_pieces(
    gate: Gate, scope: Scope, receive: Receive, *, limit: int, piece_bytes: int
) -> AsyncGenerator[bytes]:
    """Give the body in pieces; raise a ProblemError when it is too long, too slow, or one slow one too many.

    Whoever still sends keeps nobody from being answered: their request is not yet under way.
    """
    patience = Patience(limit=limit, within=gate.dials.body_within, slowly=lambda: _awaited(gate))
    gate.metrics.in_flight -= 1
    try:
        async with aclosing(read_pieces(scope, receive, patience, piece_bytes=piece_bytes)) as pieces:
            async for piece in pieces:
                yield piece
    finally:
        gate.metrics.in_flight += 1


@contextmanager
def _awaited(gate: Gate) -> Iterator[None]:
    """Count one whose body takes its time, among a bounded number of them: anybody may begin a body."""
    if gate.metrics.bodies_awaited >= gate.dials.bodies_awaited_max:
        wait_s = gate.wait_s(holding=True)
        raise ProblemError(Kind.COME_BACK, "too many callers are slow; send all of it at once", retry_after_s=wait_s)
    gate.metrics.bodies_awaited += 1
    try:
        yield
    finally:
        gate.metrics.bodies_awaited -= 1


def decoded(route: Route, body: bytes, *, telemetry: bool) -> Any:  # noqa: ANN401 # the endpoint's own struct
    """Return the message, without what the vehicle says unless `telemetry`; raise a ProblemError when it is none."""
    try:
        message = route.decode(body)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(Kind.INVALID_MESSAGE, str(error)) from error
    return message if telemetry else without_vehicle(message)


def refusal(gate: Gate, path: str, error: Exception) -> Reply:
    """Return what a caller hears of an error: the border where a bug costs one answer, not the process."""
    match error:
        case ProblemError():
            return error.reply()
        case TransientError() | RejectedError():
            return _not_now(gate, path, error)
        case _:
            say("failed", level=logging.ERROR, error=error, path=path)
            return ProblemError(Kind.FAILED, "this is a fault of the gateway; it is in its log").reply()


def _say_away(gate: Gate, path: str, why: str) -> None:
    """Say once in a while that calls are sent away: in an outage a line for each would be thousands a second."""
    now, said_at = gate.clock(), gate.away_said_at.get(path)
    gate.metrics.events["away"] += 1
    if said_at is None or not said_at <= now < said_at + _AWAY_SAID_EVERY:
        gate.away_said_at[path] = now
        say("away", level=logging.WARNING, path=path, detail=why, calls=gate.metrics.events["away"])


def _not_now(gate: Gate, path: str, error: TransientError | RejectedError) -> Reply:
    """Send the caller away for a while: what is wrong is on our side, and a person hears of it if one must act."""
    if isinstance(error, RejectedError):  # of our own set-up, such as a key file that was replaced
        say("refused", level=logging.ERROR, path=path, detail=str(error))
        detail = "this gateway's set-up needs a person; its log says why"
    else:
        _say_away(gate, path, str(error))
        detail = "the ledger or the store does not answer now; everything acknowledged is kept"
    wait_s = gate.wait_s(holding=path != POLL_PATH)
    return ProblemError(Kind.COME_BACK, detail, retry_after_s=wait_s).reply()
