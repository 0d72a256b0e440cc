"""Reading what was sent, never more than is allowed and never for ever."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

from fleetbatch.gateway.problems import Kind, ProblemError

QUERY_FIELDS_MAX: Final = 16
_AT_ONCE_S: Final = 0.5
"""Head and body of an honest caller often come in two pieces."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class CallerGoneError(Exception):
    """Nobody waits for an answer any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """What is read of one body: at most `limit` bytes, `within` a time.

    What has not come after a moment is awaited inside `slowly`, which may refuse to.
    """

    limit: int
    within: timedelta
    slowly: Callable[[], AbstractContextManager[None]]


async def read_pieces(scope: Scope, receive: Receive, patience: Patience, *, piece_bytes: int) -> AsyncGenerator[bytes]:
    """Give the body in pieces of `piece_bytes` or somewhat more; the last may be shorter.

    Raises a ProblemError when it is too long or too slow; the time that the reader of the pieces takes counts.
    """
    limit = patience.limit
    if any(name == b"content-length" and _over(value, limit) for name, value in scope["headers"]):
        raise _too_large(limit)
    until, awaited, given, more = asyncio.get_running_loop().time() + _AT_ONCE_S, False, 0, True
    piece = bytearray()
    with ExitStack() as waiting:
        while more:
            try:
                async with asyncio.timeout_at(until):
                    more = await _fill(receive, piece, enough=piece_bytes)
            except TimeoutError as error:
                if awaited:
                    detail = f"the body did not arrive within {patience.within.total_seconds():.0f} s"
                    raise ProblemError(Kind.TOO_SLOW, detail) from error
                waiting.enter_context(patience.slowly())
                until, awaited = until + patience.within.total_seconds(), True
                continue
            given += len(piece)
            if given > limit:
                raise _too_large(limit)
            yield bytes(piece)
            piece.clear()


async def _fill(receive: Receive, piece: bytearray, *, enough: int) -> bool:
    """Add to a piece until it is enough; return whether more comes. What came stays there when the caller gives up."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGoneError
        piece += message.get("body", b"")
        if not message.get("more_body", False):
            return False
        if len(piece) >= enough:
            return True


def read_query(scope: Scope) -> dict[str, str]:
    """Return what stands behind the question mark; raise a ProblemError when it is more than anybody has to say."""
    try:
        return dict(parse_qsl(bytes(scope["query_string"]).decode("latin-1"), max_num_fields=QUERY_FIELDS_MAX))
    except ValueError as error:
        detail = f"the query has more than {QUERY_FIELDS_MAX} fields"
        raise ProblemError(Kind.INVALID_MESSAGE, detail) from error


def _over(value: bytes, limit: int) -> bool:
    digits = value.lstrip(b"0")
    return digits.isdigit() and (len(digits) > len(str(limit)) or int(digits) > limit)


def _too_large(limit: int) -> ProblemError:
    return ProblemError(Kind.TOO_LARGE, f"at most {limit} bytes are read here")
