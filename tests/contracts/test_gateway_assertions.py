"""Whatever a car signs, it is sold a token or refused, and those beside it are sold theirs."""

import base64
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_doors import QUICK, Door, TestedCar, open_door
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fleetbatch.car.identity import sign, token_assertion

codes = httpx.codes
TRIES = 3
_ANY = 1_000_000_000
_ODD: tuple[Any, ...] = (
    0, -1, True, None, 10**400, -(10**400), 1e300, float("nan"), float("inf"), "", "\0", "a\0b", "\ud800", "é", "a b",
    "a\n", "x" * 129, [], [[]], {}, {"a": 1},
)  # fmt: skip
"""What has broken readers of claims before."""
_texts = st.text(st.characters(exclude_categories=()), max_size=20)
"""Lone surrogates included: JSON can escape them."""
_json = st.sampled_from(_ODD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=5,
)
_changes = st.dictionaries(st.sampled_from(("iss", "sub", "aud", "exp", "iat", "nbf", "jti", "other")), _json)
_heads = st.dictionaries(st.sampled_from(("alg", "typ", "kid", "crit", "b64", "jwk")), _json, max_size=2)


@pytest.fixture
def wide(database_url: str, tmp_path: Path) -> Iterator[Door]:
    """A gateway that sends nobody away for asking often."""
    dials = replace(QUICK, tokens_per_window=_ANY, failures_per_window=_ANY)
    with open_door(database_url, tmp_path, dials=dials) as door:
        yield door


def signed(car: TestedCar, claims: dict[str, Any] | bytes, head: dict[str, Any] | None = None) -> str:
    """Return what a car signs, whatever it says; claims are changes to good ones, or the very bytes."""
    door, name = car.door, car.identity.name
    at = int(door.clock.now.timestamp())
    good = {"iss": name, "sub": name, "aud": f"{door.url}/v1/token", "exp": at + 60, "jti": "1"}
    said = claims if isinstance(claims, bytes) else json.dumps(good | claims).encode()
    text = f"{_base64(json.dumps({'alg': 'ES256', 'typ': 'JWT', **(head or {})}).encode())}.{_base64(said)}"
    return f"{text}.{sign(car.identity, text.encode())}"


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_whatever_a_car_signs_is_sold_a_token_or_refused_as_a_problem(wide: Door) -> None:
    car, answers = wide.car(1), Counter[int]()

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(claims=_changes, head=st.just({}) | _heads)
    @example(claims={"exp": 10**400}, head={})
    def answered(claims: dict[str, Any], head: dict[str, Any]) -> None:
        answer = car.buy_token(signed(car, claims, head))
        answers[answer.status_code] += 1
        assert answer.status_code in {codes.OK, codes.UNAUTHORIZED}, answer.text
        assert set(answer.json()) >= ({"access_token"} if answer.is_success else {"type", "status", "detail"})

    answered()
    assert answers[codes.UNAUTHORIZED]


def test_an_odd_value_of_a_claim_is_refused(wide: Door) -> None:
    car = wide.car(1)
    for name in ("exp", "iat", "nbf", "jti"):
        for odd in _ODD[2:]:
            answer = car.buy_token(signed(car, {name: odd}))
            told = (answer.status_code, answer.json()["type"])
            assert told == (codes.UNAUTHORIZED, "urn:fleetbatch:invalid-client"), (name, odd)


def test_claims_that_are_nested_too_deep_are_refused(wide: Door) -> None:
    car = wide.car(1)
    for deep in (b"[" * 30_000, b'{"iss":' * 5_000):
        assert car.buy_token(signed(car, deep)).status_code == codes.UNAUTHORIZED


def test_a_head_that_no_answer_can_quote_is_refused(wide: Door) -> None:
    car = wide.car(1)
    answer = car.buy_token(signed(car, {}, {"crit": ["\ud800"], "\ud800": 1}))
    assert (answer.status_code, answer.json()["type"]) == (codes.UNAUTHORIZED, "urn:fleetbatch:invalid-client")


def test_an_assertion_that_no_ledger_could_keep_takes_no_other_cars_token_with_it(wide: Door) -> None:
    bad, cars = wide.car(1), [wide.car(number) for number in range(2, 12)]
    asked = [(bad, signed(bad, {"jti": f"a\0{n}"})) for n in range(3)]
    asked += [(car, token_assertion(car.identity, audience=f"{wide.url}/v1/token", now=wide.clock.now)) for car in cars]
    with ThreadPoolExecutor(len(asked)) as at_once:
        answers = [one.status_code for one in at_once.map(lambda one: one[0].buy_token(one[1]), asked)]
    assert answers == [codes.UNAUTHORIZED] * 3 + [codes.OK] * len(cars)


def test_a_refused_claim_counts_against_its_address(database_url: str, tmp_path: Path) -> None:
    dials = replace(QUICK, failures_per_window=TRIES, failing_heard=0.0)
    with open_door(database_url, tmp_path, dials=dials) as door:
        car = door.car(1)
        odd: list[dict[str, Any]] = [{"exp": 10**400}, {"jti": "a\0b"}, {"iat": float("nan")}]
        assert [car.buy_token(signed(car, one)).status_code for one in odd] == [codes.UNAUTHORIZED] * TRIES
        assert car.buy_token().status_code == codes.TOO_MANY_REQUESTS
