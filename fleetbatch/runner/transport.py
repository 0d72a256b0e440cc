"""Connections of which no answer takes more memory or time than a gateway's may, whoever gives it.

A captive portal or a proxy speaks in a gateway's place now and then: without end, a byte at a time, or packed.
"""

import time
from collections.abc import Iterator
from typing import Final

import httpx

ANSWER_BYTES: Final = 1 << 20
"""The largest answer of a gateway is a lease, some thousands of bytes."""
ANSWER_S: Final = 60.0
"""From the first byte of an answer's body to its last."""
_PLAIN: Final = frozenset({"", "identity"})


class BoundedTransport(httpx.HTTPTransport):
    """Ends an answer with an error of transport as soon as it is more than it may be."""

    def __init__(self, *, limits: httpx.Limits, answer_s: float = ANSWER_S) -> None:
        """Keep so many connections, and let an answer's body take so many seconds."""
        super().__init__(limits=limits, trust_env=False)
        self._answer_s = answer_s

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask for an answer that is not packed, and give it with its body bounded."""
        request.headers["accept-encoding"] = "identity"
        response = super().handle_request(request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        packed = response.headers.get("content-encoding", "").lower()
        if packed not in _PLAIN:
            response.stream.close()
            message = f"the answer is packed ({packed[:20]}), which nobody asked for"
            raise httpx.RemoteProtocolError(message)
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_Bounded(response.stream, self._answer_s),
            extensions=response.extensions,
        )


class _Bounded(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, answer_s: float) -> None:
        self._stream = stream
        self._answer_s = answer_s

    def __iter__(self) -> Iterator[bytes]:
        began, taken = time.monotonic(), 0
        for piece in self._stream:
            taken += len(piece)
            if taken > ANSWER_BYTES:
                message = f"the answer is larger than {ANSWER_BYTES} bytes"
                raise httpx.RemoteProtocolError(message)
            if time.monotonic() - began > self._answer_s:
                message = f"the answer is not whole after {self._answer_s:g} s"
                raise httpx.ReadTimeout(message)
            yield piece

    def close(self) -> None:
        self._stream.close()
