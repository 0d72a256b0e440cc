"""What cars say most often, answered without a task: an empty poll at once, a beat when the ledger has answered.

The same functions are asked as on the ordinary way, so that nobody can tell the two apart.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Final

import msgspec

from fleetbatch.gateway.admission import ROUTES, bearer_of, count_request, decoded, overrun, refusal
from fleetbatch.gateway.endpoints import BEAT_PATH, POLL_PATH
from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.polls import beat_heard, beat_told, may_get_work, refuse_unserved
from fleetbatch.gateway.problems import Reply
from fleetbatch.ledger.messages import Beat, BeatAnswer
from fleetbatch.protocol import BeatRequest, PollReply, PollRequest
from fleetbatch.units import CarId

OK: Final = 200
POLL: Final = ROUTES[POLL_PATH]
BEAT: Final = ROUTES[BEAT_PATH]
_HARDWARE_MAX: Final = 4096
_HARDWARE_BYTES_MAX: Final = 4096
_HARDWARE: Final = b'"hardware"'
_encode = msgspec.json.Encoder().encode


class _Outline(PollRequest, frozen=True, kw_only=True):
    """A poll whose hardware is text: a fleet has few kinds, and to read it is more than half of reading a poll."""

    hardware: msgspec.Raw  # type: ignore[assignment] # the same bytes, not yet read


_outline = msgspec.json.Decoder(_Outline).decode


def answer_poll(gate: Gate, authorization: bytes, body: bytes) -> Reply | None:
    """Return the answer to a poll that gets no work; None, with nothing done or counted, for any other."""
    started = perf_counter()
    gate.metrics.in_flight += 1
    try:
        if overrun(gate):
            return None
        now = gate.clock()
        bearer = bearer_of(gate, POLL.endpoint, authorization, now=now)
        car = CarId(bearer.who)
        if may_get_work(gate, car):
            return None
        count_request(gate, car, now=now)
        protocol, said = _read(gate, body, telemetry=bearer.telemetry)
        refuse_unserved(protocol)
        gate.telemetry.hear(car, now, said)
        reply = Reply(OK, _encode(PollReply(lease=None, retry_after_s=gate.wait_s())))
    except Exception as error:  # noqa: BLE001 # the border
        reply = refusal(gate, POLL_PATH, error)
    finally:
        gate.metrics.in_flight -= 1
    gate.metrics.answered(POLL_PATH, reply.status, perf_counter() - started)
    return reply


def answer_beat(gate: Gate, authorization: bytes, body: bytes, then: Callable[[Reply], None]) -> None:
    """Call `then` with the answer to a beat, once the ledger has it or as soon as it is refused."""
    started = perf_counter()
    gate.metrics.in_flight += 1

    def end(reply: Reply) -> None:
        gate.metrics.in_flight -= 1
        gate.metrics.answered(BEAT_PATH, reply.status, perf_counter() - started)
        then(reply)

    def tell(answer: BeatAnswer | Exception) -> None:
        end(refusal(gate, BEAT_PATH, answer) if isinstance(answer, Exception) else _told(gate, beat, answer))

    try:
        now = gate.clock()
        bearer = bearer_of(gate, BEAT.endpoint, authorization, now=now)
        car = CarId(bearer.who)
        count_request(gate, car, now=now)
        request: BeatRequest = decoded(BEAT, body, telemetry=bearer.telemetry)
        beat = beat_heard(gate, car, request)
    except Exception as error:  # noqa: BLE001 # the border
        end(refusal(gate, BEAT_PATH, error))
    else:
        gate.beats.put(beat, tell)


def _told(gate: Gate, beat: Beat, answer: BeatAnswer) -> Reply:
    try:
        return Reply(OK, _encode(beat_told(gate, beat, answer)))
    except Exception as error:  # noqa: BLE001 # the border
        return refusal(gate, BEAT_PATH, error)


def _read(gate: Gate, body: bytes, *, telemetry: bool) -> tuple[int, PollRequest | bytes]:
    """Return a valid poll's protocol and what of it may be kept; raise a ProblemError as the application does."""
    if not telemetry:
        request: PollRequest = decoded(POLL, body, telemetry=False)
        return request.protocol, request
    try:
        outline = _outline(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        decoded(POLL, body, telemetry=True)  # says what is wrong
        raise
    hardware, known = bytes(outline.hardware), gate.hardware
    said_once = body.count(_HARDWARE) == 1 and b"\\" not in body  # the outline has looked at the last one only
    if not said_once or hardware not in known:
        decoded(POLL, body, telemetry=True)
        if len(known) >= _HARDWARE_MAX:
            known.clear()
        if len(hardware) <= _HARDWARE_BYTES_MAX:
            known.add(hardware)
    return outline.protocol, body
