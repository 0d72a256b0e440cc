"""A request that looks like one before it is answered as if it had been parsed; nothing else passes for one."""

import json
from dataclasses import replace
from pathlib import Path

import httpx
import msgspec
from gateway_doors import QUICK, Door, TestedCar, open_door
from gateway_lines import line_to, request, usual, with_token
from gateway_words import beat, poll

codes = httpx.codes


def test_requests_of_one_kind_are_heard_each_as_its_own_callers(door: Door, idle: TestedCar) -> None:
    for n in range(1, 6):
        car = with_token(door, door.car(n)) if n > 1 else idle
        with line_to(door) as line:
            for _ in range(3):
                line.write(usual(car))
                assert line.read()[0] == codes.OK
    rows = door.gate.telemetry.take()
    assert len({row.car_id for row in rows}) == 5, "each as itself"
    assert len(rows) == 15
    assert door.passed_on == []


def test_a_known_head_opens_nothing_for_a_token_that_is_none(door: Door, idle: TestedCar) -> None:
    with line_to(door) as line:
        for token, status in ((idle.token, codes.OK), ("a" * len(idle.token), codes.UNAUTHORIZED)):
            line.write(request("/v1/poll", token, msgspec.json.encode(poll())))
            assert line.read()[0] == status


def test_a_piece_of_a_body_is_no_request_though_the_answer_came_before_it(database_url: str, tmp_path: Path) -> None:
    with open_door(database_url, tmp_path, dials=replace(QUICK, message_bytes=2000)) as door:
        car = with_token(door, door.car(1))
        inner = usual(car)
        with line_to(door) as line:
            line.write(inner)
            assert line.read()[0] == codes.OK
            line.write(request("/v1/poll", car.token, b" " * 2001 + inner)[: -len(inner)])
            assert line.read()[0] == codes.REQUEST_ENTITY_TOO_LARGE
            line.write(inner)
            line.write(usual(car))
            assert [line.read()[0]] == [codes.OK]
            line.socket.settimeout(0.2)
            try:
                assert line.ends()
            except TimeoutError:
                assert line.got == b"", "one answer for two: the first was the rest of a body"
        assert len(door.gate.telemetry.take()) == 2


def test_a_known_head_waits_behind_a_call_that_is_being_answered(door: Door, idle: TestedCar) -> None:
    door.open({7: (3, 3, 2)})
    door.offer((idle.id, 7))
    lease = idle.take()
    beating = request("/v1/beat", idle.token, msgspec.json.encode(beat(lease)))
    with line_to(door) as line:
        for _ in range(3):
            line.write(beating)
            line.write(usual(idle))
            line.write(beating)
            assert json.loads(line.read()[2])["go_on"]
            assert json.loads(line.read()[2])["lease"]["lease_id"] == lease.lease_id
            assert json.loads(line.read()[2])["go_on"]
