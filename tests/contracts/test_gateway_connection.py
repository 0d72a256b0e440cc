"""What cars usually say is answered on the connection; nobody can tell, and what is unusual goes the ordinary way."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from gateway_doors import QUICK, Door, TestedCar, open_door, wait_until
from gateway_lines import line_to, request, usual, with_token
from gateway_words import beat, poll, release
from ledger_nights import no

from fleetbatch.gateway.chores import take_voided
from fleetbatch.gateway.identity import token_key
from fleetbatch.units import CellName

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


def of_another_version_and_quiet(door: Door, car: TestedCar) -> tuple[str, bytes]:
    return quiet(door, car), msgspec.json.encode(poll(protocol=9))


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
    "of another version, whose signals the owner keeps": (422, of_another_version_and_quiet),
    "with a letter that no reason has": (422, said(unwilling_reason="a\x00b")),
    "with a letter that no model has": (422, said(cached_models=["a\x00b"])),
    "with a letter that is none": (422, text(msgspec.json.encode(poll(unwilling_reason="?")).replace(b"?", b"\x00"))),
    "with a model of a long name": (422, said(cached_models=["a" * 129])),
    "with too many models": (422, said(cached_models=["a"] * 257)),
    "with a long reason": (422, said(unwilling_reason="a" * 2001)),
    "that leaves at a long time": (422, said(departure_at="a" * 129)),
    "with more trips than words": (422, said(next_trip_at=5)),
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


SAID_OF_ITSELF = {
    "Bearer {}": 200,
    "{}": 401,
    "Basic {}": 401,
    "Bearer{}": 401,
    "Bearer": 401,
    "Bearer Bearer {}": 401,
    "Bearer {} {}": 401,
    "Bearer {}00": 401,
    "bearer {}": 200,
    "Bearer   {}": 200,
}


def test_a_token_counts_only_as_a_bearers_both_ways(door: Door, idle: TestedCar) -> None:
    for authorization, status in SAID_OF_ITSELF.items():
        given = "authorization: " + authorization.replace("{}", idle.token)
        for path in (HERE, HERE, ORDINARY):  # what comes first is learnt from
            with line_to(door) as line:
                line.write(request(path, "", msgspec.json.encode(poll()), given))
                assert line.read()[0] == status, (authorization, path)


@pytest.mark.parametrize("path", [HERE, ORDINARY])
def test_a_length_is_a_number_whatever_zeros_it_begins_with(door: Door, idle: TestedCar, path: str) -> None:
    body = msgspec.json.encode(poll())
    with line_to(door) as line:
        line.write(request(path, idle.token, body, f"content-length: {len(body):09}", length=False))
        assert line.read()[0] == codes.OK


def test_a_poll_of_new_hardware_is_valid_or_not_however_deep_it_is_nested(door: Door, idle: TestedCar) -> None:
    valid, too_deep = 0, 3000
    while too_deep - valid > 1:
        depth = (valid + too_deep) // 2
        hardware = {**poll()["hardware"], "runner_version": str(depth)}
        body = b'{"mood":%b,%b' % (b"[" * depth + b"]" * depth, msgspec.json.encode(poll(hardware=hardware))[1:])
        with line_to(door) as line:
            line.write(request(HERE, idle.token, body))
            status = line.read()[0]
        assert status in {codes.OK, codes.UNPROCESSABLE_ENTITY}
        valid, too_deep = (depth, too_deep) if status == codes.OK else (valid, depth)
    assert valid > 0


def _asked(door: Door, path: str, token: str, body: bytes) -> tuple[Any, Any, Any]:
    """Return the answer, what was counted, and what was kept."""
    metrics, before = door.gate.metrics, dict(door.gate.metrics.answers)
    with line_to(door) as line:
        line.write(request(path, token, body))
        status, headers, answer = line.read()
    answered = sum(before.values()) + 1  # the application counts an answer once it is sent
    assert wait_until(lambda: metrics.in_flight == 0 and sum(metrics.answers.values()) == answered)
    del headers["date"]
    counted = {key: count - before.get(key, 0) for key, count in metrics.answers.items() if count != before.get(key, 0)}
    rows = [(row.car_id, row.at, json.loads(row.said)["signals"]) for row in door.gate.telemetry.take()]
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
