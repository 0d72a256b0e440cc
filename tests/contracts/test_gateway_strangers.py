"""What others say of a car's lease, and what is almost a word of an owner's, changes nothing."""

from typing import Any, get_type_hints

import httpx
import msgspec
import pytest
from gateway_doors import Door, TestedCar
from gateway_words import beat, release
from ledger_nights import digest

from fleetbatch.protocol import ConsentRequest, Lease, PartRequest
from fleetbatch.units import LeaseId

codes = httpx.codes
SIGNALS = {"Vehicle.Speed": 0.0}


def say_as_a_stranger(stranger: TestedCar, how: str, lease: Lease) -> httpx.Response:
    if how == "beat":
        return stranger.say("/v1/beat", beat(lease))
    if how == "release":
        return stranger.say("/v1/release", release(lease))
    return stranger.say("/v1/part/confirm", stranger.part(lease, 0, 1, rows=3))


def is_heard(door: Door, car: TestedCar, lease: Lease) -> bool:
    """Whether the lease lives and what the vehicle says with a beat is kept."""
    door.gate.telemetry.take()
    return (
        bool(car.say("/v1/beat", beat(lease, signals=SIGNALS)).json()["go_on"]) and len(door.gate.telemetry.take()) == 1
    )


@pytest.mark.parametrize("how", ["beat", "release", "confirm"])
def test_what_a_stranger_says_of_a_lease_leaves_it_and_what_the_gateway_knows_of_it(
    door: Door, car: TestedCar, how: str
) -> None:
    lease, stranger = car.take(), door.car(2)
    assert is_heard(door, car, lease)
    told = say_as_a_stranger(stranger, how, lease)
    assert told.status_code == codes.CONFLICT or not told.json()["go_on"]
    assert is_heard(door, car, lease)
    assert LeaseId(lease.lease_id) in door.gate.held
    assert car.take().lease_id == lease.lease_id, "an answer that was lost is given again"


def test_a_car_that_hears_of_its_leases_end_is_held_to_nothing(door: Door, car: TestedCar) -> None:
    lease = car.take()
    door.pass_time(minutes=11)
    assert not car.say("/v1/beat", beat(lease)).json()["go_on"]
    assert LeaseId(lease.lease_id) not in door.gate.held


# -- line feeds


def test_a_purpose_with_a_line_feed_is_refused_and_withdraws_nothing(door: Door, car: TestedCar) -> None:
    kept = door.ledger.consents(car.id)
    said: dict[str, Any] = {"car_id": car.identity.name, "granted": False}
    said |= {"notice_version": "1", "notice_sha256": digest("notice")}
    for purpose in ("compute\n", "telemetry\n", "data:photos\n", "\ncompute", "compute\r"):
        answer = door.post("/v1/consent", {**said, "purpose": purpose}, door.owner_token(car.owner))
        assert answer.status_code == codes.UNPROCESSABLE_ENTITY, purpose
    assert door.ledger.consents(car.id) == kept


@pytest.mark.parametrize(
    ("message", "field", "word"),
    [
        (PartRequest, "shard_id", "0" * 16),
        (PartRequest, "sha256", "0" * 64),
        (ConsentRequest, "car_id", "0" * 16),
        (ConsentRequest, "notice_sha256", "0" * 64),
        (ConsentRequest, "purpose", "compute"),
        (ConsentRequest, "purpose", "data:" + "x" * 32),
    ],
)
def test_no_word_with_a_pattern_may_end_in_a_line_feed(message: type, field: str, word: str) -> None:
    hint = get_type_hints(message, include_extras=True)[field]
    assert msgspec.convert(word, hint) == word
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(word + "\n", hint)
