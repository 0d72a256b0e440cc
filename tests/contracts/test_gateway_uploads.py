"""Uploads that do not end: they keep neither memory nor room, and nobody else from sending."""

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from gateway_doors import QUICK, Door, TestedCar, wait_until

from fleetbatch.store.local import ARRIVING

codes = httpx.codes
SIZE = 3 << 20
QUICK_TO_TIRE = replace(QUICK, body_within=timedelta(seconds=0.1))
CONTENT = hashlib.sha256(b"seed").digest() * (SIZE // 32)


def signed(car: TestedCar) -> str:
    """Return a URL that takes a large part."""
    url: str = car.say("/v1/part", car.part(car.take(), 0, 1, rows=3, content=CONTENT)).json()["url"]
    return url


@contextmanager
def begun(url: str, content: bytes) -> Iterator[socket.socket]:
    """Give a line on which a PUT was begun that is not at its end."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), 10) as line:
        head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nhost: here\r\ncontent-length: {SIZE}\r\n\r\n"
        line.sendall(head.encode() + content)
        yield line


def arriving(door: Door) -> list[Path]:
    return list((door.store.root / ARRIVING).iterdir())


def on_disk(door: Door) -> int:
    return sum(path.stat().st_size for path in arriving(door))


def test_a_large_upload_arrives_in_a_file_and_not_in_memory(door: Door, car: TestedCar) -> None:
    url = signed(car)
    with begun(url, CONTENT[:-1000]):
        assert wait_until(lambda: on_disk(door) > SIZE - (512 << 10))
    assert door.http.put(url, content=CONTENT).status_code == codes.OK


def test_a_large_upload_is_taken_as_it_was_announced_and_once(door: Door, car: TestedCar) -> None:
    part = car.part(car.take(), 0, 1, rows=3, content=CONTENT)
    url = car.say("/v1/part", part).json()["url"]
    assert door.http.put(url, content=CONTENT[::-1]).status_code == codes.BAD_REQUEST
    assert door.http.put(url, content=CONTENT[:-1]).status_code == codes.BAD_REQUEST
    assert door.http.put(url, content=iter([CONTENT, b"more"])).status_code == codes.REQUEST_ENTITY_TOO_LARGE
    assert car.deliver(part, CONTENT).done_through == 1
    assert door.http.put(url, content=CONTENT).status_code == codes.PRECONDITION_FAILED
    assert not arriving(door)


def test_of_an_upload_that_breaks_off_nothing_stays(door: Door, car: TestedCar) -> None:
    url = signed(car)
    with begun(url, CONTENT[:-1000]):
        assert wait_until(lambda: arriving(door))
    assert wait_until(lambda: not arriving(door))
    assert wait_until(lambda: not door.gate.metrics.puts_under_way)  # the file goes first


def test_an_object_is_sent_twice_at_one_time_and_no_third_time(door: Door, car: TestedCar) -> None:
    url = signed(car)
    with begun(url, CONTENT[:1000]), begun(url, CONTENT[:1000]):
        assert wait_until(lambda: sum(door.gate.metrics.puts_under_way.values()) == QUICK.puts_at_once_max)
        third = door.http.put(url, content=CONTENT)
        assert (third.status_code, third.headers.get("retry-after", "").isdigit()) == (codes.SERVICE_UNAVAILABLE, True)
    assert wait_until(lambda: not door.gate.metrics.puts_under_way)
    assert door.http.put(url, content=CONTENT).status_code == codes.OK


@pytest.mark.parametrize("content", [b"", b"x" * 1000, CONTENT[: 1 << 20]])
def test_a_large_upload_that_does_not_go_on_is_not_awaited_for_ever(door: Door, car: TestedCar, content: bytes) -> None:
    url = signed(car)
    door.gate.dials = QUICK_TO_TIRE
    with begun(url, content) as line:
        assert line.recv(1 << 16).startswith(b"HTTP/1.1 408 ")
    assert not arriving(door)
