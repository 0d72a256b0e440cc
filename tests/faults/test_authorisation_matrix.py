"""Every route of the OpenAPI document against every wrong caller; a route that is not in the table fails the test."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import jwt
import pytest
from gateway_doors import KEY, TestedCar
from gateway_scene import Scene, Working, open_scene
from ledger_nights import no
from proofs import Count

from fleetbatch.car.identity import token_assertion
from fleetbatch.gateway.chores import take_voided
from fleetbatch.gateway.endpoints import ENDPOINTS, Endpoint
from fleetbatch.gateway.identity import token_key
from fleetbatch.gateway.openapi import document
from fleetbatch.ledger.messages import LeaseState
from fleetbatch.store.local import LocalStore
from fleetbatch.store.opening import open_local
from fleetbatch.units import CellName, Sha256

codes = httpx.codes
ANSWERS: Final = b"answers"
SHA256: Final = Sha256(hashlib.sha256(ANSWERS).hexdigest())
Route = str
"""Method and path, as the document has them."""
Outcome = Literal["refused", "conflict", "no work", "open", "own right"]
"""What a wrong caller meets: 401 or 403; 409, for ever; an answer that gives nothing; what is said to anybody; or what
is the caller's own to do, whatever else became of it."""

ROUTES: Final = [
    f"{method.upper()} {path}"
    for path, operations in document()["paths"].items()
    for method in operations
    if method != "parameters"
]
_ENDPOINTS: Final = {f"{endpoint.method} {endpoint.path}": endpoint for endpoint in ENDPOINTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One who is not who should call: how its token, its assertion and its signed URL are wrong."""

    token: Callable[[Scene, Endpoint], str]
    assertion: Callable[[Scene], str]
    url: Callable[[Scene, str], str]
    about: Callable[[Scene], Working] = lambda scene: scene.at_work
    """Whose lease, car and objects it calls about."""


def _audience(scene: Scene) -> str:
    return f"{scene.door.url}/v1/token"


def _signed(scene: Scene, method: str, *, key: str = "", store: LocalStore | None = None, minutes: float = 5) -> str:
    """A URL that a gateway signed for the one object that a test reads or creates."""
    key, store = key or f"nights/{method}", store or scene.door.store
    now, span = scene.door.clock.now, timedelta(minutes=minutes)
    if method == "GET":
        return store.sign_get(key, now=now, expires=span)
    return store.sign_put(key, size=len(ANSWERS), sha256=SHA256, now=now, expires=span).url


def _signed_for_the_other_method(scene: Scene, method: str) -> str:
    return _signed(scene, "PUT" if method == "GET" else "GET", key=f"nights/{method}")


def _expired_token(scene: Scene, endpoint: Endpoint) -> str:
    gate, now = scene.door.gate, scene.door.clock.now
    if endpoint.caller == "car":
        return gate.car_tokens.token(scene.car.id, expires_at=now)
    return gate.owner_tokens.token(scene.car.owner, expires_at=now)


def _token_by(key: bytes, cell: str) -> Callable[[Scene, Endpoint], str]:
    """A token that other gateways give to the same car or owner."""

    def made(scene: Scene, endpoint: Endpoint) -> str:
        who = scene.car.id if endpoint.caller == "car" else scene.car.owner
        keyed = token_key(key, CellName(cell), "car" if endpoint.caller == "car" else "owner")
        return keyed.token(who, expires_at=scene.door.clock.now + timedelta(hours=1))

    return made


def _assertion_of_yesterday(scene: Scene) -> str:
    return token_assertion(scene.car.identity, audience=_audience(scene), now=scene.door.clock.now - timedelta(days=1))


def _assertion_for(audience: str) -> Callable[[Scene], str]:
    return lambda scene: token_assertion(scene.car.identity, audience=audience, now=scene.door.clock.now)


def _assertion(scene: Scene, car: TestedCar) -> str:
    return token_assertion(car.identity, audience=_audience(scene), now=scene.door.clock.now)


def _in_anothers_name(scene: Scene) -> str:
    """An assertion of the car, by the stranger's key."""
    liar = dataclasses.replace(scene.stranger.identity, car_id=scene.car.id)
    return token_assertion(liar, audience=_audience(scene), now=scene.door.clock.now)


def _one_bit_off(text: str, at: int) -> str:
    return f"{text[:at]}{int(text[at], 16) ^ 1:x}{text[at + 1 :]}"


def _changed_assertion(scene: Scene) -> str:
    """The car's own assertion, with a later expiry beside the signature of the earlier one."""
    good = _assertion(scene, scene.car)
    head, _, signature = good.split(".")
    claims = jwt.decode(good, options={"verify_signature": False})
    longer = jwt.encode({**claims, "exp": claims["exp"] + 1}, "x" * 64, algorithm="HS256").split(".")[1]
    return f"{head}.{longer}.{signature}"


def _other_kind(scene: Scene, endpoint: Endpoint) -> str:
    return scene.rightful(next(one for one in ENDPOINTS if one.caller not in {endpoint.caller, "anyone"}))


def _other_deployment(scene: Scene, method: str) -> str:
    root = scene.door.store.root
    return _signed(scene, method, store=open_local(root, deployment_key=bytes(32), base_url=scene.door.url))


def _own(scene: Scene, endpoint: Endpoint, working: Working) -> str:
    return scene.rightful(endpoint, car=working.car)


CALLERS: Final[dict[str, Caller]] = {
    "nobody": Caller(
        token=lambda _scene, _endpoint: "",
        assertion=lambda _scene: "",
        url=lambda scene, method: _signed(scene, method).partition("?")[0],
    ),
    "with rubbish": Caller(
        token=lambda _scene, _endpoint: "token",
        assertion=lambda _scene: "a.b.c",
        url=lambda scene, method: _signed(scene, method).replace("signature=", "signature=z"),
    ),
    "of the other kind": Caller(
        token=_other_kind,
        assertion=lambda scene: scene.door.owner_token(scene.car.owner),
        url=_signed_for_the_other_method,
    ),
    "expired": Caller(
        token=_expired_token,
        assertion=_assertion_of_yesterday,
        url=lambda scene, method: _signed(scene, method, minutes=0),
    ),
    "of another cell": Caller(
        token=_token_by(KEY, "eu-2"),
        assertion=_assertion_for("http://eu-2.fleet.example/v1/token"),
        url=_signed,  # cells of a deployment share a store; what another cell signed opens the same object
    ),
    "of another deployment": Caller(
        token=_token_by(bytes(32), "eu-1"),
        assertion=_assertion_for("https://fleet.example/v1/token"),
        url=_other_deployment,
    ),
    "with one bit changed": Caller(
        token=lambda scene, endpoint: _one_bit_off(scene.rightful(endpoint), 0),
        assertion=_changed_assertion,
        url=lambda scene, method: _one_bit_off(
            _signed(scene, method), _signed(scene, method).index("signature=") + len("signature=")
        ),
    ),
    "another car or owner": Caller(
        token=lambda scene, endpoint: scene.rightful(endpoint, car=scene.stranger),
        assertion=_in_anothers_name,
        url=lambda scene, method: _signed(scene, method).replace("/nights/", "/nights/2"),
    ),
    "whose consent is withdrawn": Caller(
        token=lambda scene, endpoint: _own(scene, endpoint, scene.others[0]),
        assertion=lambda scene: _assertion(scene, scene.others[0].car),
        url=_signed,
        about=lambda scene: scene.others[0],
    ),
    "revoked": Caller(
        token=lambda scene, endpoint: _own(scene, endpoint, scene.others[1]),
        assertion=lambda scene: _assertion(scene, scene.others[1].car),
        url=_signed,
        about=lambda scene: scene.others[1],
    ),
}

_OWNERS: Final[dict[str, Outcome]] = {"whose consent is withdrawn": "own right", "revoked": "own right"}
"""The car is its owner's all the same: the owner may consent again, and may read."""
_URLS: Final[dict[str, Outcome]] = {"of another cell": "own right", **_OWNERS}
"""A signed URL is one right, until it ends in minutes: to read what is sealed, or to create an object that nobody
confirms any more."""
_ANYBODY: Final[dict[str, Outcome]] = dict.fromkeys(CALLERS, "open")
EXCEPT: Final[dict[Route, dict[str, Outcome]]] = {
    "POST /v1/token": {"whose consent is withdrawn": "own right"},  # it must be able to say what it erased
    "POST /v1/poll": {"another car or owner": "no work"},
    "POST /v1/beat": {"another car or owner": "no work"},
    "POST /v1/part": {"another car or owner": "conflict"},
    "POST /v1/part/confirm": {"another car or owner": "conflict"},
    "POST /v1/release": {"another car or owner": "conflict"},
    "POST /v1/consent": _OWNERS,
    "GET /v1/statement": _OWNERS,
    "GET /healthz": _ANYBODY,
    "GET /metrics": _ANYBODY,
    "GET /store/{key}": _URLS,
    "PUT /store/{key}": _URLS,
}
"""Whom a route does not simply refuse. A new route is entered here, if only to say that it refuses all."""


@pytest.fixture
def scene(database_url: str, tmp_path: Path) -> Iterator[Scene]:
    """A car at work, one whose owner has withdrawn, and one that is revoked; the gateway has heard of both."""
    with open_scene(database_url, tmp_path, others=2) as scene:
        scene.door.store.write("nights/GET", b"sealed")
        withdrawn, revoked = scene.others
        scene.door.ledger.set_consent(no(withdrawn.car.id))
        scene.door.ledger.revoke_car(revoked.car.id, "copied")
        scene.door.run(take_voided(scene.door.gate))
        yield scene


def call(scene: Scene, route: Route, caller: Caller) -> httpx.Response:
    method, _, path = route.partition(" ")
    endpoint = _ENDPOINTS.get(route)
    if endpoint is not None and endpoint.caller == "anyone":
        form = {**caller.about(scene).car.form("-"), "client_assertion": caller.assertion(scene)}
        return scene.door.http.post(scene.door.url + path, data=form)
    if endpoint is not None:
        return scene.call(endpoint, caller.token(scene, endpoint), about=caller.about(scene))
    if path == "/store/{key}":
        content = ANSWERS if method == "PUT" else None
        return scene.door.http.request(method, caller.url(scene, method), content=content)
    token = caller.token(scene, _ENDPOINTS["POST /v1/poll"])
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return scene.door.http.request(method, scene.door.url + path, headers=headers)


def outcome(answer: httpx.Response) -> Outcome:
    if answer.status_code in {codes.UNAUTHORIZED, codes.FORBIDDEN}:
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.status_code == codes.UNAUTHORIZED) == ("www-authenticate" in answer.headers)
        return "refused"
    if answer.status_code == codes.CONFLICT:
        return "conflict"
    assert answer.status_code in {codes.OK, codes.PARTIAL_CONTENT}, answer.text
    said: Any = answer.json() if answer.content.startswith(b"{") else {}
    if said.get("lease", True) is None or said.get("go_on") is False:
        return "no work"
    return "open" if answer.request.url.path in {"/healthz", "/metrics"} else "own right"


