"""What cars usually say is answered on the connection; nobody can tell, and what is unusual goes the ordinary way."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from gateway_doors import QUICK, Door, TestedCar, beat, open_door, poll, release, wait_until
from gateway_lines import Line, line_to, request, usual, with_token
from ledger_nights import no

from fleetbatch.gateway.chores import take_voided
from fleetbatch.gateway.identity import token_key
from fleetbatch.units import CarId, CellName

codes = httpx.codes
HERE, ORDINARY = "/v1/poll", "/v1/poll?"
"""One endpoint; an address with a query is unusual enough for the application."""


# -- the same words, whichever way


def said(**changes: Any) -> Callable[[Door, TestedCar], tuple[str, bytes]]:
    return lambda _, car: (car.token, msgspec.json.encode(poll(**changes)))


def text(body: bytes) -> Callable[[Door, TestedCar], tuple[str, bytes]]:
    return lambda _, car: (car.token, body)


def shown(token: Callable[[Door, TestedCar], str]) -> Callable[[Door, TestedCar], tuple[str, bytes]]:
    return lambda door, car: (token(door, car), msgspec.json.encode(poll()))


def strange_hardware(**changes: Any) -> Callable[[Door, TestedCar], tuple[str, bytes]]:
    return said(hardware={**poll()["hardware"], **changes})


def quiet(door: Door, car: TestedCar) -> str:
    return door.gate.car_tokens.token(car.id, expires_at=door.clock.now + timedelta(hours=1), telemetry=False)


def expired(door: Door, car: TestedCar) -> str:
    return door.gate.car_tokens.token(car.id, expires_at=door.clock.now)


def of_other_cell(door: Door, car: TestedCar) -> str:
    elsewhere = token_key(bytes(range(32)), CellName("us-1"), "car")
    return elsewhere.token(car.id, expires_at=door.clock.now + timedelta(hours=1))


CASES: dict[str, tuple[int, Callable[[Door, TestedCar], tuple[str, bytes]]]] = {
    "a poll": (200, said()),
    "of a car that does not want": (200, said(willing=False, unwilling_reason="too_hot")),
    "in many lines": (200, text(json.dumps(poll(), indent=2).encode())),
    "with nonsense among its signals": (200, said(signals={"Vehicle.Speed": "fast", "Vehicle.Unknown": None})),
    "with a field that nobody knows": (200, said(mood="good")),
    "whose signals the owner keeps": (200, shown(quiet)),
    "of another version": (422, said(protocol=9)),
    "without hardware": (422, text(b'{"signals":{},"willing":true}')),
    "with no threads": (422, strange_hardware(threads=0)),
    "with a nameless class": (422, strange_hardware(hardware_class="a\x00b")),
    "with two hardwares": (422, text(b'{"hardware":5,' + msgspec.json.encode(poll())[1:])),
    "with two hardwares, in other letters": (422, text(b'{"hardwar\\u0065":{},' + msgspec.json.encode(poll())[1:])),
    "with a long name of a signal's value": (422, said(signals={"Vehicle.Speed": [1]})),
    "that is nothing": (422, text(b"")),
    "that is no JSON": (422, text(b"[" * 60_000)),
    "that is no text": (422, text(b'{"willing":"\xff"}')),
    "that is too long": (413, text(b" " * 70_000)),
    "without a token": (401, shown(lambda _door, _car: "")),
    "with rubbish for a token": (401, shown(lambda _door, _car: "token")),
    "with an expired token": (401, shown(expired)),
    "with another cell's token": (401, shown(of_other_cell)),
    "with an owner's token": (401, shown(lambda door, car: door.owner_token(car.owner))),
    "with a token cut short": (401, shown(lambda _door, car: car.token[:-2])),
}


def test_every_poll_is_answered_counted_and_kept_alike_both_ways(door: Door, idle: TestedCar) -> None:
    for name, (status, made) in CASES.items():
        token, body = made(door, idle)
        here, ordinary = (_asked(door, path, token, body) for path in (HERE, ORDINARY))
        assert here == ordinary, name
        assert here[0][0] == status, (name, here)
    answered_here = len(CASES) - 1  # all but the one that is too long
    assert door.passed_on.count(HERE) == 2 * len(CASES) - answered_here


def _asked(door: Door, path: str, token: str, body: bytes) -> tuple[Any, Any, Any]:
    """Return the answer, what was counted, and what was kept."""
    metrics, before = door.gate.metrics, dict(door.gate.metrics.answers)
    with line_to(door) as line:
        line.write(request(path, token, body))
        status, headers, answer = line.read()
    del headers["date"]
    counted = {key: count - before.get(key, 0) for key, count in metrics.answers.items() if count != before.get(key, 0)}
    rows = [(row.car_id, row.at, json.loads(row.said)["signals"]) for row in door.gate.telemetry.take()]
    assert metrics.in_flight == 0
    return (status, dict(sorted(headers.items())), answer), counted, rows


@pytest.mark.parametrize("path", [HERE, ORDINARY])
def test_a_car_that_asks_too_often_is_told_so(database_url: str, tmp_path: Path, path: str) -> None:
    with open_door(database_url, tmp_path, dials=replace(QUICK, requests_per_window=3)) as door, line_to(door) as line:
        car = with_token(door, door.car(1))
        for status in (200, 200, 200, codes.TOO_MANY_REQUESTS):
            line.write(request(path, car.token, msgspec.json.encode(poll())))
            assert line.read()[0] == status


@pytest.mark.parametrize("path", [HERE, ORDINARY])
def test_a_gateway_that_is_behind_sheds(database_url: str, tmp_path: Path, path: str) -> None:
    with open_door(database_url, tmp_path, dials=replace(QUICK, in_flight_max=0)) as door, line_to(door) as line:
        line.write(request(path, with_token(door, door.car(1)).token, msgspec.json.encode(poll())))
        status, headers, _ = line.read()
        assert (status, "retry-after" in headers) == (codes.SERVICE_UNAVAILABLE, True)


def test_a_token_is_void_from_the_withdrawal_on_and_a_revoked_car_gets_no_work(door: Door, idle: TestedCar) -> None:
    with line_to(door) as line:
        line.write(usual(idle))
        assert line.read()[0] == codes.OK
        door.ledger.set_consent(no(idle.id))
        door.run(take_voided(door.gate))
        line.write(usual(idle))
        assert line.read()[0] == codes.UNAUTHORIZED
        other = with_token(door, door.car(2))
        door.open({8: (3,)})
        door.ledger.revoke_car(other.id, "stolen")
        door.offer((other.id, 8))
        line.write(usual(other))
        status, _, body = line.read()
        assert status == codes.UNAUTHORIZED or json.loads(body)["lease"] is None, "heard of it by now, or not yet"
        door.run(take_voided(door.gate))
        line.write(usual(other))
        assert line.read()[0] == codes.UNAUTHORIZED
    assert door.passed_on == []


def test_work_is_given_on_the_connection_on_which_there_was_none(door: Door, idle: TestedCar) -> None:
    door.open({7: (3, 3, 2)})
    with line_to(door) as line:
        line.write(usual(idle))
        assert json.loads(line.read()[2])["lease"] is None
        door.offer((idle.id, 7))
        line.write(usual(idle))
        assert json.loads(line.read()[2])["lease"]["shard_id"] == f"{7:016x}"
        line.write(usual(idle))
        assert json.loads(line.read()[2])["lease"]["shard_id"] == f"{7:016x}", "the same lease again"


PATHS = ("/v1/beat", "/v1/part", "/v1/part/confirm", "/v1/release")


@pytest.mark.parametrize("path", PATHS)
def test_every_other_call_of_a_car_is_answered_and_counted_alike_both_ways(
    door: Door, idle: TestedCar, path: str
) -> None:
    door.open({7: (3, 3, 2)})
    door.offer((idle.id, 7))
    lease = idle.take()
    door.gate.telemetry.take()
    part = idle.part(lease, 0, 1, rows=3)
    good = {
        "/v1/beat": beat(lease),
        "/v1/part": part,
        "/v1/part/confirm": part,
        "/v1/release": {**release(lease), "fence": lease.fence + 1},  # refused, so that it can be said again
    }[path]
    bodies = (msgspec.json.encode(good), b"{}", b"", b" " * 70_000)
    for token, body in ((idle.token, one) for one in bodies):
        here, ordinary = (_asked(door, at, token, body) for at in (path, f"{path}?"))
        assert _without_signature(here) == _without_signature(ordinary)
    for token in ("", "token", door.owner_token(idle.owner), of_other_cell(door, idle)):
        here, ordinary = (_asked(door, at, token, bodies[0]) for at in (path, f"{path}?"))
        assert here == ordinary
        assert here[0][0] == codes.UNAUTHORIZED
    assert door.passed_on.count(path) == 8 + 1, "the ordinary ones, and what was too long"


def _without_signature(asked: tuple[Any, Any, Any]) -> str:
    return re.sub("signature=[0-9a-f]+", "", str(asked))


def test_calls_that_come_at_once_wait_for_each_other(door: Door, idle: TestedCar) -> None:
    door.open({7: (3, 3, 2)})
    door.offer((idle.id, 7))
    lease = idle.take()
    beating = request("/v1/beat", idle.token, msgspec.json.encode(beat(lease)))
    leaving = request("/v1/release", idle.token, msgspec.json.encode(release(lease)))
    with line_to(door) as line:
        line.write(beating + usual(idle) + leaving + leaving + beating)
        assert json.loads(line.read()[2])["go_on"]
        assert json.loads(line.read()[2])["lease"]["lease_id"] == lease.lease_id
        assert [line.read()[0] for _ in range(2)] == [200, 200]
        assert not json.loads(line.read()[2])["go_on"]


# -- what is unusual


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


@contextmanager
def deaf_line_to(door: Door) -> Iterator[socket.socket]:
    parts = urlsplit(door.url)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(10)
        deaf.connect((parts.hostname, parts.port))
        yield deaf


def test_a_caller_that_leaves_in_the_middle_leaves_nothing_behind(door: Door, idle: TestedCar) -> None:
    whole = usual(idle)
    for stop in (1, 40, len(whole) - 9):
        with line_to(door) as line:
            line.write(whole[:stop])
    with line_to(door) as line:
        line.write(b"rubbish\r\n\r\n")
        assert line.read()[0] == codes.BAD_REQUEST
        assert line.ends()
    with line_to(door) as line:
        line.write(whole)
        assert line.read()[0] == codes.OK
    assert CarId(idle.id) not in door.gate.polling
    assert door.gate.metrics.in_flight == 0
