"""Nobody in: every endpoint against every wrong caller, calls replayed and out of order, and withdrawals that race."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import msgspec
import pytest
from gateway_doors import KEY, Door, TestedCar, open_door
from gateway_words import beat, poll, release
from ledger_nights import digest

from fleetbatch.car.identity import token_assertion
from fleetbatch.gateway.endpoints import ENDPOINTS, Endpoint
from fleetbatch.gateway.identity import token_key
from fleetbatch.ledger.messages import LeaseState
from fleetbatch.protocol import Lease, PartRequest
from fleetbatch.units import CellName, LeaseId, OwnerId

codes = httpx.codes
GUARDED = [endpoint for endpoint in ENDPOINTS if endpoint.caller != "anyone"]
CAR_PATHS = [endpoint for endpoint in GUARDED if endpoint.caller == "car"]
OWNER_PATHS = [endpoint for endpoint in GUARDED if endpoint.caller == "owner"]


@dataclass(slots=True, kw_only=True)
class Scene:
    """A car in the middle of a lease, its owner, and a stranger with a car of its own."""

    door: Door
    car: TestedCar
    stranger: TestedCar
    lease: Lease
    part: PartRequest

    def body(self, endpoint: Endpoint) -> Any:
        """What the rightful caller would say there."""
        consent = {
            "car_id": f"{self.car.id:016x}",
            "purpose": "compute",
            "granted": False,
            "notice_version": "1",
            "notice_sha256": digest("notice"),
        }
        return {
            "/v1/poll": poll(),
            "/v1/beat": beat(self.lease),
            "/v1/part": self.part,
            "/v1/part/confirm": self.part,
            "/v1/release": release(self.lease),
            "/v1/consent": consent,
        }[endpoint.path]

    def call(self, endpoint: Endpoint, token: str) -> httpx.Response:
        if endpoint.method == "POST":
            return self.door.post(endpoint.path, self.body(endpoint), token)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return self.door.http.get(f"{self.door.url}{endpoint.path}?car={self.car.id:016x}", headers=headers)

    def rightful(self, endpoint: Endpoint) -> str:
        """The token that opens this endpoint."""
        expires = self.door.clock.now + timedelta(hours=1)
        if endpoint.caller == "owner":
            return self.door.gate.owner_tokens.token(self.car.owner, expires_at=expires)
        return self.door.gate.car_tokens.token(self.car.id, expires_at=expires)

    def untouched(self) -> None:
        """Nobody changed the lease, its shard, or the owner's decision."""
        row = self.door.ledger.lease(LeaseId(self.lease.lease_id))
        assert row is not None
        assert (row.state, row.done_through, row.car_id) == (LeaseState.GRANTED, 0, self.car.id)
        assert all(record.change.granted for record in self.door.ledger.consents(self.car.id))


@pytest.fixture
def scene(database_url: str, tmp_path: Path) -> Iterator[Scene]:
    with open_door(database_url, tmp_path) as door:
        yield make_scene(door)


def make_scene(door: Door) -> Scene:
    car, stranger = door.car(1), door.car(2)
    door.open({7: (3, 3, 2), 8: (3,)})
    door.offer((car.id, 7))
    lease = car.take()
    part = car.part(lease, 0, 1, rows=3)
    assert car.upload(part).status_code == codes.OK
    return Scene(door=door, car=car, stranger=stranger, lease=lease, part=part)


Forgery = Callable[[Scene, Endpoint], str]


def _of_other_kind(scene: Scene, endpoint: Endpoint) -> str:
    """An owner's token at a car's door, and the other way round."""
    other = next(one for one in GUARDED if one.caller != endpoint.caller)
    return scene.rightful(other)


def _expired(scene: Scene, endpoint: Endpoint) -> str:
    tokens = scene.door.gate.car_tokens if endpoint.caller == "car" else scene.door.gate.owner_tokens
    who = scene.car.id if endpoint.caller == "car" else scene.car.owner
    return tokens.token(who, expires_at=scene.door.clock.now)


