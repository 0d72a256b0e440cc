"""Answers that are not what was asked for, as RFC 9457 problem details."""

from enum import Enum
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec

from fleetbatch.protocol import Problem

PROBLEM_MEDIA: Final = b"application/problem+json"
JSON_MEDIA: Final = b"application/json"
Headers = tuple[tuple[bytes, bytes], ...]


class Reply(NamedTuple):
    """A whole HTTP answer."""

    status: int
    body: bytes
    media: bytes = JSON_MEDIA
    headers: Headers = ()


class Kind(Enum):
    """What can be wrong: a status, and a name that never changes, for machines."""

    WRONG_CONTENT = (HTTPStatus.BAD_REQUEST, "wrong-content")
    NOT_HTTP = (HTTPStatus.BAD_REQUEST, "not-http")
    INVALID_CLIENT = (HTTPStatus.UNAUTHORIZED, "invalid-client")
    UNAUTHORIZED = (HTTPStatus.UNAUTHORIZED, "unauthorized")
    NOT_YOUR_CAR = (HTTPStatus.FORBIDDEN, "not-your-car")
    URL_FORGED = (HTTPStatus.FORBIDDEN, "url-forged")
    URL_EXPIRED = (HTTPStatus.FORBIDDEN, "url-expired")
    STORE_REFUSED = (HTTPStatus.FORBIDDEN, "store-refused")
    NOT_FOUND = (HTTPStatus.NOT_FOUND, "not-found")
    METHOD_NOT_ALLOWED = (HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed")
    TOO_SLOW = (HTTPStatus.REQUEST_TIMEOUT, "too-slow")
    LEASE_IS_OVER = (HTTPStatus.CONFLICT, "lease-is-over")
    EXISTS = (HTTPStatus.PRECONDITION_FAILED, "exists")
    TOO_LARGE = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large")
    RANGE_NOT_SATISFIABLE = (HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "range-not-satisfiable")
    INVALID_MESSAGE = (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-message")
    PROTOCOL_NOT_SERVED = (HTTPStatus.UNPROCESSABLE_ENTITY, "protocol-not-served")
    UNKNOWN_PURPOSE = (HTTPStatus.UNPROCESSABLE_ENTITY, "unknown-purpose")
    WRONG_SHARD = (HTTPStatus.UNPROCESSABLE_ENTITY, "wrong-shard")
    WRONG_RANGE = (HTTPStatus.UNPROCESSABLE_ENTITY, "wrong-range")
    WRONG_ROWS = (HTTPStatus.UNPROCESSABLE_ENTITY, "wrong-rows")
    WRONG_SIZE = (HTTPStatus.UNPROCESSABLE_ENTITY, "wrong-size")
    WRONG_SIGNATURE = (HTTPStatus.UNPROCESSABLE_ENTITY, "wrong-signature")
    PART_NOT_UPLOADED = (HTTPStatus.UNPROCESSABLE_ENTITY, "part-not-uploaded")
    PART_DAMAGED = (HTTPStatus.UNPROCESSABLE_ENTITY, "part-damaged")
    TOO_MANY_PARTS = (HTTPStatus.UNPROCESSABLE_ENTITY, "too-many-parts")
    PART_DOES_NOT_FIT = (HTTPStatus.UNPROCESSABLE_ENTITY, "part-does-not-fit")
    TOO_MANY_REQUESTS = (HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests")
    FAILED = (HTTPStatus.INTERNAL_SERVER_ERROR, "failed")
    COME_BACK = (HTTPStatus.SERVICE_UNAVAILABLE, "come-back")


class ProblemError(Exception):
    """A request ends here with a problem; caught at the gateway's border only."""

    def __init__(self, kind: Kind, detail: str, *, headers: Headers = (), retry_after_s: float | None = None) -> None:
        """Say what happened, for people, and when to come back."""
        self.kind = kind
        self.detail = detail
        self.headers = headers
        self.retry_after_s = retry_after_s
        super().__init__(f"{kind.name}: {detail}")

    def reply(self) -> Reply:
        """Return the problem as an answer."""
        status, name = self.kind.value
        problem = Problem(
            type=f"urn:fleetbatch:{name}", title=name.replace("-", " "), status=int(status), detail=self.detail
        )
        headers = self.headers
        if self.retry_after_s is not None:
            headers = (*headers, (b"retry-after", b"%d" % max(1, round(self.retry_after_s))))
        if status is HTTPStatus.UNAUTHORIZED:
            headers = (*headers, (b"www-authenticate", b"Bearer"))
        return Reply(status=int(status), body=msgspec.json.encode(problem), media=PROBLEM_MEDIA, headers=headers)
