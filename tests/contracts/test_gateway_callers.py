"""Who may call a gateway: a car with its own key, an owner about own cars, and nobody else."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import msgspec
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from gateway_doors import QUICK, Door, TestedCar, open_door, wait_until
from gateway_words import beat, poll, release

from fleetbatch.car.identity import ASSERTION_LIFE, token_assertion
from fleetbatch.gateway.chores import take_voided
from fleetbatch.gateway.identity import token_key
from fleetbatch.ledger.messages import LeaseState
from fleetbatch.protocol import Lease
from fleetbatch.units import CellName, LeaseId, OwnerId

codes = httpx.codes


def lease_state(door: Door, lease: Lease) -> LeaseState | None:
    row = door.ledger.lease(LeaseId(lease.lease_id))
    return None if row is None else row.state


# -- nobody gets in


FOR_CARS = ("/v1/poll", "/v1/beat", "/v1/part", "/v1/part/confirm", "/v1/release")


def test_every_endpoint_wants_a_token_of_its_own_kind(door: Door, car: TestedCar) -> None:
    now = door.clock.now
    soon = now + timedelta(minutes=5)
    car.take()
    own, owner = car.token, door.owner_token(car.owner)
    elsewhere = token_key(bytes(range(32)), CellName("us-1"), "car").token(car.id, expires_at=soon)
    expired = door.gate.car_tokens.token(car.id, expires_at=now)
    wrong = ["x", "x" * 38, own[:-1], own[:-4] + "AAAA", elsewhere, expired]
    assert door.post("/v1/poll", {}).status_code == codes.UNAUTHORIZED
    assert door.post("/v1/consent", {}).status_code == codes.UNAUTHORIZED
    for path in FOR_CARS:
        for token in [*wrong, owner]:
            assert door.post(path, {}, token).status_code == codes.UNAUTHORIZED, (path, token)
        assert door.post(path, {}, own).status_code == codes.UNPROCESSABLE_ENTITY
    for token in [*wrong, own]:
        assert door.post("/v1/consent", {}, token).status_code == codes.UNAUTHORIZED
        bearer = {"authorization": f"Bearer {token}"}
        assert door.http.get(f"{door.url}/v1/statement", headers=bearer).status_code == codes.UNAUTHORIZED


def test_another_cars_lease_is_no_lease(door: Door, car: TestedCar) -> None:
    lease = car.take()
    thief = door.car(2)
    part = thief.part(lease, 0, 1, rows=3)
    for path, body in (("/v1/part", part), ("/v1/part/confirm", part), ("/v1/release", release(lease))):
        assert thief.say(path, body).status_code == codes.CONFLICT, path
    assert not thief.say("/v1/beat", beat(lease)).json()["go_on"]
    assert car.say("/v1/beat", beat(lease)).json()["go_on"]


IMPOSSIBLE = ("", "x", "2026-11-22-0000000000000007-1", "9999-99-99-zz-0", "é" * 100, "0001-01-01-7-99999999999999")


def test_an_impossible_lease_is_answered_like_any_other_that_is_not_there(car: TestedCar) -> None:
    held = car.take()
    for lease_id in IMPOSSIBLE:
        lease = msgspec.structs.replace(held, lease_id=lease_id)
        part = car.part(lease, 0, 1, rows=3)
        assert not car.say("/v1/beat", beat(lease)).json()["go_on"]
        for path, body in (("/v1/part", part), ("/v1/part/confirm", part), ("/v1/release", release(lease))):
            assert car.say(path, body).status_code == codes.CONFLICT, (path, lease_id)


def test_an_old_fence_is_answered_and_never_obeyed(door: Door, car: TestedCar) -> None:
    lease = car.take()
    old = msgspec.structs.replace(lease, fence=lease.fence - 1)
    assert not car.say("/v1/beat", beat(old)).json()["go_on"]
    assert car.say("/v1/release", release(old)).status_code == codes.CONFLICT
    assert lease_state(door, lease) is LeaseState.GRANTED


def test_a_revoked_car_buys_no_token_and_its_old_one_is_worth_nothing(door: Door, car: TestedCar) -> None:
    lease = car.take()
    part = car.part(lease, 0, 1, rows=3)
    car.upload(part)
    door.ledger.revoke_car(car.id, "stolen")
    door.run(take_voided(door.gate))
    door.offer((car.id, 7))
    assert car.buy_token().status_code == codes.UNAUTHORIZED
    for path, said in (("/v1/part/confirm", part), ("/v1/beat", beat(lease)), ("/v1/poll", poll())):
        assert car.say(path, said).status_code == codes.UNAUTHORIZED


def assertions(door: Door, car: TestedCar) -> dict[str, str]:
    """Return every wrong assertion that we can think of."""
    now, audience = door.clock.now, f"{door.url}/v1/token"
    name, at = car.identity.name, int(now.timestamp())
    good = {"iss": name, "sub": name, "aud": audience, "jti": "1", "exp": at + 60}

    def signed(key: Any = car.identity.key, algorithm: str = "ES256", **changes: Any) -> str:
        claims = {**good, **changes}
        return jwt.encode({k: v for k, v in claims.items() if v is not None}, key, algorithm=algorithm)

    stranger = ec.generate_private_key(ec.SECP256R1())
    return {
        "another key": signed(stranger),
        "another curve": signed(ec.generate_private_key(ec.SECP384R1()), "ES384"),
        "a shared secret": signed("secret" * 8, "HS256"),
        "no algorithm": signed("", "none"),
        "another audience": signed(aud="http://elsewhere/v1/token"),
        "another subject": signed(sub="0" * 16),
        "an unknown car": signed(iss="1" * 16, sub="1" * 16),
        "a strange name": signed(iss="0x00000000000001", sub="0x00000000000001"),
        "expired": signed(exp=at - 31),
        "too long a life": signed(exp=at + 331),
        "from the future": signed(iat=at + 31),
        "not yet": signed(nbf=at + 31),
        "no expiry": signed(exp=None),
        "no jti": signed(jti=None),
        "an empty jti": signed(jti=""),
        "a long jti": signed(jti="x" * 129),
        "rubbish": "a.b.c",
        "nothing": " ",
    }


def test_an_assertion_must_be_this_cars_fresh_and_for_this_gateway(door: Door, car: TestedCar) -> None:
    for what, assertion in assertions(door, car).items():
        assert car.buy_token(assertion).status_code == codes.UNAUTHORIZED, what
    slow = token_assertion(car.identity, audience=f"{door.url}/v1/token", now=door.clock.now - ASSERTION_LIFE)
    fast = token_assertion(car.identity, audience=f"{door.url}/v1/token", now=door.clock.now + timedelta(seconds=29))
    assert car.buy_token(slow).status_code == codes.OK
    assert car.buy_token(fast).status_code == codes.OK


def test_an_assertion_buys_one_token_only(door: Door, car: TestedCar) -> None:
    assertion = token_assertion(car.identity, audience=f"{door.url}/v1/token", now=door.clock.now)
    assert car.buy_token(assertion).json()["expires_in"] == 3600
    replayed = car.buy_token(assertion)
    assert (replayed.status_code, "used before" in replayed.text) == (codes.UNAUTHORIZED, True)
    door.clock.now += timedelta(minutes=5)
    assert car.buy_token(assertion).status_code == codes.UNAUTHORIZED


def test_a_token_form_that_lacks_a_field_is_refused(door: Door, car: TestedCar) -> None:
    for lost in car.form():
        form = {key: value for key, value in car.form().items() if key != lost}
        assert door.http.post(f"{door.url}/v1/token", data=form).status_code == codes.UNAUTHORIZED, lost
    assert door.post("/v1/token", b"").status_code == codes.UNAUTHORIZED
    assert door.post("/v1/token", b"\xff=1").status_code == codes.UNPROCESSABLE_ENTITY


NONSENSE = (
    ("/v1/poll", b"", 422),
    ("/v1/poll", b"[" * 60_000, 422),
    ("/v1/poll", b"\xff", 422),
    ("/v1/poll", msgspec.json.encode(poll(protocol=9)), 422),
    ("/v1/poll", msgspec.json.encode(poll(unwilling_reason="a\x00b")), 422),
    ("/v1/poll", b" " * 70_000, 413),
    ("/v1/release", b'{"lease_id":"x","fence":-1,"reason":"unplugged","energy_wh":0,"busy_s":0}', 422),
    ("/v1/nothing", b"", 404),
    ("/", b"", 404),
)


def test_nonsense_is_refused_as_a_problem(car: TestedCar) -> None:
    for path, body, status in NONSENSE:
        answer = car.say(path, body)
        assert answer.status_code == status, (path, body[:20])
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status


def test_the_wrong_method_is_told_the_right_one(door: Door) -> None:
    answer = door.http.get(f"{door.url}/v1/poll")
    assert (answer.status_code, answer.headers["allow"]) == (codes.METHOD_NOT_ALLOWED, "POST")


# -- owners


def consent(car: TestedCar, **changes: Any) -> dict[str, Any]:
    notice = hashlib.sha256(b"notice").hexdigest()
    said = {"car_id": car.identity.name, "purpose": "compute", "granted": False, "notice_version": "2"}
    return {**said, "notice_sha256": notice, **changes}


def test_withdrawn_consent_ends_the_lease_and_is_in_the_statement(door: Door, car: TestedCar) -> None:
    lease = car.take()
    token = door.owner_token(car.owner)
    assert door.post("/v1/consent", consent(car), token).status_code == codes.OK
    assert car.say("/v1/beat", beat(lease)).status_code == codes.UNAUTHORIZED
    car.token = ""
    answer = car.say("/v1/beat", beat(lease)).json()
    assert (answer["go_on"], "consent" in answer["reason"]) == (False, True)
    assert car.poll().lease is None
    bearer = {"authorization": f"Bearer {token}"}
    statement = door.http.get(f"{door.url}/v1/statement", params={"car": car.identity.name}, headers=bearer).json()
    told = [entry["granted"] for entry in statement["consents"] if entry["purpose"] == "compute"]
    assert told == [True, False]


def test_a_token_is_void_at_the_gateways_that_did_not_hear_the_withdrawal_themselves(
    door: Door, car: TestedCar
) -> None:
    car.poll()
    car.withdraw()
    door.run(take_voided(door.gate))
    assert car.say("/v1/poll", poll()).status_code == codes.UNAUTHORIZED
    car.token = ""
    assert car.poll().lease is None


@pytest.mark.parametrize("how", ["withdrawn", "revoked"])
def test_another_gateways_withdrawal_or_a_revocation_voids_a_token_at_once(
    database_url: str, tmp_path: Path, how: str
) -> None:
    """The gateway is told; its next look by itself would be in an hour."""
    with open_door(database_url, tmp_path, dials=replace(QUICK, look_every=timedelta(hours=1))) as door:
        car = door.car(1)
        assert car.say("/v1/poll", poll()).status_code == codes.OK
        if how == "withdrawn":
            car.withdraw()
        else:
            door.ledger.revoke_car(car.id, "stolen")
        assert wait_until(lambda: car.say("/v1/poll", poll()).status_code == codes.UNAUTHORIZED)


def test_what_is_announced_while_the_listening_connection_is_lost_is_looked_for_once_there_is_another(
    database_url: str, tmp_path: Path
) -> None:
    """The next look by itself would be in an hour."""
    with (
        open_door(database_url, tmp_path, dials=replace(QUICK, look_every=timedelta(hours=1))) as door,
        psycopg.connect(database_url, autocommit=True) as server,
    ):
        car = door.car(1)
        assert car.say("/v1/poll", poll()).status_code == codes.OK
        listeners = "pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        assert server.execute(f"SELECT pg_terminate_backend(pid) FROM {listeners}").fetchall() == [(True,)]
        car.withdraw()
        assert wait_until(lambda: car.say("/v1/poll", poll()).status_code == codes.UNAUTHORIZED)


def test_another_owners_withdrawal_leaves_a_token_alone(door: Door, car: TestedCar) -> None:
    other = door.car(2)
    for one in (car, other):
        one.poll()
    other.withdraw()
    door.run(take_voided(door.gate))
    assert car.poll().lease is not None


def test_an_owner_speaks_for_no_other_owners_car(door: Door, car: TestedCar) -> None:
    token = door.owner_token(OwnerId(99))
    bearer = {"authorization": f"Bearer {token}"}
    assert door.post("/v1/consent", consent(car), token).status_code == codes.FORBIDDEN
    for name in (car.identity.name, "1" * 16, "", "zz"):
        answer = door.http.get(f"{door.url}/v1/statement", params={"car": name}, headers=bearer)
        assert answer.status_code == codes.FORBIDDEN


def test_a_query_of_very_many_fields_is_refused(door: Door, car: TestedCar) -> None:
    bearer = {"authorization": f"Bearer {door.owner_token(car.owner)}"}
    for path in ("/v1/statement", "/store/nights/x"):
        answer = door.http.get(f"{door.url}{path}", params={f"f{n}": "0" for n in range(200)}, headers=bearer)
        assert answer.status_code == codes.UNPROCESSABLE_ENTITY, path
        assert "more than 16 fields" in answer.json()["detail"]
