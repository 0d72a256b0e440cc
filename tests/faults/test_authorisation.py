"""Nobody in: assertions, claims and calls that are wrong in one word, replayed, out of order, or too late."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import msgspec
import pytest
from gateway_doors import QUICK, TestedCar, wait_until
from gateway_scene import Scene, open_scene
from gateway_words import beat
from ledger_nights import digest

from fleetbatch.car.identity import token_assertion
from fleetbatch.gateway.endpoints import ENDPOINTS
from fleetbatch.ledger.messages import LeaseState
from fleetbatch.protocol import PartRequest
from fleetbatch.units import LeaseId, OwnerId

codes = httpx.codes
CAR_PATHS = [endpoint for endpoint in ENDPOINTS if endpoint.caller == "car"]


@pytest.fixture
def scene(database_url: str, tmp_path: Path) -> Iterator[Scene]:
    with open_scene(database_url, tmp_path) as scene:
        yield scene


def test_a_revoked_cars_token_does_nothing_even_where_its_revocation_was_not_heard_of(
    database_url: str, tmp_path: Path
) -> None:
    with open_scene(database_url, tmp_path, dials=replace(QUICK, look_every=timedelta(hours=1))) as scene:
        scene.door.ledger.revoke_car(scene.car.id, "copied")
        assert wait_until(lambda: scene.car.id in scene.door.gate.void_until)
        scene.door.gate.void_until = {}  # as at a gateway whose listening connection was just lost
        scene.door.clock.now += timedelta(minutes=2)  # keys are remembered for a minute
        _says_all_in_vain(scene)
        assert scene.car.buy_token().status_code == codes.UNAUTHORIZED
        assert scene.state(scene.at_work) == (LeaseState.REVOKED, 0)


def _says_all_in_vain(scene: Scene) -> None:
    for endpoint in CAR_PATHS:
        answer = scene.call(endpoint, scene.car.token)
        if endpoint.path == "/v1/poll":
            assert answer.json()["lease"] is None
        elif endpoint.path == "/v1/beat":
            assert not answer.json()["go_on"]
        else:
            assert answer.status_code in {codes.CONFLICT, codes.UNAUTHORIZED}, (endpoint.path, answer.text)


def test_an_assertion_is_taken_once_for_this_gateway_from_this_cars_key(scene: Scene) -> None:
    door, car = scene.door, scene.car
    here = f"{door.url}/v1/token"
    good = token_assertion(car.identity, audience=here, now=door.clock.now)
    claims = jwt.decode(good, options={"verify_signature": False})
    early, late = door.clock.now - timedelta(hours=1), door.clock.now + timedelta(hours=1)
    wrong = {
        "for another gateway": token_assertion(car.identity, audience="http://other/v1/token", now=door.clock.now),
        "of another key": jwt.encode({**claims, "jti": "1"}, scene.stranger.identity.key, algorithm="ES256"),
        "unsigned": jwt.encode({**claims, "jti": "2"}, "", algorithm="none"),
        "signed with the public key as a secret": jwt.encode({**claims, "jti": "3"}, "x" * 64, algorithm="HS256"),
        "of an hour ago": token_assertion(car.identity, audience=here, now=early),
        "from the future": token_assertion(car.identity, audience=here, now=late),
    }
    for name, assertion in wrong.items():
        assert car.buy_token(assertion).status_code == codes.UNAUTHORIZED, name
    assert car.buy_token(good).status_code == codes.OK
    assert car.buy_token(good).status_code == codes.UNAUTHORIZED, "replayed"


def test_replayed_and_reordered_calls_are_answered_and_change_nothing(scene: Scene) -> None:
    """Everything that a car says in a lease, said again in every order that a network may think of."""
    car, lease = scene.car, scene.lease
    parts = [car.part(lease, n, n + 1, rows=rows) for n, rows in enumerate((3, 3, 2))]
    for part in reversed(parts[1:]):
        assert car.upload(part).status_code == codes.OK
        assert car.say("/v1/part/confirm", part).status_code in {codes.OK, codes.UNPROCESSABLE_ENTITY}
    first = {part.start: car.deliver(part) if part.start else _confirmed(car, part) for part in parts[:1]}
    answers = {part.start: _confirmed(car, part) for part in parts}
    assert answers[0] == first[0]
    assert answers[2]["complete"]
    for part in (*reversed(parts), *parts):
        assert _confirmed(car, part) == answers[part.start]
        assert car.say("/v1/part", part).json()["already"]
    assert not car.say("/v1/beat", beat(lease, 3)).json()["go_on"]
    for _ in range(2):
        assert car.release(lease).status_code == codes.CONFLICT
    row = scene.door.ledger.lease(LeaseId(lease.lease_id))
    assert row is not None
    assert (row.state, row.done_through) == (LeaseState.DONE, 3)


def _confirmed(car: TestedCar, part: PartRequest) -> dict[str, Any]:
    answer = car.say("/v1/part/confirm", part)
    assert answer.status_code == codes.OK, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_changed_claim_is_refused_whatever_is_changed(scene: Scene) -> None:
    """The signature covers lease, fence, shard, range, rows and hash; each changed alone is noticed."""
    changes: dict[str, Any] = {
        "lease_id": scene.lease.lease_id[:-1] + "9",
        "fence": scene.part.fence + 1,
        "shard_id": f"{8:016x}",
        "start": 1,
        "stop": 2,
        "rows": 2,
        "sha256": digest("other"),
        "signature": scene.stranger.part(scene.lease, 0, 1, rows=3).signature,
    }
    for name, value in changes.items():
        forged = msgspec.structs.replace(scene.part, **{name: value})
        assert scene.car.say("/v1/part/confirm", forged).status_code in {
            codes.CONFLICT,
            codes.UNPROCESSABLE_ENTITY,
        }, name
    scene.untouched()


def test_an_owner_decides_for_own_cars_only_and_a_withdrawal_stops_the_car(scene: Scene) -> None:
    door, car, withdrawal = scene.door, scene.car, scene.at_work.says("/v1/consent")
    refused = door.post("/v1/consent", withdrawal, door.owner_token(OwnerId(2)))
    assert refused.status_code == codes.FORBIDDEN
    scene.untouched()
    assert door.post("/v1/consent", withdrawal, door.owner_token(car.owner)).status_code == codes.OK
    assert car.say("/v1/beat", beat(scene.lease)).status_code == codes.UNAUTHORIZED, "void with the consent"
    car.token = ""
    assert not car.say("/v1/beat", beat(scene.lease)).json()["go_on"]
    assert car.say("/v1/part/confirm", scene.part).status_code == codes.CONFLICT
    door.offer((car.id, 8))
    assert car.poll().lease is None
