"""The car's side of the protocol: every answer is a value, except that a person must act or a machine must retry."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, TypeVar

import httpx
import msgspec

from fleetbatch.car.identity import Identity, token_assertion
from fleetbatch.errors import RejectedError
from fleetbatch.protocol import (
    BeatReply,
    BeatRequest,
    ConfirmReply,
    PartReply,
    PartRequest,
    PollReply,
    PollRequest,
    Problem,
    ReleaseReply,
    ReleaseRequest,
    TokenReply,
)
from fleetbatch.runner.transport import BoundedTransport
from fleetbatch.runner.unreachable import ClockError, UnreachableError

TIMEOUT: Final = httpx.Timeout(20.0, connect=5.0)
RENEW_WHEN_LEFT: Final = 1 / 6
"""Of a token's life; until its end a gateway that has no time for renewals is asked again now and then."""
_RENEW_AGAIN: Final = timedelta(seconds=10)
SKEW_MAX: Final = timedelta(seconds=30)
"""A gateway refuses a car's token request when its clock is further off."""
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

_OURS: Final = "urn:fleetbatch:"
_SEND_AGAIN: Final = frozenset({f"{_OURS}part-not-uploaded", f"{_OURS}part-damaged"})

Answer = TypeVar("Answer")


class RefusedError(RejectedError):
    """The gateway refused a message; `type` is the problem's name, which never changes."""

    def __init__(self, summary: str, type: str) -> None:  # noqa: A002 (RFC 9457's word)
        """Say what was refused."""
        self.type = type
        super().__init__(summary)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """409: the lease is over; the same answer for ever."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SendAgain:
    """What was uploaded is not in the store, or not whole."""

    detail: str


class GatewayClient:
    """A connection to one gateway, usable from several threads; it keeps a token and renews it."""

    def __init__(
        self, url: str, identity: Identity, http: httpx.Client, *, clock: Callable[[], datetime] | None = None
    ) -> None:
        """Speak to the gateway at `url` as the car of that key; `clock` is the car's."""
        self._url = url.rstrip("/")
        self._identity = identity
        self._http = http
        self._clock = clock or (lambda: datetime.now(UTC))
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = self._ends_at = datetime.min.replace(tzinfo=UTC)

    def poll(self, request: PollRequest) -> PollReply:
        """Say what the vehicle says; return a lease or when to come back."""
        return self._sure("/v1/poll", request, PollReply)

    def beat(self, request: BeatRequest) -> BeatReply | Terminal:
        """Say how far the lease got."""
        return self._call("/v1/beat", request, BeatReply)

    def part(self, request: PartRequest) -> PartReply | Terminal:
        """Announce a part; return where to put it."""
        return self._call("/v1/part", request, PartReply)

    def confirm(self, request: PartRequest) -> ConfirmReply | Terminal | SendAgain:
        """Say that the part is uploaded; return how far the shard is durable."""
        try:
            return self._call("/v1/part/confirm", request, ConfirmReply)
        except RefusedError as error:
            if error.type in _SEND_AGAIN:
                return SendAgain(detail=error.summary)
            raise

    def release(self, request: ReleaseRequest) -> ReleaseReply | Terminal:
        """Give a lease back."""
        return self._call("/v1/release", request, ReleaseReply)

    def put(self, url: str, headers: dict[str, str], content: bytes) -> None:
        """Upload to a signed URL; an object that is there already is as good."""
        done = {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.NO_CONTENT}
        there = {HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED}
        response = _send(lambda: self._http.put(url, headers=headers, content=content))
        if response.status_code not in done | there:
            message = f"the store answered {response.status_code} to an upload"
            raise UnreachableError(message, _retry_after(response))

    def _sure(self, path: str, request: msgspec.Struct, kind: type[Answer]) -> Answer:
        answer = self._call(path, request, kind)
        if isinstance(answer, Terminal):
            raise UnreachableError(answer.reason)
        return answer

    def _call(self, path: str, request: msgspec.Struct, kind: type[Answer]) -> Answer | Terminal:
        """Send one message; a refused token is renewed once.

        Raises UnreachableError when it may be sent again, RejectedError when that would change nothing.
        """
        body = msgspec.json.encode(request)
        response = self._post(path, body, self._bearer(renew=False))
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            response = self._post(path, body, self._bearer(renew=True))
        return _read(response, path, kind)

    def _post(self, path: str, body: bytes, token: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        return _send(lambda: self._http.post(self._url + path, content=body, headers=headers))

    def _bearer(self, *, renew: bool) -> str:
        with self._lock:
            now = self._clock()
            if renew or now >= self._ends_at:
                self._buy_token()
            elif now >= self._renew_at:
                self._renew_token(now)
            return self._token

    def _renew_token(self, now: datetime) -> None:
        """Buy another token, or go on with this one for a while."""
        try:
            self._buy_token()
        except UnreachableError as error:
            self._renew_at = now + (error.retry_after or _RENEW_AGAIN)

    def _buy_token(self) -> None:
        now = self._clock()
        audience = f"{self._url}/v1/token"
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": token_assertion(self._identity, audience=audience, now=now),
        }
        response = _send(lambda: self._http.post(audience, data=form))
        if response.status_code in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            if (skew := clock_skew(response, now)) is not None and skew > SKEW_MAX:
                message = f"the car's clock is {skew} off the gateway's, which sells no token until it is set"
                raise ClockError(message)
            refused = _own_words(response, "/v1/token").detail
            summary = f"gateway {self._url} does not know the key of car {self._identity.name}: {refused}"
            raise RejectedError(summary)
        answer = _read(response, "/v1/token", TokenReply)
        assert isinstance(answer, TokenReply)
        self._token = answer.access_token
        life = timedelta(seconds=answer.expires_in)
        self._ends_at, self._renew_at = now + life, now + life * (1 - RENEW_WHEN_LEFT)


