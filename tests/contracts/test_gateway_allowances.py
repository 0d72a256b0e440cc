"""What one caller may ask in a while, and that nobody can use up another's share by saying its name."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from gateway_doors import QUICK, Door, TestedCar, open_door
from gateway_words import beat, poll
from ledger_nights import digest

from fleetbatch.car.identity import token_assertion
from fleetbatch.protocol import BeatReply, BeatRequest
from fleetbatch.runner.client import GatewayClient, open_http
from fleetbatch.units import OwnerId

codes = httpx.codes
TRIES = 3
SMALL = replace(
    QUICK,
    failures_per_window=TRIES,
    tokens_per_window=TRIES,
    owner_requests_per_window=TRIES,
    refusals_per_window=TRIES,
    failing_heard=0.05,
)


@pytest.fixture
def small(database_url: str, tmp_path: Path) -> Iterator[Door]:
    """A gateway of small allowances, whose chance looks at nobody who is over one."""
    with open_door(database_url, tmp_path, dials=SMALL) as door:
        door.gate.chance = lambda: 0.5
        yield door


def forge(door: Door, victim: TestedCar, *, at: str = "") -> httpx.Response:
    """Say that one is a car, without its key."""
    stranger = door.car(99)
    liar = TestedCar(door=door, identity=replace(stranger.identity, car_id=victim.id), owner=victim.owner)
    return buy(liar, at=at)


def buy(car: TestedCar, assertion: str | None = None, *, at: str = "") -> httpx.Response:
    """Buy a token from an address: what a proxy says is believed, and here everybody is one."""
    headers = {"x-forwarded-for": at} if at else {}
    return car.door.http.post(f"{car.door.url}/v1/token", data=car.form(assertion), headers=headers)


def is_told_when_to_come_again(answer: httpx.Response) -> bool:
    """The whole of a refusal for asking too often (RFC 6585, section 4)."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:fleetbatch:too-many-requests"
    assert 1 <= int(answer.headers["retry-after"]) <= 10
    return answer.status_code == codes.TOO_MANY_REQUESTS


def test_a_stranger_who_claims_a_cars_id_is_refused_soon_and_the_car_is_not(small: Door) -> None:
    car = small.car(1)
    for _ in range(TRIES):
        assert forge(small, car, at="192.0.2.1").status_code == codes.UNAUTHORIZED
    assert is_told_when_to_come_again(forge(small, car, at="192.0.2.1"))
    assert buy(car, at="198.51.100.7").status_code == codes.OK


def test_a_subscriber_has_one_allowance_for_all_addresses_of_a_network(small: Door) -> None:
    car = small.car(1)
    for n in range(TRIES):
        assert forge(small, car, at=f"2001:db8:1:2::{n}").status_code == codes.UNAUTHORIZED
    assert is_told_when_to_come_again(forge(small, car, at="2001:db8:1:2:ffff::1"))
    assert buy(car, at="2001:db8:1:3::1").status_code == codes.OK


def test_an_honest_car_that_shares_a_hostile_address_waits_and_gets_in(small: Door) -> None:
    car = small.car(1)
    for _ in range(TRIES):
        forge(small, car)
    assert is_told_when_to_come_again(buy(car))
    small.gate.chance = lambda: 0.04
    assert buy(car).status_code == codes.OK, "one of twenty is looked at, whatever the others did"
    small.gate.chance = lambda: 0.5
    assert is_told_when_to_come_again(buy(car))
    small.clock.now += timedelta(seconds=10)
    assert buy(car).status_code == codes.OK


def test_cars_that_prove_who_they_are_use_up_nothing_of_their_address(small: Door) -> None:
    for number in range(1, 3 * TRIES):
        assert buy(small.car(number)).status_code == codes.OK


def test_a_car_that_buys_token_after_token_is_told_so_and_those_beside_it_are_not(small: Door) -> None:
    greedy, other = small.car(1), small.car(2)
    assert [buy(greedy).status_code for _ in range(TRIES)] == [codes.OK] * TRIES
    assert is_told_when_to_come_again(buy(greedy))
    assert buy(other).status_code == codes.OK
    small.clock.now += timedelta(seconds=10)
    assert buy(greedy).status_code == codes.OK


def test_whoever_replays_a_cars_assertion_uses_up_none_of_its_tokens(small: Door) -> None:
    car = small.car(1)
    assertion = token_assertion(car.identity, audience=f"{small.url}/v1/token", now=small.clock.now)
    assert buy(car, assertion, at="192.0.2.1").status_code == codes.OK
    for n in range(2 * TRIES):
        assert buy(car, assertion, at=f"192.0.2.{n}").status_code == codes.UNAUTHORIZED
    assert [buy(car, at="198.51.100.7").status_code for _ in range(TRIES - 1)] == [codes.OK] * (TRIES - 1)


# -- refusals


def test_a_car_that_refuses_lease_after_lease_is_offered_nothing_for_a_while(small: Door) -> None:
    car, other = small.car(1), small.car(2)
    shards = range(7, 7 + TRIES + 1)
    small.open(dict.fromkeys(shards, (3,)))
    small.offer(*((car.id, shard) for shard in shards), (other.id, shards[-1]))
    for _ in range(TRIES):
        assert car.release(car.take(), "refused").is_success
    assert car.poll().lease is None
    assert other.release(other.take()).is_success
    small.clock.now += SMALL.refusals_window
    small.gate.ledger.turn_clock(small.clock.now)
    assert car.poll().lease is not None


