"""Whatever the document allows, and what it does not, is answered: never by a fault, never by silence."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from gateway_doors import QUICK, Door, TestedCar, open_door
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proofs import Count

from fleetbatch.gateway.openapi import document
from fleetbatch.protocol import Lease

Case = Any
"""schemathesis.Case"""

ANSWER_S = 20
"""Far longer than any answer takes; what takes longer hangs."""
_ANY = 1_000_000_000
BUSY = replace(
    QUICK, requests_per_window=_ANY, tokens_per_window=_ANY, failures_per_window=_ANY, owner_requests_per_window=_ANY
)
"""Nobody is over an allowance: every call is answered by what stands behind."""
Words = dict[str, str]


@dataclass(slots=True, kw_only=True)
class Scene:
    """A gateway, a car that holds a lease, and who may call what."""

    door: Door
    car: TestedCar
    lease: Lease
    session: requests.Session
    answers: Counter[str]

    def headers(self, path: str) -> Words:
        expires = self.door.clock.now + timedelta(hours=1)
        if path in {"/v1/consent", "/v1/statement"}:
            token = self.door.gate.owner_tokens.token(self.car.owner, expires_at=expires)
        else:
            token = self.door.gate.car_tokens.token(self.car.id, expires_at=expires)
        return {"authorization": f"Bearer {token}"}

    def call(self, case: Case, *, known: bool, real: bool) -> None:
        """Make a case's call, perhaps with a token that opens the door and about the lease that there is."""
        if real and isinstance(case.body, dict):
            about: dict[str, Any] = {
                "lease_id": self.lease.lease_id,
                "fence": self.lease.fence,
                "shard_id": self.lease.shard_id,
            }
            about |= {"car_id": f"{self.car.id:016x}", "granted": True}  # a withdrawal would end the story
            case.body.update({name: value for name, value in about.items() if name in case.body})
        headers = self.headers(case.path) if known else {}
        answer = case.call(base_url=self.door.url, session=self.session, headers=headers, timeout=ANSWER_S)
        self.answers[f"{answer.status_code // 100}xx"] += 1
        assert answer.status_code < requests.codes.server_error, (case.method, case.path, answer.text)
        if answer.status_code >= requests.codes.bad_request and case.method != "HEAD":
            assert answer.headers["content-type"] == ["application/problem+json"], (case.path, answer.headers)


@pytest.fixture
def scene(database_url: str, tmp_path: Path) -> Iterator[Scene]:
    with open_door(database_url, tmp_path, dials=BUSY) as door, requests.Session() as session:
        session.trust_env = False
        car = door.car(1)
        door.open({7: (3, 3, 2)})
        door.offer((car.id, 7))
        yield Scene(door=door, car=car, lease=car.take(), session=session, answers=Counter())


def cases() -> st.SearchStrategy[Case]:
    """Calls of every operation, as the document describes them, and calls that break it."""
    schemathesis = pytest.importorskip("schemathesis", reason="the dev group brings it")  # slow to import: here alone
    schema: Any = schemathesis.openapi.from_dict(document())
    modes = tuple(schemathesis.GenerationMode)
    found = [result.ok().as_strategy(generation_mode=mode) for result in schema.get_all_operations() for mode in modes]
    return st.one_of(found)


def try_out(scene: Scene, examples: int, count: Count, *, derandomize: bool) -> None:
    @settings(
        max_examples=examples,
        derandomize=derandomize,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases(), known=st.sampled_from([True, True, False]), real=st.booleans())
    def call(case: Case, known: bool, real: bool) -> None:  # noqa: FBT001 # drawn
        scene.call(case, known=known, real=real)

    call()
    assert scene.door.http.get(f"{scene.door.url}/healthz").json()["status"] == "ok"
    count(calls=scene.answers.total(), **{f"answered_{kind}": n for kind, n in sorted(scene.answers.items())})


def test_a_few_hundred_calls_of_every_kind_meet_no_fault(scene: Scene, count: Count) -> None:
    try_out(scene, 250, count, derandomize=True)
    assert scene.answers["2xx"] > 5


@pytest.mark.prove
@pytest.mark.timeout(3600)
def test_ten_thousand_calls_of_every_kind_meet_no_fault(scene: Scene, count: Count) -> None:
    try_out(scene, 10_000, count, derandomize=False)
    assert scene.answers.total() >= 10_000