def open_http() -> httpx.Client:
    """Return connections that are kept open: a handshake costs more than a call. Answers are bounded (answers.py)."""
    transport = BoundedTransport(limits=httpx.Limits(max_connections=4))
    return httpx.Client(timeout=TIMEOUT, transport=transport, trust_env=False)


def clock_skew(response: httpx.Response, here: datetime) -> timedelta | None:
    """Return how far the car's clock is from the server's, None when the answer does not say what time it is."""
    try:
        return abs(here - parsedate_to_datetime(response.headers.get("date", "")))
    except (ValueError, TypeError):  # no date, or one without a zone
        return None


def _send(send: Callable[[], httpx.Response]) -> httpx.Response:
    try:
        return send()
    except (httpx.TransportError, httpx.InvalidURL) as error:
        message = f"no answer: {type(error).__name__} {error}"
        raise UnreachableError(message) from error


def _read(response: httpx.Response, path: str, kind: type[Answer]) -> Answer | Terminal:
    status = response.status_code
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        message = f"{path} answered {status}: {_problem(response).detail}"
        raise UnreachableError(message, _retry_after(response))
    if status != HTTPStatus.OK:
        problem = _own_words(response, path)
        if status == HTTPStatus.CONFLICT:
            return Terminal(reason=problem.detail)
        summary = f"{path} refused with {status}: {problem.detail}"
        raise RefusedError(summary, problem.type)
    try:
        return msgspec.json.decode(response.content, type=kind)
    except msgspec.DecodeError as error:
        message = f"{path} answered what is not {kind.__name__}: {error}"
        raise UnreachableError(message) from error


def _own_words(response: httpx.Response, path: str) -> Problem:
    """Return what a gateway refuses; raise UnreachableError where something on the way speaks in its place.

    A proxy or a firewall that turns a fleet away for an hour must not end a single runner.
    """
    problem = _problem(response)
    if not problem.type.startswith(_OURS):
        message = f"{path} answered what is not a gateway's: {response.status_code} {problem.detail}"
        raise UnreachableError(message)
    return problem


def _problem(response: httpx.Response) -> Problem:
    """Return what is wrong; a proxy in between may answer in its own words."""
    try:
        return msgspec.json.decode(response.content, type=Problem)
    except msgspec.DecodeError:
        return Problem(type="", title="", status=response.status_code, detail=response.text[:200])


def _retry_after(response: httpx.Response) -> timedelta | None:
    seconds = response.headers.get("retry-after", "")
    return timedelta(seconds=int(seconds)) if seconds.isdigit() else None
