"""Reading what was sent, never more than is allowed and never for ever."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager
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


async def read_body(
    scope: Scope,
    receive: Receive,
    *,
    limit: int,
    within: timedelta,
    slowly: Callable[[], AbstractContextManager[None]],
) -> bytes:
    """Return the whole body; raise a ProblemError when it is over `limit` bytes or does not come `within`.

    What has not come after a moment is awaited inside `slowly`, which may refuse to.
    """
    if any(name == b"content-length" and _over(value, limit) for name, value in scope["headers"]):
        raise _too_large(limit)
    body = bytearray()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_AT_ONCE_S):
            return await _rest(receive, body, limit)
    try:
        with slowly():
            async with asyncio.timeout(within.total_seconds()):
                return await _rest(receive, body, limit)
    except TimeoutError as error:
        detail = f"the body did not arrive within {within.total_seconds():.0f} s"
        raise ProblemError(Kind.TOO_SLOW, detail) from error


async def _rest(receive: Receive, body: bytearray, limit: int) -> bytes:
    """Add to the body until it is whole; what came stays there when the caller of this gives up."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGoneError
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return bytes(body)


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
