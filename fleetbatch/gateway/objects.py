"""/store/KEY: the local folder behind signed URLs, so that cars speak to it as they would to S3."""

import hashlib
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from fleetbatch.errors import RejectedError
from fleetbatch.gateway.admission import body_pieces, whole_body
from fleetbatch.gateway.bodies import Receive, Scope, read_query
from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.problems import Headers, Kind, ProblemError, Reply
from fleetbatch.logs import say
from fleetbatch.store.local import LocalArrival, LocalStore
from fleetbatch.store.signing import PATH, UrlClaim, checked_url

_CHUNK_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 256 << 10
"""How much of an upload is kept in memory: hundreds may be awaited at one time."""
_PUT_AGAIN_S: Final = 2.0
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
    with _sending(gate, claim.key):
        if claim.size <= _PIECE_BYTES:
            body = await whole_body(gate, scope, receive, limit=claim.size)
            _refuse_other(claim, len(body), hashlib.sha256(body).hexdigest())
            created = await gate.off_loop(store.create, claim.key, body)
        else:
            created = await _put_in_pieces(gate, store.arrival(claim.key), claim, scope, receive)
    if not created:
        raise ProblemError(Kind.EXISTS, "the object is there already; objects never change")
    return Reply(status=HTTPStatus.OK, body=b"")


async def _put_in_pieces(gate: Gate, arrival: LocalArrival, claim: UrlClaim, scope: Scope, receive: Receive) -> bool:
    """Write what comes to a file of no name yet; return whether it became the object."""
    digest = hashlib.sha256()

    def take(piece: bytes) -> None:
        arrival.add(piece)
        digest.update(piece)

    try:
        read = body_pieces(gate, scope, receive, limit=claim.size, piece_bytes=_PIECE_BYTES)
        async with aclosing(read) as pieces:
            async for piece in pieces:
                await gate.off_loop(take, piece)
        _refuse_other(claim, arrival.size, digest.hexdigest())
        return await gate.off_loop(arrival.keep)
    finally:
        await gate.off_loop(arrival.drop)


@contextmanager
def _sending(gate: Gate, key: str) -> Iterator[None]:
    """Count a PUT; raise a ProblemError when too many for the same object are under way: a URL may be sent to at will.

    A second one is an honest car's whose line was cut, and whose first nobody has given up yet.
    """
    under_way = gate.metrics.puts_under_way
    if under_way[key] >= gate.dials.puts_at_once_max:
        wait_s = _PUT_AGAIN_S * (1 + gate.chance())
        raise ProblemError(Kind.COME_BACK, "this object is being sent already", retry_after_s=wait_s)
    under_way[key] += 1
    try:
        yield
    finally:
        under_way[key] -= 1
        if not under_way[key]:
            del under_way[key]


def _refuse_other(claim: UrlClaim, size: int, sha256: str) -> None:
    if size != claim.size or sha256 != claim.sha256:
        detail = f"these {size} bytes are not the {claim.size} bytes that the URL was signed for"
        raise ProblemError(Kind.WRONG_CONTENT, detail)


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
