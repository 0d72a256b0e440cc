"""What a worker reads from the store, over connections that stay open.

The standard library's client, because a worker reads megabytes: it fills one buffer, at a fifth of the CPU time that
httpx takes for the same bytes, and is imported already.
"""

import http.client
import ssl
from http import HTTPStatus
from typing import Final
from urllib.parse import SplitResult, urlsplit

from fleetbatch.runner.unreachable import UnreachableError

TIMEOUT_S: Final = 20.0


class Downloads:
    """Reads signed URLs; a connection per origin is kept open. Used by one thread at a time."""

    def __init__(self) -> None:
        """Connect to nothing yet."""
        self._connections: dict[tuple[str, str], http.client.HTTPConnection] = {}

    def whole(self, url: str, size: int) -> bytes:
        """Return an object of that size; raise UnreachableError when it does not come whole."""
        return self._get(url, size, {}, HTTPStatus.OK)

    def span(self, url: str, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop) of an object; raise UnreachableError when they do not come."""
        asked = {"range": f"bytes={start}-{stop - 1}"}
        return self._get(url, stop - start, asked, HTTPStatus.PARTIAL_CONTENT)

    def _get(self, url: str, size: int, headers: dict[str, str], wanted: HTTPStatus) -> bytes:
        """Ask once more where a connection that was kept had been closed by the other side."""
        parts = urlsplit(url)
        origin = (parts.scheme, parts.netloc)
        for kept in (origin in self._connections, False):
            try:
                return self._ask(parts, size, headers, wanted)
            except (OSError, http.client.HTTPException) as error:
                self._forget(origin)
                if not (kept and isinstance(error, ConnectionError | http.client.BadStatusLine)):
                    message = f"the store could not be read: {type(error).__name__} {error}"
                    raise UnreachableError(message) from error
        raise AssertionError(url)

    def _ask(self, parts: SplitResult, size: int, headers: dict[str, str], wanted: HTTPStatus) -> bytes:
        connection = self._connection(parts)
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        if response.status != wanted or response.length not in {None, size}:
            self._forget((parts.scheme, parts.netloc))  # its body is not worth reading
            message = f"the store answered {response.status} with {response.length} bytes; wanted {size} bytes"
            raise UnreachableError(message)
        content = response.read(size)  # one buffer, filled from the socket
        if len(content) != size or response.read(1):
            self._forget((parts.scheme, parts.netloc))
            message = f"the store answered with more or less than the {size} bytes that were wanted"
            raise UnreachableError(message)
        return content

    def _connection(self, parts: SplitResult) -> http.client.HTTPConnection:
        origin = (parts.scheme, parts.netloc)
        if origin not in self._connections:
            if parts.scheme == "https":
                context = ssl.create_default_context()
                self._connections[origin] = http.client.HTTPSConnection(
                    parts.netloc, timeout=TIMEOUT_S, context=context
                )
            else:
                self._connections[origin] = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_S)
        return self._connections[origin]

    def _forget(self, origin: tuple[str, str]) -> None:
        connection = self._connections.pop(origin, None)
        if connection is not None:
            connection.close()
