"""The life of a lease over HTTP: it lives from poll to the last part, and every answer repeats."""

import base64

import httpx
import msgspec
import pytest
from gateway_doors import BUNDLE, SECRET, Door, TestedCar
from gateway_words import beat, shard_bytes

from fleetbatch.ledger.messages import LeaseState
from fleetbatch.protocol import Lease
from fleetbatch.sealing import shard_key
from fleetbatch.units import LeaseId, ShardId

codes = httpx.codes
pytestmark = pytest.mark.parametrize("plain", [False, True], ids=["on the connection", "by the application"])


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


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()
