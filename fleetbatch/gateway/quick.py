"""What cars say, answered without a task: an empty poll at once, all else when ledger and store have answered.

The same functions are asked as on the ordinary way, so that nobody can tell the two apart.
"""

from collections.abc import Callable, Coroutine
from time import perf_counter
from types import CoroutineType
from typing import Any, Final

import msgspec

from fleetbatch.gateway.admission import ROUTES, Route, admitted, decoded, refusal
from fleetbatch.gateway.driving import drive
from fleetbatch.gateway.endpoints import POLL_PATH
from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.polls import may_get_work, poll, refuse_unserved
from fleetbatch.gateway.problems import Reply
from fleetbatch.protocol import PollReply, PollRequest
from fleetbatch.units import CarId

Said = msgspec.Struct | Coroutine[Any, Any, msgspec.Struct]
OK: Final = 200
_POLL: Final = ROUTES[POLL_PATH]
_HARDWARE_MAX: Final = 4096
_HARDWARE_BYTES_MAX: Final = 4096
_HARDWARE: Final = b'"hardware"'
_encode = msgspec.json.Encoder().encode


class _Outline(PollRequest, frozen=True, kw_only=True):
    """A poll whose hardware is text: a fleet has few kinds, and to read it is more than half of reading a poll."""

    hardware: msgspec.Raw  # type: ignore[assignment] # the same bytes, not yet read


_outline = msgspec.json.Decoder(_Outline).decode


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
    if route is not _POLL:
        return route.endpoint.does(gate, *who, decoded(route, body, telemetry=telemetry))
    car = CarId(who[0])  # type: ignore[misc] # only cars poll
    if may_get_work(gate, car):
        request = decoded(route, body, telemetry=telemetry)
        return poll(gate, car, request, said=body if telemetry else None)
    protocol, said = _read(gate, body, telemetry=telemetry)
    refuse_unserved(protocol)
    gate.telemetry.hear(car, gate.clock(), said)
    return PollReply(lease=None, retry_after_s=gate.wait_s())


def _reply(gate: Gate, path: str, said: msgspec.Struct | Exception) -> Reply:
    try:
        return refusal(gate, path, said) if isinstance(said, Exception) else Reply(OK, _encode(said))
    except Exception as error:  # noqa: BLE001 # the border
        return refusal(gate, path, error)


def _read(gate: Gate, body: bytes, *, telemetry: bool) -> tuple[int, PollRequest | bytes]:
    """Return a valid poll's protocol and what of it may be kept; raise a ProblemError when it is none."""
    if not telemetry:
        request: PollRequest = decoded(_POLL, body, telemetry=False)
        return request.protocol, request
    try:
        outline = _outline(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        decoded(_POLL, body, telemetry=True)  # says what is wrong
        raise
    hardware, known = bytes(outline.hardware), gate.hardware
    said_once = body.count(_HARDWARE) == 1 and b"\\" not in body  # the outline has looked at the last one only
    if not said_once or hardware not in known:
        decoded(_POLL, body, telemetry=True)
        if len(known) >= _HARDWARE_MAX:
            known.clear()
        if len(hardware) <= _HARDWARE_BYTES_MAX:
            known.add(hardware)
    return outline.protocol, body
