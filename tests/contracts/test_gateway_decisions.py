"""What a gateway says to an owner who decides too much, or about nothing, and what it keeps of that."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from gateway_doors import QUICK, Door, TestedCar, open_door, wait_until
from gateway_words import poll
from httpx import codes
from ledger_nights import digest, no

from fleetbatch.ledger.dials import LedgerDials

A_DAY = LedgerDials().decisions_a_day


def say(door: Door, car: TestedCar, *, granted: bool, purpose: str = "compute", version: str = "1") -> httpx.Response:
    said: dict[str, Any] = {"car_id": car.identity.name, "purpose": purpose, "granted": granted}
    said |= {"notice_version": version, "notice_sha256": digest("notice")}
    return door.post("/v1/consent", said, door.owner_token(car.owner))


def test_a_decision_that_changes_nothing_is_answered_with_the_one_that_stands(door: Door, car: TestedCar) -> None:
    [standing] = [one for one in door.ledger.consents(car.id) if one.change.purpose == "compute"]
    answer = say(door, car, granted=True)
    assert answer.status_code == codes.OK
    assert (answer.json()["number"], answer.json()["sha256"]) == (1, standing.sha256)
    withdrawn = say(door, car, granted=False).json()
    assert withdrawn["number"] == 2
    assert say(door, car, granted=False, version="2").json() == withdrawn


def test_a_purpose_that_nothing_is_done_for_is_refused_by_name(door: Door, car: TestedCar) -> None:
    for granted in (True, False):
        answer = say(door, car, granted=granted, purpose="data:faces")
        told = answer.status_code, answer.json()["type"]
        assert told == (codes.UNPROCESSABLE_ENTITY, "urn:fleetbatch:unknown-purpose")
        assert "'data:faces'" in answer.json()["detail"]
    assert {one.change.purpose for one in door.ledger.consents(car.id)} == {"compute", "telemetry"}


def test_who_decides_too_often_in_a_day_is_told_when_to_come_again_and_may_withdraw_at_once(
    door: Door, car: TestedCar
) -> None:
    car.poll()
    for version in range(2, A_DAY):
        assert say(door, car, granted=True, version=str(version)).status_code == codes.OK
    answer = say(door, car, granted=True, version="again")
    assert (answer.status_code, answer.headers["retry-after"]) == (codes.TOO_MANY_REQUESTS, "86400")
    assert "a withdrawal is heard at any time" in answer.json()["detail"]
    assert say(door, car, granted=False).status_code == codes.OK
    assert car.say("/v1/poll", poll()).status_code == codes.UNAUTHORIZED
    assert say(door, car, granted=True).status_code == codes.TOO_MANY_REQUESTS
    door.pass_time(hours=24)
    assert say(door, car, granted=True).status_code == codes.OK


def test_an_old_no_said_again_brings_no_newer_void_token_back_to_life(database_url: str, tmp_path: Path) -> None:
    """Another gateway heard the newer one; the next look by itself would be in an hour."""
    with open_door(database_url, tmp_path, dials=replace(QUICK, look_every=timedelta(hours=1))) as door:
        car = door.car(1)
        assert say(door, car, granted=False).status_code == codes.OK
        door.pass_time(minutes=2)
        assert car.say("/v1/poll", poll()).status_code == codes.OK
        door.ledger.set_consent(no(car.id, "telemetry"))
        assert wait_until(lambda: car.say("/v1/poll", poll()).status_code == codes.UNAUTHORIZED)
        assert say(door, car, granted=False).status_code == codes.OK
        assert car.say("/v1/poll", poll()).status_code == codes.UNAUTHORIZED
