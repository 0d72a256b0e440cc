"""Reading what was sent, never more than is allowed and never for ever."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

from fleetbatch.gateway.problems import Kind, ProblemError

QUERY_FIELDS_MAX: Final = 16

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class CallerGoneError(Exception):
    """Nobody waits for an answer any more."""


async def read_body(scope: Scope, receive: Receive, *, limit: int, within: timedelta) -> bytes:
    """Return the whole body; raise a ProblemError when it is over `limit` bytes or does not come `within`."""
    if any(name == b"content-length" and _over(value, limit) for name, value in scope["headers"]):
        raise _too_large(limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False) and len(message["body"]) <= limit:
        return bytes(message["body"])  # the usual case: one piece, no timer
    pieces, size = [], 0
    try:
        async with asyncio.timeout(within.total_seconds()):
            while True:
                if message["type"] == "http.disconnect":
                    raise CallerGoneError
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > limit:
                    raise _too_large(limit)
                if not message.get("more_body", False):
                    return b"".join(pieces)
                message = await receive()
    except TimeoutError as error:
        detail = f"the body did not arrive within {within.total_seconds():.0f} s"
        raise ProblemError(Kind.TOO_SLOW, detail) from error


def read_query(scope: Scope) -> dict[str, str]:
    """Return what stands behind the question mark; raise a ProblemError when it is more than anybody has to say."""
    try:
        return dict(parse_qsl(bytes(scope["query_string"]).decode("latin-1"), max_num_fields=QUERY_FIELDS_MAX))
    except ValueError as error:
        detail = f"the query has more than {QUERY_FIELDS_MAX} fields"
        raise ProblemError(Kind.INVALID_MESSAGE, detail) from error


def _over(value: bytes, limit: int) -> bool:
    return value.isdigit() and (len(value) > len(str(limit)) or int(value) > limit)


def _too_large(limit: int) -> ProblemError:
    return ProblemError(Kind.TOO_LARGE, f"at most {limit} bytes are read here")