def test_every_route_meets_every_wrong_caller_as_the_table_says_and_changes_nothing(scene: Scene, count: Count) -> None:
    assert set(ROUTES) == set(EXCEPT), "every route of the document stands in the table, and no other"
    met: Counter[str] = Counter()
    for name, caller in CALLERS.items():
        for route in ROUTES:
            answer = call(scene, route, caller)
            assert outcome(answer) == EXCEPT[route].get(name, "refused"), (route, name, answer.text)
            met[outcome(answer)] += 1
            scene.door.store.delete("nights/PUT")  # for the next who may create it
    scene.untouched()
    for gone in scene.others:
        assert scene.state(gone) == (LeaseState.REVOKED, 0)
    count(
        calls=met.total(),
        routes=len(ROUTES),
        wrong_callers=len(CALLERS),
        **{kind.replace(" ", "_"): n for kind, n in met.items()},
    )


RIGHTFUL: Final = Caller(
    token=lambda scene, endpoint: scene.rightful(endpoint),
    assertion=lambda scene: _assertion(scene, scene.car),
    url=_signed,
)


def test_every_route_lets_in_who_should_call_it(scene: Scene) -> None:
    """Or the table above would say nothing: what is refused there is right in every other word."""
    for route in ROUTES:
        answer = call(scene, route, RIGHTFUL)
        assert answer.is_success, (route, answer.text)
        assert outcome(answer) in {"own right", "open"}, (route, answer.text)


def test_what_anybody_may_read_names_no_car_and_no_owner(scene: Scene) -> None:
    named = [f"{one.car.id:016x}" for one in (scene.at_work, *scene.others)] + [scene.lease.lease_id]
    for path in ("/healthz", "/metrics"):
        text = scene.door.http.get(scene.door.url + path).text
        assert not any(name in text for name in named)
