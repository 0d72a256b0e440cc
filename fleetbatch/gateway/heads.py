"""Heads of requests that need no parsing: a fleet says the same few lines again and again, but for its tokens.

The parser works on a request byte by byte and calls back for every line. Two requests whose bytes are equal but for
the letters and digits of the bearer token mean the same to it, whatever rules it has; so what it found once holds for
all of them. This is only asked between two messages, where the parser remembers nothing of those before.
"""

from typing import Final, NamedTuple

from fleetbatch.gateway.admission import Route

_END: Final = b"\r\n\r\n"
_BEARER: Final = b"Bearer "
_BEFORE_TOKEN: Final = b"\r\nauthorization: bearer "
_KNOWN_MAX: Final = 4096
"""Lengths of bodies are in their heads; of calls with signals there are some hundreds."""
_HEAD_BYTES_MAX: Final = 2048


class Request(NamedTuple):
    """A whole request of a car."""

    route: Route
    authorization: bytes
    body: bytes


class Heads:
    """What the parser found in heads, by their bytes without the token."""

    def __init__(self) -> None:
        """Know none yet."""
        self._known: dict[bytes, tuple[Route, int]] = {}

    def __len__(self) -> int:
        """Return how many are known."""
        return len(self._known)

    def read(self, data: bytes) -> Request | None:
        """Return the one request that these bytes are; None when that is not known, and the parser must say."""
        end = data.find(_END)
        if end < 0:
            return None
        token = data.find(_BEARER, 0, end) + len(_BEARER)
        stop = data.find(b"\r\n", token)
        route, length = self._known.get(data[:token] + data[stop:end], _UNKNOWN)
        if route is None or len(data) != end + len(_END) + length or not data[token:stop].isalnum():
            return None
        return Request(route, data[token - len(_BEARER) : stop], data[end + len(_END) :])

    def learn(self, data: bytes, request: Request) -> None:
        """Remember what the parser found in these bytes, if it is all of them."""
        end = data.find(_END)
        token = data.find(_BEARER, 0, end) + len(_BEARER)
        stop = data.find(b"\r\n", token)
        said = data[token - len(_BEARER) : stop]
        plain = data[:token].lower().endswith(_BEFORE_TOKEN) and said == request.authorization
        if not plain or not 0 < end <= _HEAD_BYTES_MAX or data[end + len(_END) :] != request.body:
            return
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[data[:token] + data[stop:end]] = request.route, len(request.body)


_UNKNOWN: Final[tuple[None, int]] = (None, 0)
