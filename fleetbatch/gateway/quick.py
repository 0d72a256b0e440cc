"""What cars say, answered without a task: an empty poll at once, all else when ledger and store have answered.

The same functions are asked as on the ordinary way, so that nobody can tell the two apart.
"""

from collections.abc import Callable, Coroutine
from time import perf_counter
from types import CoroutineType
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from fleetbatch.gateway.admission import ROUTES, Route, admitted, decoded, refusal
from fleetbatch.gateway.driving import drive
from fleetbatch.gateway.endpoints import POLL_PATH
from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.polls import may_get_work, poll
from fleetbatch.gateway.problems import Reply
from fleetbatch.protocol import SERVED, PollReply, PollRequest
from fleetbatch.units import CarId

Said = msgspec.Struct | Coroutine[Any, Any, msgspec.Struct]
OK: Final = 200
POLL: Final = ROUTES[POLL_PATH]
_BEARER: Final = b"Bearer "
_HARDWARE_MAX: Final = 4096
_HARDWARE_BYTES_MAX: Final = 4096
_HARDWARE: Final = b'"hardware"'
_encode = msgspec.json.Encoder().encode
_Word = Annotated[str, Meta(max_length=128)]
_Text = Annotated[str, Meta(max_length=2000)]


class _Outline(PollRequest, frozen=True, kw_only=True):
    """A poll without escapes, whose hardware is text: a fleet has few kinds, and to read it takes long.

    The one character that the protocol's words exclude can only be written as an escape, so nothing looks for it here.
    """

    hardware: msgspec.Raw  # type: ignore[assignment] # the same bytes, not yet read
    unwilling_reason: _Text = ""
    cached_models: Annotated[list[_Word], Meta(max_length=256)] = msgspec.field(default_factory=list)
    departure_at: _Word | None = None
    next_trip_at: _Word | None = None


_outline = msgspec.json.Decoder(_Outline).decode


def empty_poll(gate: Gate, authorization: bytes, body: bytes) -> bytes | None:
    """Return the answer to a usual poll that leads to no work; None when `answer` must say, with nothing done yet."""
    started, metrics = perf_counter(), gate.metrics
    try:
        if metrics.in_flight >= gate.dials.in_flight_max or not authorization.startswith(_BEARER):
            return None
        now, token = gate.clock(), authorization[len(_BEARER) :]
        bearer = gate.car_tokens.bearer(token, now=now, void_until=gate.void_until)
        if bearer is None:
            return None
        car = CarId(bearer.who)
        if may_get_work(gate, car):
            return None
        said = _usual(gate, body, telemetry=bearer.telemetry)
        if said is None or gate.allowance.left_s(car, now=now):
            return None
        gate.telemetry.hear(car, now, said)
        answered = _encode(PollReply(lease=None, retry_after_s=gate.wait_s()))
    except Exception:  # noqa: BLE001 # whatever is wrong is met again on the longer way, which says it
        return None
    metrics.answered(POLL_PATH, OK, perf_counter() - started)
    return answered


def answer(gate: Gate, route: Route, authorization: bytes, body: bytes, then: Callable[[Reply], None]) -> None:
    """Tell `then` the answer to a car's call, at once or when ledger and store have answered."""
    started, path = perf_counter(), route.endpoint.path
    gate.metrics.in_flight += 1

    def tell(said: msgspec.Struct | Exception) -> None:
        reply = _reply(gate, path, said)
        gate.metrics.in_flight -= 1
        gate.metrics.answered(path, reply.status, perf_counter() - started)
        then(reply)

    try:
        said = _begun(gate, route, authorization, body)
    except Exception as error:  # noqa: BLE001 # the border
        tell(error)
    else:
        if isinstance(said, CoroutineType):  # whether it is a struct would be asked of an abstract base class
            drive(said, tell)
        else:
            tell(said)  # type: ignore[arg-type] # all coroutines are of that one type


def _begun(gate: Gate, route: Route, authorization: bytes, body: bytes) -> Said:
    """Return what a caller hears, or what will find it out; raise what refuses the call."""
    who, telemetry = admitted(gate, route.endpoint, authorization)
    message = decoded(route, body, telemetry=telemetry)
    if route is not POLL:
        return route.endpoint.does(gate, who, message)
    car = CarId(who)  # type: ignore[arg-type] # only cars poll
    if telemetry and not may_get_work(gate, car):
        _learn(gate, body)  # its next poll may be a usual one
    return poll(gate, car, message, said=body if telemetry else None)


def _reply(gate: Gate, path: str, said: msgspec.Struct | Exception) -> Reply:
    try:
        return refusal(gate, path, said) if isinstance(said, Exception) else Reply(OK, _encode(said))
    except Exception as error:  # noqa: BLE001 # the border
        return refusal(gate, path, error)


def _usual(gate: Gate, body: bytes, *, telemetry: bool) -> PollRequest | bytes | None:
    """Return what may be kept of a valid poll in a version that is served; None when that takes a closer look."""
    if not telemetry:
        request: PollRequest = decoded(POLL, body, telemetry=False)
        return request if request.protocol in SERVED else None
    outline = _outlined(body)
    known = outline is not None and outline.protocol in SERVED and bytes(outline.hardware) in gate.hardware
    return body if known else None


def _learn(gate: Gate, body: bytes) -> None:
    """Remember the hardware of a poll that was found valid, unless it is nested too deep to be read from here."""
    try:
        outline, known = _outlined(body), gate.hardware
    except RecursionError:
        return
    if outline is None or len(outline.hardware) > _HARDWARE_BYTES_MAX:
        return
    if len(known) >= _HARDWARE_MAX:
        known.clear()
    known.add(bytes(outline.hardware))


def _outlined(body: bytes) -> _Outline | None:
    """Return what a poll says, unless it has escapes or several hardwares: of those only the last would be read."""
    return None if b"\\" in body or body.count(_HARDWARE) != 1 else _outline(body)
