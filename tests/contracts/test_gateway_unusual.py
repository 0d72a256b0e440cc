"""Whoever speaks HTTP in an unusual way, too slowly or without end is answered or hung up on, and disturbs nobody."""

import json
import socket
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import msgspec
import pytest
from gateway_doors import QUICK, Door, TestedCar, open_door, wait_until
from gateway_lines import Line, deaf_line_to, line_to, request, usual, with_token
from gateway_words import poll

from fleetbatch.units import CarId

codes = httpx.codes
HERE = "/v1/poll"


def test_requests_that_come_at_once_are_answered_in_their_order(door: Door, idle: TestedCar) -> None:
    health = b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n"
    with line_to(door) as line:
        line.write(usual(idle) + health + usual(idle) + usual(idle, protocol=9) + health)
        assert [line.read()[0] for _ in range(5)] == [200, 200, 200, 422, 200]
        line.write(usual(idle) + usual(idle))
        assert [json.loads(line.read()[2])["lease"] for _ in range(2)] == [None, None]


def test_a_poll_that_comes_byte_by_byte_is_a_poll(door: Door, idle: TestedCar) -> None:
    whole = usual(idle)
    with line_to(door) as line:
        line.write(*(whole[n : n + 1] for n in range(len(whole))))
        assert line.read()[0] == codes.OK
    assert door.passed_on == []


def test_whoever_is_slow_is_left_to_the_application(database_url: str, tmp_path: Path) -> None:
    with open_door(database_url, tmp_path, dials=replace(QUICK, body_within=timedelta(seconds=1))) as door:
        car, head = with_token(door, door.car(1)), len(usual(with_token(door, door.car(2)))) - 9
        with line_to(door) as slow, line_to(door) as stuck, line_to(door) as headless:
            whole = usual(car)
            slow.write(whole[:head])
            stuck.write(whole[:head])
            headless.write(whole[:40])
            time.sleep(1.3)
            slow.write(whole[head:])
            assert slow.read()[0] == codes.OK
            assert stuck.read()[0] == codes.REQUEST_TIMEOUT
            assert headless.read()[0] == codes.REQUEST_TIMEOUT
            assert headless.ends()
        assert door.passed_on == ["/v1/poll"] * 2


def test_a_head_without_end_is_refused(door: Door) -> None:
    with line_to(door) as line:
        line.write(b"POST /v1/poll HTTP/1.1\r\nx: ")
        status = 0
        for _ in range(100):
            line.write(b"y" * 4096)
            time.sleep(0.001)
            if door.gate.metrics.in_flight == 0 and _readable(line):
                status = line.read()[0]
                break
        assert status == codes.REQUEST_HEADER_FIELDS_TOO_LARGE


def _readable(line: Line) -> bool:
    line.socket.settimeout(0.001)
    try:
        return bool(line.socket.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
    finally:
        line.socket.settimeout(10)


def test_chunks_promises_and_old_versions_go_the_ordinary_way(door: Door, idle: TestedCar) -> None:
    body = msgspec.json.encode(poll())
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    with line_to(door) as line:
        line.write(request(HERE, idle.token, chunked, "transfer-encoding: chunked", length=False))
        assert line.read()[0] == codes.OK
        line.write(request(HERE, idle.token, body, "authorization: Bearer x"))
        assert line.read()[0] == codes.UNAUTHORIZED, "the first of two counts"
        whole = request(HERE, idle.token, body, "expect: 100-continue")
        line.write(whole[: -len(body)])
        assert line.read()[0] == codes.CONTINUE
        line.write(body)
        assert line.read()[0] == codes.OK
        line.write(request(HERE, idle.token, body, "connection: close"))
        assert line.read()[0] == codes.OK
        assert line.ends()
    with line_to(door) as line:
        line.write(request(HERE, idle.token, body, version="1.0"))
        assert line.read()[0] == codes.OK
        assert line.ends()
    assert door.passed_on == ["/v1/poll"] * 5


def test_a_silent_connection_ends_after_a_while_and_no_other(door: Door, idle: TestedCar) -> None:
    with line_to(door) as silent, line_to(door) as lively:
        for line in (silent, lively):
            line.write(usual(idle))
            assert line.read()[0] == codes.OK
        for _ in range(4):
            time.sleep(0.7)
            lively.write(usual(idle))
            assert lively.read()[0] == codes.OK
        assert silent.ends()


def test_a_caller_that_never_says_anything_is_hung_up_on(door: Door) -> None:
    with line_to(door) as line:
        assert line.ends()


def test_a_caller_that_takes_no_answer_is_hung_up_on(door: Door) -> None:
    with deaf_line_to(door) as deaf:
        door.http.get(f"{door.url}/metrics")  # the ledger is asked once
        for _ in range(100):  # until all buffers in between are full
            deaf.sendall(b"GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n" * 300)
            time.sleep(0.2)
            if door.gate.metrics.in_flight:
                break
        assert door.gate.metrics.in_flight == 1
        assert wait_until(lambda: door.gate.metrics.in_flight == 0, within_s=8)


def test_a_caller_that_asks_and_asks_without_waiting_is_hung_up_on(door: Door) -> None:
    with deaf_line_to(door) as deaf, pytest.raises(ConnectionError):
        deaf.sendall(b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n" * 1_000_000)


def test_a_caller_that_leaves_in_the_middle_leaves_nothing_behind(door: Door, idle: TestedCar) -> None:
    whole = usual(idle)
    for stop in (1, 40, len(whole) - 9):
        with line_to(door) as line:
            line.write(whole[:stop])
    for rubbish in (b"rubbish\r\n\r\n", b"GET /v1/health HTTP/1.1\r\nhost: here\r\ncontent-length: \r\n\r\n"):
        with line_to(door) as line:
            line.write(rubbish)
            status, headers, body = line.read()
            assert (status, headers["content-type"]) == (codes.BAD_REQUEST, "application/problem+json")
            assert msgspec.json.decode(body)["type"] == "urn:fleetbatch:not-http"
            assert line.ends()
    with line_to(door) as line:
        line.write(whole)
        assert line.read()[0] == codes.OK
    assert CarId(idle.id) not in door.gate.polling
    assert door.gate.metrics.in_flight == 0
