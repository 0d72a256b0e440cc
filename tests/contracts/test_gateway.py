"""What a cell's gateway promises over HTTP: a lease lives, every answer repeats, and nobody gets in."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import msgspec
import psycopg
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from gateway_doors import (
    BUNDLE,
    QUICK,
    SECRET,
    Door,
    TestedCar,
    beat,
    open_door,
    poll,
    release,
    shard_bytes,
    wait_until,
)
from ledger_nights import frozen_order

from fleetbatch import layout
from fleetbatch.car.identity import ASSERTION_LIFE, Identity, make_key, open_identity, sign, token_assertion
from fleetbatch.contracts import conform
from fleetbatch.gateway.chores import flush, take_voided
from fleetbatch.gateway.identity import token_key
from fleetbatch.ledger.messages import LeaseState
from fleetbatch.protocol import Lease, PartRequest, part_claim
from fleetbatch.sealing import shard_key
from fleetbatch.units import CellName, LeaseId, OwnerId, Sha256, ShardId

codes = httpx.codes
ORDER = frozen_order().key


@pytest.fixture
def door(database_url: str, tmp_path: Path) -> Iterator[Door]:
    with open_door(database_url, tmp_path) as door:
        yield door


@pytest.fixture
def car(door: Door) -> TestedCar:
    """A car that was offered shard 7, with row groups of 3, 3 and 2 rows."""
    car = door.car()
    door.open({7: (3, 3, 2)})
    door.offer((car.id, 7))
    return car


def lease_state(door: Door, lease: Lease) -> LeaseState | None:
    row = door.ledger.lease(LeaseId(lease.lease_id))
    return None if row is None else row.state


# -- the life of a lease


def test_a_lease_lives_from_poll_to_the_last_part(door: Door, car: TestedCar) -> None:
    lease = car.take()
    assert (lease.start, lease.row_groups, lease.workload) == (0, 3, "image")
    assert lease.shard_key == _base64(shard_key(SECRET, ShardId(7)))
    assert door.http.get(lease.model_url).content == BUNDLE
    assert len(BUNDLE) == lease.model_bytes
    piece = door.http.get(lease.shard_url, headers={"Range": "bytes=100-199"})
    assert (piece.status_code, piece.content) == (codes.PARTIAL_CONTENT, shard_bytes(7, 3)[100:200])

    first = car.deliver(car.part(lease, 0, 2, rows=6))
    assert (first.done_through, first.complete) == (2, False)
    assert car.say("/v1/beat", beat(lease, 2)).json()["go_on"]
    last = car.deliver(car.part(lease, 2, 3, rows=2))
    assert (last.done_through, last.complete) == (3, True)
    assert lease_state(door, lease) is LeaseState.DONE
    assert car.poll().lease is None


def test_whoever_comes_next_starts_where_the_last_one_stopped(door: Door, car: TestedCar) -> None:
    lease = car.take()
    car.deliver(car.part(lease, 0, 1, rows=3))
    assert car.release(lease).json() == {"done_through": 1}
    other = door.car(2)
    door.offer((other.id, 7))
    assert other.take().start == 1


def test_a_poll_whose_answer_was_lost_gets_the_same_lease_again(car: TestedCar) -> None:
    first = car.take()
    again = car.take()
    assert (again.lease_id, again.fence, again.start) == (first.lease_id, first.fence, 0)


def test_a_car_whose_offer_was_taken_tries_its_next(door: Door) -> None:
    quick, slow = door.car(1), door.car(2)
    door.open({7: (3,), 8: (3,), 9: (3,)})
    door.offer((quick.id, 7), (slow.id, 7), (slow.id, 8))
    quick.take()
    assert slow.take().shard_id == f"{8:016x}"


def test_a_released_shard_is_offered_again_in_the_same_round(door: Door) -> None:
    one, other = door.car(1), door.car(2)
    door.open({7: (3,)})
    door.offer((one.id, 7), (other.id, 7))
    lease = one.take()
    one.release(lease)
    assert other.take().shard_id == lease.shard_id


def test_an_unwilling_car_gets_no_lease_and_a_time_to_come_back(car: TestedCar) -> None:
    answer = car.poll(willing=False, unwilling_reason="too_hot")
    assert answer.lease is None
    assert 0.8 <= answer.retry_after_s <= 1.2


# -- the same answer for ever


def test_a_repeated_confirm_gets_the_same_answer(door: Door, car: TestedCar) -> None:
    lease = car.take()
    part = car.part(lease, 0, 3, rows=8)
    first = car.deliver(part)
    assert first.complete
    for _ in range(2):
        again = car.say("/v1/part/confirm", part)
        assert (again.status_code, again.json()) == (codes.OK, msgspec.to_builtins(first))
    assert car.say("/v1/part", part).json()["already"]
    door.pass_time(hours=1)
    assert car.buy_token().status_code == codes.OK


def test_a_late_part_is_refused_and_stays_refused(door: Door, car: TestedCar) -> None:
    lease = car.take()
    early, late = car.part(lease, 0, 1, rows=3), car.part(lease, 1, 2, rows=3)
    car.deliver(early)
    car.upload(late)
    door.pass_time(minutes=11)
    assert lease_state(door, lease) is LeaseState.EXPIRED
    for path in ("/v1/part", "/v1/part/confirm", "/v1/part/confirm"):
        answer = car.say(path, late)
        assert answer.status_code == codes.CONFLICT, answer.text
        assert "expired" in answer.json()["detail"]
    assert car.say("/v1/part/confirm", early).status_code == codes.OK
    answer = car.say("/v1/beat", beat(lease))
    assert (answer.json()["go_on"], "expired" in answer.json()["reason"]) == (False, True)
    assert car.release(lease).status_code == codes.CONFLICT


def test_a_repeated_release_gets_the_same_answer(car: TestedCar) -> None:
    lease = car.take()
    assert car.release(lease).json() == car.release(lease).json() == {"done_through": 0}


def test_a_late_confirm_without_an_upload_hears_that_the_lease_is_over(door: Door, car: TestedCar) -> None:
    lease = car.take()
    car.release(lease)
    assert car.say("/v1/part/confirm", car.part(lease, 0, 1, rows=3)).status_code == codes.CONFLICT
    assert door.gate.held == {}


# -- what lies in the store is checked


def key_of(part: PartRequest) -> str:
    """Where a part of shard 7 lies."""
    return layout.part(ORDER, ShardId(7), LeaseId(part.lease_id), part.start, part.stop, Sha256(part.sha256))


def test_a_damaged_upload_is_refused_and_removed(door: Door, car: TestedCar) -> None:
    lease = car.take()
    part = car.part(lease, 0, 1, rows=3)
    key = key_of(part)
    door.store.create(key, b"ANSWERS")
    answer = car.say("/v1/part/confirm", part)
    assert (answer.status_code, answer.json()["type"]) == (codes.UNPROCESSABLE_ENTITY, "urn:fleetbatch:part-damaged")
    assert door.store.size(key) is None
    assert car.deliver(part).done_through == 1


def test_other_bytes_under_the_key_are_replaced_when_the_part_is_announced_again(door: Door, car: TestedCar) -> None:
    lease = car.take()
    part = car.part(lease, 0, 1, rows=3)
    key = key_of(part)
    door.store.create(key, b"ANSWERS")
    assert car.deliver(part).done_through == 1
    assert door.store.read(key) == b"answers"


def test_a_lie_about_an_acknowledged_part_does_not_remove_it(door: Door, car: TestedCar) -> None:
    lease = car.take()
    truth = car.part(lease, 0, 1, rows=3)
    car.deliver(truth)
    lie = car.part(lease, 0, 1, rows=3, content=b"others!")
    assert car.say("/v1/part", lie).json()["already"]
    assert car.say("/v1/part/confirm", lie).status_code == codes.UNPROCESSABLE_ENTITY
    assert door.store.read(key_of(truth)) == b"answers"


def test_a_part_that_was_never_uploaded_does_not_count(car: TestedCar) -> None:
    lease = car.take()
    answer = car.say("/v1/part/confirm", car.part(lease, 0, 1, rows=3))
    assert (answer.status_code, answer.json()["title"]) == (codes.UNPROCESSABLE_ENTITY, "part not uploaded")


MISFITS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("wrong-shard", {"shard_id": f"{8:016x}"}),
    ("wrong-range", {"start": 2, "stop": 2, "rows": 0}),
    ("wrong-range", {"stop": 4}),
    ("wrong-rows", {"rows": 4}),
    ("wrong-size", {"bytes": 0}),
    ("wrong-size", {"bytes": 1 << 40}),
)


def test_a_part_that_cannot_be_is_refused_before_it_is_sent(car: TestedCar) -> None:
    part = car.part(car.take(), 0, 1, rows=3)
    for kind, change in MISFITS:
        answer = car.say("/v1/part", msgspec.structs.replace(part, **change))
        wanted = (codes.UNPROCESSABLE_ENTITY, f"urn:fleetbatch:{kind}")
        assert (answer.status_code, answer.json()["type"]) == wanted, change


def test_a_part_that_leaves_a_gap_is_refused_and_changes_nothing(car: TestedCar) -> None:
    lease = car.take()
    gap = car.part(lease, 1, 2, rows=3)
    car.upload(gap)
    assert car.say("/v1/part/confirm", gap).status_code == codes.UNPROCESSABLE_ENTITY
    assert car.deliver(car.part(lease, 0, 1, rows=3)).done_through == 1
    assert car.say("/v1/part/confirm", gap).json()["done_through"] == 2


def test_the_signature_is_checked_and_kept(car: TestedCar, database_url: str) -> None:
    lease = car.take()
    part = car.part(lease, 0, 1, rows=3)
    car.upload(part)
    stranger = open_identity(make_key())
    forged = [replace_signature(part, stranger), msgspec.structs.replace(part, signature="AAAA"), _unsigned(part)]
    for lie in forged:
        answer = car.say("/v1/part/confirm", lie)
        assert answer.json()["type"] == "urn:fleetbatch:wrong-signature"
    car.say("/v1/part/confirm", part).raise_for_status()
    with psycopg.connect(database_url) as connection:
        kept = connection.execute("SELECT signature FROM fleetbatch.parts").fetchall()
    assert kept == [(part.signature,)]


# -- signed URLs of the folder


def test_a_forged_or_expired_url_opens_nothing(door: Door, car: TestedCar) -> None:
    lease = car.take()
    url = httpx.URL(lease.shard_url)
    later = url.copy_set_param("expires", "9999999999")
    other = httpx.URL(lease.model_url).copy_with(query=url.query)
    cut = url.copy_with(query=b"")
    for forged in (later, other, cut, url.copy_set_param("signature", "0" * 64)):
        answer = door.http.get(forged)
        assert (answer.status_code, answer.json()["title"]) == (codes.FORBIDDEN, "url forged")
    assert door.http.put(url, content=b"x").status_code == codes.FORBIDDEN
    assert door.http.delete(url).status_code == codes.METHOD_NOT_ALLOWED
    door.clock.now += QUICK.url_for
    assert door.http.get(url).json()["title"] == "url expired"


def test_a_put_takes_exactly_what_was_announced_and_once(door: Door, car: TestedCar) -> None:
    part = car.part(car.take(), 0, 1, rows=3)
    url = car.say("/v1/part", part).json()["url"]
    assert door.http.put(url, content=b"ANSWERS").status_code == codes.BAD_REQUEST
    assert door.http.put(url, content=b"answer").status_code == codes.BAD_REQUEST
    assert door.http.put(url, content=b"answers and more").status_code == codes.REQUEST_ENTITY_TOO_LARGE
    assert door.http.put(url, content=iter([b"answers", b" and more"])).status_code == codes.REQUEST_ENTITY_TOO_LARGE
    assert door.http.put(url, content=iter([b"ans", b"wers"])).status_code == codes.OK
    assert door.http.put(url, content=b"answers").status_code == codes.PRECONDITION_FAILED
    assert car.say("/v1/part", part).json()["already"]


RANGES = {
    "bytes=0-0": (0, 1),
    "bytes=290-": (290, 300),
    "bytes=-5": (295, 300),
    "bytes=10-9999": (10, 300),
    "bytes=300-": None,
    "bytes=5-4": None,
    "bytes=-": None,
    "bytes=0-1,5-6": None,
}


def test_ranges_are_read_as_http_says(door: Door, car: TestedCar) -> None:
    url = car.take().shard_url
    for asked, span in RANGES.items():
        answer = door.http.get(url, headers={"Range": asked})
        if span is None:
            assert answer.status_code == codes.REQUESTED_RANGE_NOT_SATISFIABLE, asked
            continue
        start, stop = span
        assert (answer.status_code, answer.content) == (codes.PARTIAL_CONTENT, shard_bytes(7, 3)[start:stop]), asked
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/300"


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
    door.clock.now += QUICK.key_for
    assert car.buy_token().status_code == codes.UNAUTHORIZED
    assert car.say("/v1/part/confirm", part).status_code == codes.UNAUTHORIZED
    assert not car.say("/v1/beat", beat(lease)).json()["go_on"]
    door.offer((car.id, 7))
    assert car.poll().lease is None


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
    assert (replayed.status_code, "used before" in replayed.json()["detail"]) == (codes.UNAUTHORIZED, True)
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


# -- telemetry, pace, outage


def test_what_cars_say_is_one_file_that_keeps_its_contract(door: Door, car: TestedCar) -> None:
    lease = car.take()
    said = {
        "Vehicle.Speed": "fast",
        "Vehicle.Powertrain.TractionBattery.Charging.IsCharging": True,
        "Vehicle.Powertrain.TractionBattery.Charging.IsChargingCableConnected": 1.0,
        "Vehicle.Powertrain.TractionBattery.StateOfCharge.Current": 61.5,
        "Vehicle.Powertrain.TractionBattery.CurrentPower": True,
        "Vehicle.Cabin.Unknown": 3.0,
    }
    car.say("/v1/beat", beat(lease, signals=said))
    car.poll(departure_at="2026-11-23T07:00:00+01:00", cached_models=["a" * 64])
    car.poll(departure_at="tomorrow", willing=False, unwilling_reason="too_hot")
    door.run(flush(door.gate, name="here"))
    [key] = door.store.keys(layout.telemetry_day(CellName("eu-1"), "2026-11-22"))
    table = pq.read_table(door.store.path(key))
    assert conform(table, "signals").equals(table)
    rows = table.to_pylist()
    assert [row["car_id"] for row in rows] == [car.id] * 4
    heard = {name: rows[1][name] for name in said if name in rows[1]}
    wrong = ("Vehicle.Speed", "Vehicle.Powertrain.TractionBattery.CurrentPower")
    assert all(heard[name] is None for name in wrong)
    assert heard["Vehicle.Powertrain.TractionBattery.Charging.IsCharging"] is True
    assert heard["Vehicle.Powertrain.TractionBattery.Charging.IsChargingCableConnected"] is None
    assert heard["Vehicle.Powertrain.TractionBattery.StateOfCharge.Current"] == 61.5
    assert [row["departure_at"] is None for row in rows] == [True, True, False, True]
    assert rows[3]["unwilling_reason"] == "too_hot"


def test_two_files_of_one_minute_are_two_files(door: Door, car: TestedCar) -> None:
    for _ in range(2):
        car.poll(willing=False)
        door.run(flush(door.gate, name="here"))
        door.clock.now += timedelta(milliseconds=1)
    assert len(list(door.store.keys("cells/eu-1/telemetry/"))) == 2


def test_a_car_that_asks_too_often_is_told_so(database_url: str, tmp_path: Path) -> None:
    with open_door(database_url, tmp_path, dials=replace(QUICK, requests_per_window=3)) as door:
        car = door.car()
        answers = [car.say("/v1/poll", poll()) for _ in range(4)]
        assert [a.status_code for a in answers] == [200, 200, 200, codes.TOO_MANY_REQUESTS]
        assert int(answers[-1].headers["retry-after"]) >= 1
        door.clock.now += timedelta(seconds=10)
        assert car.say("/v1/poll", poll()).status_code == codes.OK


def test_a_gateway_that_is_behind_sheds_polls_and_hears_beats(database_url: str, tmp_path: Path) -> None:
    with open_door(database_url, tmp_path, dials=replace(QUICK, in_flight_max=0)) as door:
        car = door.car()
        car.token = door.gate.car_tokens.token(car.id, expires_at=door.clock.now + timedelta(minutes=1))
        answer = car.say("/v1/poll", poll())
        assert (answer.status_code, int(answer.headers["retry-after"])) == (codes.SERVICE_UNAVAILABLE, 1)
        lost = {"lease_id": "x", "fence": 1, "row_groups_done": 0, "energy_wh": 0.0, "busy_s": 0.0}
        assert car.say("/v1/beat", lost).status_code == codes.OK


def test_without_its_database_a_gateway_says_when_to_come_back_and_recovers_alone(
    door: Door, car: TestedCar, database_url: str
) -> None:
    lease = car.take()
    idle = door.car(2)
    assert idle.poll().lease is None
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    server = database_url.replace(str(name), "postgres")
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        answer = car.say("/v1/beat", beat(lease))
        assert (answer.status_code, "retry-after" in answer.headers) == (codes.SERVICE_UNAVAILABLE, True)
        assert idle.poll().lease is None  # an empty poll needs no database
        assert wait_until(lambda: door.http.get(f"{door.url}/healthz").json()["ledger"] == "away")
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
    assert wait_until(lambda: car.say("/v1/beat", beat(lease)).status_code == codes.OK)
    assert wait_until(lambda: door.http.get(f"{door.url}/healthz").json()["ledger"] == "up")
    assert car.deliver(car.part(lease, 0, 1, rows=3)).done_through == 1
    door.open({8: (3,)}, frozen_order(name="more"))
    door.offer((idle.id, 8))
    assert idle.take().shard_id == f"{8:016x}"


def test_the_metrics_count_what_happened(door: Door, car: TestedCar) -> None:
    car.take()
    text = door.http.get(f"{door.url}/metrics").text
    assert 'fleetbatch_gateway_answers_total{endpoint="/v1/poll",status="200"} 1' in text
    assert 'fleetbatch_gateway_events_total{event="granted"} 1' in text
    assert "fleetbatch_gateway_offers_held 1" in text


def test_the_metrics_tell_of_the_whole_cell_and_ask_the_ledger_once_in_ten_seconds(door: Door, car: TestedCar) -> None:
    def scrape() -> str:
        return door.http.get(f"{door.url}/metrics").text

    before = scrape()
    assert 'fleetbatch_shards{state="ready"} 1' in before
    assert 'fleetbatch_cars{state="computing"} 0' in before
    car.take()
    assert 'fleetbatch_shards{state="ready"} 1' in scrape()
    door.clock.now += timedelta(seconds=10)
    after = scrape()
    assert 'fleetbatch_shards{state="out"} 1' in after
    assert 'fleetbatch_cars{state="computing"} 1' in after
    assert 'fleetbatch_open_leases{age_s="60"} 1' in after
    assert "fleetbatch_round_offers 1" in after


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def replace_signature(part: PartRequest, identity: Identity) -> PartRequest:
    return msgspec.structs.replace(part, signature=sign(identity, part_claim(part)))


def _unsigned(part: PartRequest) -> PartRequest:
    return msgspec.structs.replace(part, signature="é" * 10)
