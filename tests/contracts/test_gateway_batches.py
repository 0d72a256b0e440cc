"""What one car says spoils nothing that others said in the same moment, on a real database."""

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from gateway_doors import Door
from httpx import codes
from ledger_nights import part, request

from fleetbatch.gateway.admission import refusal
from fleetbatch.gateway.arrivals import Arrived, Upload
from fleetbatch.gateway.driving import driven
from fleetbatch.gateway.identity import Assertion
from fleetbatch.ledger.messages import Beat, Delivered, Delivery, Granted, Release, Released
from fleetbatch.units import CarId, Sha256

NUL = "no text of the database holds this: \0"
SHARDS: dict[int, tuple[int, ...]] = dict.fromkeys(range(1, 8), (3, 4, 5))


def together(door: Door, batcher: Any, questions: list[Any]) -> list[Any]:
    """Ask all in one moment, so that they share a call."""

    async def ask(question: Any) -> Any:
        return await batcher.ask(question)

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*(driven(ask(one)) for one in questions), return_exceptions=True)

    answers: list[Any] = door.run(ask_all())
    return answers


def leases(door: Door, count: int = 5) -> list[Granted]:
    door.open(SHARDS)
    cars = [door.car(number).id for number in range(1, count + 1)]
    granted = door.ledger.grant([request(car, shard) for shard, car in enumerate(cars, start=1)])
    assert all(isinstance(one, Granted) for one in granted)
    return [one for one in granted if isinstance(one, Granted)]


def spoiled(door: Door, batcher: Any, questions: list[Any], poison: Any) -> list[Any]:
    """Ask with a poisonous one in the middle; return what the others heard, once that one has heard of its error."""
    answers = together(door, batcher, [*questions[:2], poison, *questions[2:]])
    error = answers.pop(2)
    assert isinstance(error, psycopg.DataError)
    assert refusal(door.gate, "/v1/part/confirm", error).status == codes.INTERNAL_SERVER_ERROR
    return answers


def arrived(door: Door, parts: list[Delivery]) -> list[Arrived]:
    """Return the parts as they are confirmed, each with bytes in the store."""
    content, uploads = b"answers", [f"parts/{n}" for n in range(len(parts))]
    for key in uploads:
        door.gate.store.write(key, content)
    sha256 = Sha256(hashlib.sha256(content).hexdigest())
    return [
        Arrived(Upload(key=key, size=len(content), sha256=sha256), one) for key, one in zip(uploads, parts, strict=True)
    ]


def test_a_part_that_the_ledger_cannot_hold_costs_no_other_car_its_own(door: Door) -> None:
    held = leases(door)
    parts = [part(lease, 0, 1, 3) for lease in held]
    said = arrived(door, [*parts[:4], replace(parts[4], signature=NUL)])
    answers = spoiled(door, door.gate.arrivals, said[:4], said[4])
    assert answers == [Delivered(done_through=1, complete=False)] * 4
    assert together(door, door.gate.arrivals, said[:1]) == [Delivered(done_through=1, complete=False)]
    [untouched] = door.ledger.leases([held[4].lease_id])
    assert untouched is not None
    assert untouched.done_through == 0


def test_a_release_that_the_ledger_cannot_hold_keeps_no_other_car(door: Door) -> None:
    words = [
        Release(
            car_id=one.car_id,
            lease_id=one.lease_id,
            fence=one.fence,
            reason="unplugged",
            detail="",
            energy_wh=1.0,
            busy_s=1.0,
        )
        for one in leases(door)
    ]
    answers = spoiled(door, door.gate.releases, words[:4], replace(words[4], detail=NUL))
    assert answers == [Released(done_through=0)] * 4


def test_a_beat_that_the_ledger_cannot_hold_stops_no_other_lease(door: Door) -> None:
    words = [
        Beat(car_id=one.car_id, lease_id=one.lease_id, fence=one.fence, row_groups_done=1, energy_wh=1.0, busy_s=1.0)
        for one in leases(door)
    ]
    answers = spoiled(door, door.gate.beats, words[:4], replace(words[4], row_groups_done=1 << 20))
    assert [answer.go_on for answer in answers] == [True] * 4


def test_a_poll_that_the_ledger_cannot_hold_keeps_no_other_car_from_its_offer(door: Door) -> None:
    door.open(SHARDS)
    asks = [request(door.car(number).id, number) for number in range(1, 6)]
    answers = spoiled(door, door.gate.grants, asks[:4], replace(asks[4], runner_version=NUL))
    assert [answer.shard_id for answer in answers] == [1, 2, 3, 4]
    assert door.ledger.open_shards().num_rows == len(SHARDS)


def test_a_name_that_no_car_can_have_hides_no_other_cars_key(door: Door) -> None:
    cars = [door.car(number).id for number in range(1, 5)]
    answers = spoiled(door, door.gate.keys, list(cars), CarId(1 << 70))
    assert [answer.car_id for answer in answers] == cars


def test_an_assertion_that_the_ledger_cannot_hold_takes_no_others_first_use(door: Door) -> None:
    said = [Assertion(car_id=door.car(number).id, jti="once", until=door.clock.now) for number in range(1, 6)]
    answers = spoiled(door, door.gate.first_uses, said[:4], replace(said[4], jti=NUL))
    assert answers == [True] * 4
    assert together(door, door.gate.first_uses, said) == [False, False, False, False, True]


@pytest.mark.parametrize("bad", [1, 4])
def test_of_many_that_cannot_be_held_each_hears_its_own_and_all_others_are_heard(door: Door, bad: int) -> None:
    parts = [part(lease, 0, 1, 3) for lease in leases(door)]
    words = [replace(one, signature=NUL) if n < bad else one for n, one in enumerate(parts)]
    answers = together(door, door.gate.arrivals, arrived(door, words))
    assert [type(answer) for answer in answers[:bad]] == [psycopg.DataError] * bad
    assert answers[bad:] == [Delivered(done_through=1, complete=False)] * (5 - bad)
