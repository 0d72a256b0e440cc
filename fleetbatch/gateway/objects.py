"""/store/KEY: the local folder behind signed URLs, so that cars speak to it as they would to S3."""

import hashlib
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from fleetbatch.errors import RejectedError
from fleetbatch.gateway.admission import whole_body
from fleetbatch.gateway.bodies import Receive, Scope, read_query
from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.problems import Headers, Kind, ProblemError, Reply
from fleetbatch.logs import say
from fleetbatch.store.local import LocalStore
from fleetbatch.store.signing import PATH, UrlClaim, checked_url

_CHUNK_BYTES: Final = 1 << 20
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_OCTETS: Final = b"application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReply:
    """Bytes [start, stop) of a file, sent as they are read."""

    status: HTTPStatus
    path: Path
    start: int
    stop: int
    headers: Headers

    async def chunks(self, gate: Gate) -> AsyncIterator[bytes]:
        """Give the bytes, a piece at a time."""
        for start in range(self.start, self.stop, _CHUNK_BYTES):
            yield await gate.off_loop(_piece, self.path, start, min(self.stop, start + _CHUNK_BYTES))


async def serve(gate: Gate, scope: Scope, receive: Receive) -> Reply | FileReply:
    """Answer a GET or PUT that a signed URL allows."""
    if not isinstance(gate.store, LocalStore):
        raise ProblemError(Kind.NOT_FOUND, "this cell's objects are in a store of their own")
    method = scope["method"]
    if method not in {"GET", "PUT"}:
        raise ProblemError(Kind.METHOD_NOT_ALLOWED, "GET or PUT", headers=((b"allow", b"GET, PUT"),))
    key = str(scope["path"]).removeprefix(PATH)
    claim = checked_url(gate.store.key, method, key, read_query(scope), now=gate.clock())
    if not isinstance(claim, UrlClaim):
        kind = Kind.URL_FORGED if claim == "forged" else Kind.URL_EXPIRED
        raise ProblemError(kind, f"this URL is {claim}; ask the gateway for another")
    try:
        if method == "PUT":
            return await _put(gate, gate.store, claim, scope, receive)
        return await _get(gate, gate.store, claim, _header(scope, b"range"))
    except RejectedError as error:  # of our own set-up: the car only tries again, so a person must hear of it here
        say("store refused", level=logging.ERROR, key=key, detail=error.summary)
        raise ProblemError(Kind.STORE_REFUSED, error.summary) from error


async def _put(gate: Gate, store: LocalStore, claim: UrlClaim, scope: Scope, receive: Receive) -> Reply:
    body = await whole_body(gate, scope, receive, limit=claim.size)
    if len(body) != claim.size or hashlib.sha256(body).hexdigest() != claim.sha256:
        detail = f"these {len(body)} bytes are not the {claim.size} bytes that the URL was signed for"
        raise ProblemError(Kind.WRONG_CONTENT, detail)
    if not await gate.off_loop(store.create, claim.key, body):
        raise ProblemError(Kind.EXISTS, "the object is there already; objects never change")
    return Reply(status=HTTPStatus.OK, body=b"")


async def _get(gate: Gate, store: LocalStore, claim: UrlClaim, wanted: str) -> FileReply:
    size = await gate.off_loop(store.size, claim.key)
    if size is None:
        raise ProblemError(Kind.NOT_FOUND, "there is no such object")
    path = store.path(claim.key)
    common = ((b"accept-ranges", b"bytes"), (b"content-type", _OCTETS))
    if not wanted:
        return FileReply(status=HTTPStatus.OK, path=path, start=0, stop=size, headers=common)
    span = byte_range(wanted, size)
    if span is None:
        detail = f"range {wanted!r} is not inside {size} bytes"
        unmet = ((b"content-range", b"bytes */%d" % size),)
        raise ProblemError(Kind.RANGE_NOT_SATISFIABLE, detail, headers=unmet)
    start, stop = span
    headers = (*common, (b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, size)))
    return FileReply(status=HTTPStatus.PARTIAL_CONTENT, path=path, start=start, stop=stop, headers=headers)


def byte_range(text: str, size: int) -> tuple[int, int] | None:
    """Return [start, stop) of a single range (RFC 9110, section 14), or None when it cannot be given."""
    match = _RANGE.fullmatch(text)
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
    return (start, stop) if start < stop else None


def _header(scope: Scope, name: bytes) -> str:
    return next((bytes(value).decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _piece(path: Path, start: int, stop: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)
