"""Connections on which a test writes to a gateway byte by byte."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import msgspec
from gateway_doors import Door, TestedCar
from gateway_words import poll


@dataclass(slots=True)
class Line:
    """A connection on which a test writes what it likes."""

    socket: socket.socket
    got: bytes = b""

    def write(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def read(self) -> tuple[int, dict[str, str], bytes]:
        """Return the next answer's status, headers and body; 0 when the other side hung up."""
        while b"\r\n\r\n" not in self.got:
            if not self._more():
                return 0, {}, self.got
        head, _, rest = self.got.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers.get("content-length", "0"))
        while len(rest) < length and self._more():
            rest = self.got.partition(b"\r\n\r\n")[2]
        self.got = rest[length:]
        return int(first.split()[1]), headers, rest[:length]

    def ends(self) -> bool:
        """Wait until the other side hangs up; say whether it did so without another word."""
        return not self._more() and not self.got

    def _more(self) -> bool:
        piece = self.socket.recv(1 << 16)
        self.got += piece
        return bool(piece)


@contextmanager
def line_to(door: Door) -> Iterator[Line]:
    parts = urlsplit(door.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Line(one)


def request(path: str, token: str, body: bytes, *more: str, version: str = "1.1", length: bool = True) -> bytes:
    lines = [f"POST {path} HTTP/{version}", "host: here", *more]
    lines += [f"authorization: Bearer {token}"] if token else []
    lines += [f"content-length: {len(body)}"] if length else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def usual(car: TestedCar, **changes: Any) -> bytes:
    return request("/v1/poll", car.token, msgspec.json.encode(poll(**changes)))


def with_token(door: Door, car: TestedCar) -> TestedCar:
    car.token = door.gate.car_tokens.token(car.id, expires_at=door.clock.now + timedelta(hours=1), telemetry=True)
    return car


@contextmanager
def deaf_line_to(door: Door) -> Iterator[socket.socket]:
    parts = urlsplit(door.url)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(10)
        deaf.connect((parts.hostname, parts.port))
        yield deaf