def _of_other_cell(scene: Scene, endpoint: Endpoint) -> str:
    tokens = token_key(KEY, CellName("eu-2"), "car" if endpoint.caller == "car" else "owner")
    return tokens.token(scene.car.id, expires_at=scene.door.clock.now + timedelta(hours=1))


def _of_other_deployment(scene: Scene, endpoint: Endpoint) -> str:
    tokens = token_key(bytes(32), CellName("eu-1"), "car" if endpoint.caller == "car" else "owner")
    return tokens.token(scene.car.id, expires_at=scene.door.clock.now + timedelta(hours=1))


def _one_bit_off(scene: Scene, endpoint: Endpoint) -> str:
    token = scene.rightful(endpoint)
    return f"{int(token[0], 16) ^ 1:x}{token[1:]}"


FORGERIES: dict[str, Forgery] = {
    "no token": lambda _scene, _endpoint: "",
    "not a token": lambda _scene, _endpoint: "token",
    "a token of the other kind of caller": _of_other_kind,
    "an expired token": _expired,
    "another cell's token": _of_other_cell,
    "another deployment's token": _of_other_deployment,
    "a token with one bit changed": _one_bit_off,
}


def test_every_guarded_endpoint_refuses_every_forged_token_and_changes_nothing(scene: Scene) -> None:
    calls = 0
    for endpoint in GUARDED:
        for name, forge in FORGERIES.items():
            answer = scene.call(endpoint, forge(scene, endpoint))
            assert answer.status_code == codes.UNAUTHORIZED, (endpoint.path, name, answer.text)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"
            calls += 1
    scene.untouched()
    print(f"{calls} calls with forged tokens, 0 let in")


def test_a_stranger_with_a_good_token_can_do_nothing_with_anothers_lease_or_car(scene: Scene) -> None:
    expires = scene.door.clock.now + timedelta(hours=1)
    car = scene.door.gate.car_tokens.token(scene.stranger.id, expires_at=expires)
    owner = scene.door.gate.owner_tokens.token(scene.stranger.owner, expires_at=expires)
    for endpoint in CAR_PATHS:
        answer = scene.call(endpoint, car)
        if endpoint.path == "/v1/poll":
            assert answer.json()["lease"] is None
        elif endpoint.path == "/v1/beat":
            assert not answer.json()["go_on"]
        else:
            assert answer.status_code == codes.CONFLICT, (endpoint.path, answer.text)
    for endpoint in OWNER_PATHS:
        assert scene.call(endpoint, owner).status_code == codes.FORBIDDEN, endpoint.path
    scene.untouched()


def test_a_revoked_car_buys_no_token_and_its_old_token_does_nothing(scene: Scene) -> None:
    scene.door.ledger.revoke_car(scene.car.id, "copied")
    scene.door.clock.now += timedelta(minutes=2)  # keys are remembered for a minute
    for endpoint in CAR_PATHS:
        answer = scene.call(endpoint, scene.car.token)
        if endpoint.path == "/v1/poll":
            assert answer.json()["lease"] is None
        elif endpoint.path == "/v1/beat":
            assert not answer.json()["go_on"]
        else:
            assert answer.status_code in {codes.CONFLICT, codes.UNAUTHORIZED}, (endpoint.path, answer.text)
    assert scene.car.buy_token().status_code == codes.UNAUTHORIZED
    row = scene.door.ledger.lease(LeaseId(scene.lease.lease_id))
    assert row is not None
    assert (row.state, row.done_through) == (LeaseState.REVOKED, 0)


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
    door, car = scene.door, scene.car
    refused = door.post("/v1/consent", scene.body(OWNER_PATHS[0]), door.owner_token(OwnerId(2)))
    assert refused.status_code == codes.FORBIDDEN
    scene.untouched()
    assert door.post("/v1/consent", scene.body(OWNER_PATHS[0]), door.owner_token(car.owner)).status_code == codes.OK
    assert car.say("/v1/beat", beat(scene.lease)).status_code == codes.UNAUTHORIZED, "void with the consent"
    car.token = ""
    assert not car.say("/v1/beat", beat(scene.lease)).json()["go_on"]
    assert car.say("/v1/part/confirm", scene.part).status_code == codes.CONFLICT
    door.offer((car.id, 8))
    assert car.poll().lease is None
