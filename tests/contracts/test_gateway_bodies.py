"""Callers whose messages trickle keep nobody else from being heard."""

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from gateway_doors import QUICK, Door, open_door, wait_until

codes = httpx.codes


@pytest.fixture
def narrow(database_url: str, tmp_path: Path) -> Iterator[Door]:
    """A gateway in which one request may be under way, and two slow bodies awaited."""
    dials = replace(QUICK, in_flight_max=1, bodies_awaited_max=2, body_within=timedelta(seconds=60))
    with open_door(database_url, tmp_path, dials=dials) as door:
        yield door


@contextmanager
def trickling(door: Door, count: int, *, begun: bytes = b"grant_type=") -> Iterator[list[socket.socket]]:
    """Give callers for tokens who have sent their head, the beginning of a body and no more."""
    parts = urlsplit(door.url)
    head = b"POST /v1/token HTTP/1.1\r\nhost: here\r\ncontent-length: 900\r\n\r\n"
    with ExitStack() as stack:
        lines = [stack.enter_context(socket.create_connection((parts.hostname, parts.port), 10)) for _ in range(count)]
        for line in lines:
            line.sendall(head + begun)
        yield lines


def awaits(door: Door, count: int) -> bool:
    return wait_until(lambda: door.gate.metrics.bodies_awaited == count)


def test_tokens_that_trickle_hold_no_place_of_those_that_are_answered(narrow: Door) -> None:
    car = narrow.car()
    with trickling(narrow, 2):
        assert awaits(narrow, 2)
        assert narrow.gate.metrics.in_flight == 0
        assert car.poll().lease is None


def test_one_slow_body_too_many_is_sent_away_and_a_quick_one_is_taken(narrow: Door) -> None:
    with trickling(narrow, 2):
        assert awaits(narrow, 2)
        with trickling(narrow, 1) as [third]:
            assert select.select([third], [], [], 5)[0], "it is awaited, too"
            assert third.recv(1 << 16).startswith(b"HTTP/1.1 503 ")
        assert narrow.car().buy_token().status_code == codes.OK
    assert awaits(narrow, 0)


def test_a_body_that_never_begins_is_not_awaited_for_ever(database_url: str, tmp_path: Path) -> None:
    with (
        open_door(database_url, tmp_path, dials=replace(QUICK, body_within=timedelta(seconds=0.1))) as door,
        trickling(door, 1, begun=b"") as [silent],
    ):
        assert silent.recv(1 << 16).startswith(b"HTTP/1.1 408 ")
        assert awaits(door, 0)
        assert door.gate.metrics.in_flight == 0
