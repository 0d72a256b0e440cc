"""Heads of requests that need no parsing: a fleet says the same few lines again and again, but for its tokens.

The parser works on a request byte by byte and calls back for every line. Two requests whose bytes are equal but for
the letters and digits of the bearer token mean the same to it, whatever rules it has; so what it found once holds for
all of them. This is only asked between two messages, where the parser remembers nothing of those before.
"""

from typing import Final

from fleetbatch.gateway.admission import Route

_END: Final = b"\r\n\r\n"
_BEARER: Final = b"Bearer "
_BEFORE_TOKEN: Final = b"\r\nauthorization: bearer "
_KNOWN_MAX: Final = 4096
"""Lengths of bodies are in their heads; of calls with signals there are some hundreds."""
_HEAD_BYTES_MAX: Final = 2048


Request = tuple[Route, bytes, bytes]
"""A whole request of a car: what it calls, its authorization, its body. No class: one is made for every call."""


class Heads:
    """What the parser found in heads, by their bytes without the token."""

    def __init__(self) -> None:
        """Know none yet."""
        self._known: dict[bytes, tuple[Route, int]] = {}
        self._by_length: dict[int, tuple[bytes, int, bytes, int, Route]] = {}
        """By the length of a request, the last that was known: what is before its token, where that ends, what follows
        up to the body, where that begins, and the route. Whoever says it again is known without a search."""

    def __len__(self) -> int:
        """Return how many are known."""
        return len(self._known)

    def read(self, data: bytes) -> Request | None:
        """Return the one request that these bytes are; None when that is not known, and the parser must say."""
        before, stop, after, begin, last = self._by_length.get(len(data), _NOTHING)
        if last is not None and data.startswith(before) and data.startswith(after, stop):
            token = data[len(before) : stop]
            return (last, _BEARER + token, data[begin:]) if token.isalnum() else None
        return self._search(data)

    def _search(self, data: bytes) -> Request | None:
        end = data.find(_END)
        if end < 0:
            return None
        token = data.find(_BEARER, 0, end) + len(_BEARER)
        stop = data.find(b"\r\n", token)
        route, length = self._known.get(data[:token] + data[stop:end], _UNKNOWN)
        if route is None or len(data) != end + len(_END) + length or not data[token:stop].isalnum():
            return None
        begin = end + len(_END)
        if len(self._by_length) >= _KNOWN_MAX:
            self._by_length.clear()
        self._by_length[len(data)] = data[:token], stop, data[stop:begin], begin, route
        return route, data[token - len(_BEARER) : stop], data[begin:]

    def learn(self, data: bytes, request: Request) -> None:
        """Remember what the parser found in these bytes, if it is all of them."""
        end = data.find(_END)
        token = data.find(_BEARER, 0, end) + len(_BEARER)
        stop = data.find(b"\r\n", token)
        said = data[token - len(_BEARER) : stop]
        route, authorization, body = request
        plain = data[:token].lower().endswith(_BEFORE_TOKEN) and said == authorization
        if not plain or not 0 < end <= _HEAD_BYTES_MAX or data[end + len(_END) :] != body:
            return
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
            self._by_length.clear()
        self._known[data[:token] + data[stop:end]] = route, len(body)


_UNKNOWN: Final[tuple[None, int]] = (None, 0)
_NOTHING: Final[tuple[bytes, int, bytes, int, None]] = (b"", 0, b"", 0, None)