def test_a_refusal_that_is_said_again_because_its_answer_was_lost_counts_once(small: Door) -> None:
    car, shards = small.car(1), range(7, 9)
    small.open(dict.fromkeys(shards, (3,)))
    small.offer(*((car.id, shard) for shard in shards))
    lease = car.take()
    for _ in range(TRIES):
        assert car.release(lease, "refused").is_success
    assert car.poll().lease is not None


# -- owners


def statement(door: Door, car: TestedCar, owner: OwnerId) -> httpx.Response:
    headers = {"authorization": f"Bearer {door.owner_token(owner)}"}
    return door.http.get(f"{door.url}/v1/statement", params={"car": car.identity.name}, headers=headers)


def consent(door: Door, car: TestedCar, owner: OwnerId, *, granted: bool = False) -> httpx.Response:
    said: dict[str, Any] = {"car_id": car.identity.name, "purpose": "compute", "granted": granted}
    said |= {"notice_version": "1", "notice_sha256": digest("notice")}
    return door.post("/v1/consent", said, door.owner_token(owner))


def test_an_owner_who_asks_too_often_is_told_so_and_no_other_owner_nor_any_car_is(small: Door) -> None:
    car, other = small.car(1), small.car(2)
    for _ in range(TRIES):
        assert statement(small, car, OwnerId(99)).status_code == codes.FORBIDDEN, "a stranger spends its own"
    assert is_told_when_to_come_again(statement(small, car, OwnerId(99)))
    assert [statement(small, car, car.owner).status_code for _ in range(TRIES)] == [codes.OK] * TRIES
    assert is_told_when_to_come_again(consent(small, car, car.owner))
    assert consent(small, other, other.owner).status_code == codes.OK
    assert car.poll().lease is None
    small.clock.now += timedelta(seconds=10)
    assert consent(small, car, car.owner).status_code == codes.OK


def test_a_gateway_that_is_behind_sheds_those_who_read_and_hears_a_withdrawal(
    database_url: str, tmp_path: Path
) -> None:
    with open_door(database_url, tmp_path, dials=replace(QUICK, in_flight_max=0)) as door:
        car = door.car(1)
        answer = statement(door, car, car.owner)
        assert (answer.status_code, answer.json()["type"]) == (codes.SERVICE_UNAVAILABLE, "urn:fleetbatch:come-back")
        assert int(answer.headers["retry-after"]) >= 1
        assert consent(door, car, car.owner).status_code == codes.OK


def test_owners_at_once_are_bounded_by_kind_so_that_cars_find_a_thread(small: Door) -> None:
    car, reading = small.car(1), small.gate.metrics.owners_under_way
    reading["/v1/statement"] = SMALL.owner_calls_max
    assert consent(small, car, car.owner, granted=True).status_code == codes.OK
    reading["/v1/consent"] = SMALL.owner_calls_max
    for answer in (statement(small, car, car.owner), consent(small, car, car.owner)):
        assert answer.status_code == codes.SERVICE_UNAVAILABLE
        assert 2 <= int(answer.headers["retry-after"]) <= 4
    assert car.say("/v1/poll", poll()).status_code == codes.OK
    reading.clear()
    for owner in (OwnerId(99), car.owner):
        statement(small, car, owner)
    assert reading.total() == 0, "a place is free again after an answer and after a refusal"


def test_what_is_said_of_tokens_and_owners_is_kept_by_no_cache(small: Door) -> None:
    car = small.car(1)
    for answer in (buy(car), statement(small, car, car.owner), consent(small, car, car.owner)):
        assert (answer.status_code, answer.headers["cache-control"]) == (codes.OK, "no-store")


# -- the car


def test_a_car_whose_renewal_must_wait_goes_on_with_the_token_that_it_has(small: Door) -> None:
    car = small.car(1)
    small.open({7: (3,)})
    small.offer((car.id, 7))
    with open_http() as http:
        client = GatewayClient(small.url, car.identity, http, clock=lambda: small.clock.now)
        lease = car.take()
        said = beat(lease)
        assert car.say("/v1/beat", said).json()["go_on"]
        assert _beats(client, said)
        small.clock.now += timedelta(minutes=51)
        small.gate.ledger.turn_clock(small.clock.now)
        used_up = [buy(car).status_code for _ in range(TRIES + 1)]
        assert used_up[-1] == codes.TOO_MANY_REQUESTS
        before = _sold(small)
        assert _beats(client, said)
        assert _sold(small) == before
        small.clock.now += timedelta(seconds=10)
        assert _beats(client, said)
        assert _sold(small) == before + 1


def _beats(client: GatewayClient, said: dict[str, Any]) -> bool:
    """Whether the gateway heard a beat, whatever it thinks of the lease."""
    return isinstance(client.beat(msgspec.convert(said, BeatRequest)), BeatReply)


def _sold(door: Door) -> int:
    return door.gate.metrics.answers["/v1/token", codes.OK]
