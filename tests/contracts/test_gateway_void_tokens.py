"""A token ends with the consent that it was sold under, whatever a clock says and whenever the withdrawal commits."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count

import httpx
import psycopg
import pytest
from gateway_doors import Door, TestedCar, wait_until
from gateway_words import poll
from ledger_nights import no

from fleetbatch.gateway.chores import take_voided
from fleetbatch.ledger.messages import ConsentRecord

codes = httpx.codes
AHEAD = timedelta(seconds=29)


def withdraw(door: Door, car: TestedCar, purpose: str, *, behind: timedelta = timedelta()) -> None:
    """Withdraw at a database whose clock is behind, and let the gateway hear of it."""
    for ledger in (door.ledger, door.gate.ledger):
        ledger.turn_clock(door.clock.now - behind)
    assert isinstance(door.ledger.set_consent(no(car.id, purpose)), ConsentRecord)
    door.run(take_voided(door.gate))


def withdraw_telemetry(door: Door, car: TestedCar, *, behind: timedelta = timedelta()) -> None:
    withdraw(door, car, "telemetry", behind=behind)


def polls(door: Door, token: str) -> int:
    return door.post("/v1/poll", poll(), token).status_code


def test_a_withdrawal_voids_older_tokens_though_the_gateways_clock_is_ahead(door: Door, car: TestedCar) -> None:
    token = car.buy_token().json()["access_token"]
    assert polls(door, token) == codes.OK
    withdraw_telemetry(door, car, behind=AHEAD)
    assert polls(door, token) == codes.UNAUTHORIZED


def test_a_token_that_is_bought_after_a_withdrawal_is_good_whether_the_seller_heard_of_it_or_not(
    door: Door, car: TestedCar
) -> None:
    """One gateway may have heard when another, which sells, has not: the car would buy again and again."""
    for behind in (AHEAD, timedelta(), -AHEAD):
        withdraw_telemetry(door, car, behind=behind)
        door.gate.void_until = {}
        token = car.buy_token().json()["access_token"]
        door.run(take_voided(door.gate))
        assert car.id in door.gate.void_until
        assert polls(door, token) == codes.OK
        bearer = door.gate.car_tokens.bearer(token.encode(), now=door.clock.now)
        assert bearer is not None
        assert not bearer.telemetry
        door.clock.now += timedelta(minutes=5)


def test_a_withdrawal_that_commits_while_a_token_is_sold_voids_it(
    door: Door, car: TestedCar, database_url: str
) -> None:
    """The car was looked at, and the sale waits for the ledger."""
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'fleetbatch.used_assertions'::regclass"
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as aside:
        other.execute("LOCK TABLE fleetbatch.used_assertions IN ACCESS EXCLUSIVE MODE")
        sale = aside.submit(car.buy_token)
        assert wait_until(lambda: other.execute(waits).fetchone() == (1,))
        withdraw_telemetry(door, car)
        other.commit()
        token = sale.result(10).json()["access_token"]
    assert polls(door, token) == codes.UNAUTHORIZED


@pytest.mark.parametrize("then", ["withdrawn", "revoked"])
def test_what_is_taken_back_right_after_a_withdrawal_voids_a_token_that_was_sold_between_the_two(
    door: Door, car: TestedCar, then: str
) -> None:
    """Whoever withdraws all says one purpose after the other, and a car that is told 401 buys a token at once."""
    for purpose in ("compute", "data:personal"):
        withdraw(door, car, purpose)
        door.clock.now += timedelta(milliseconds=100)
    token = car.buy_token().json()["access_token"]
    assert polls(door, token) == codes.OK
    door.clock.now += timedelta(milliseconds=100)
    if then == "revoked":
        door.ledger.turn_clock(door.clock.now)
        door.ledger.revoke_car(car.id, "copied")
        door.run(take_voided(door.gate))
    else:
        withdraw(door, car, "telemetry")
        assert polls(door, car.buy_token().json()["access_token"]) == codes.OK
    assert polls(door, token) == codes.UNAUTHORIZED


def test_a_token_lives_from_before_its_car_was_looked_at(door: Door, car: TestedCar) -> None:
    began, looks = door.clock.now, count()
    door.gate.clock = lambda: began + timedelta(seconds=next(looks))
    token = car.buy_token().json()["access_token"].encode()
    seen_at = door.gate.cars[car.id].known_at
    ends_by = seen_at + door.gate.dials.token_for - timedelta(seconds=1)
    assert door.gate.car_tokens.bearer(token, now=ends_by - timedelta(minutes=1)) is not None
    assert door.gate.car_tokens.bearer(token, now=ends_by) is None
