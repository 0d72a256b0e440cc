"""What cars bring: looked at before it counts, and moved through signed URLs."""

from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
import pytest
from gateway_doors import QUICK, Door, TestedCar
from gateway_words import shard_bytes
from ledger_nights import frozen_order

from fleetbatch import layout
from fleetbatch.car.identity import Identity, make_key, open_identity, sign
from fleetbatch.protocol import Lease, PartRequest, part_claim
from fleetbatch.units import LeaseId, Sha256, ShardId

codes = httpx.codes
ORDER = frozen_order().key


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
    assert (answer.status_code, answer.json().get("type")) == (
        codes.UNPROCESSABLE_ENTITY,
        "urn:fleetbatch:part-damaged",
    )
    assert door.store.size(key) is None
    assert car.deliver(part).done_through == 1


@pytest.mark.parametrize("said", [1, 6, 8, 16 << 20])
def test_a_part_has_as_many_bytes_as_lie_in_the_store_whatever_its_car_says(car: TestedCar, said: int) -> None:
    part = car.part(car.take(), 0, 1, rows=3)
    assert car.upload(part).status_code == codes.OK
    answer = car.say("/v1/part/confirm", msgspec.structs.replace(part, bytes=said))
    assert (answer.status_code, answer.json().get("type")) == (
        codes.UNPROCESSABLE_ENTITY,
        "urn:fleetbatch:part-damaged",
    )
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
    for content in (b"others!", b"more than answers"):
        lie = car.part(lease, 0, 1, rows=3, content=content)
        told = car.say("/v1/part", lie)
        assert (told.status_code, told.json().get("title")) == (codes.UNPROCESSABLE_ENTITY, "part does not fit")
        assert car.say("/v1/part/confirm", lie).status_code == codes.UNPROCESSABLE_ENTITY
    assert door.store.read(key_of(truth)) == b"answers"
    assert car.say("/v1/part", truth).json()["already"]


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
        assert (answer.status_code, answer.json().get("type")) == wanted, change


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
        assert answer.json().get("type") == "urn:fleetbatch:wrong-signature"
    car.say("/v1/part/confirm", part).raise_for_status()
    with psycopg.connect(database_url) as connection:
        kept = connection.execute("SELECT signature FROM fleetbatch.parts").fetchall()
    assert kept == [(part.signature,)]


# -- what a lease may store before any of it counts


def answers(car: TestedCar, lease: Lease, number: int, *, start: int = 0) -> tuple[PartRequest, bytes]:
    """Return one of many possible parts of one row group, and its bytes."""
    content = b"%d" % number
    return car.part(lease, start, start + 1, rows=3, content=content), content


def test_a_lease_stores_a_few_parts_and_no_further_one_before_one_is_confirmed(door: Door, car: TestedCar) -> None:
    lease = car.take()
    few = QUICK.unconfirmed_max
    parts = [answers(car, lease, number) for number in range(few + 1)]
    for part, content in parts[:few]:
        assert car.upload(part, content).status_code == codes.OK
    refused = car.say("/v1/part", parts[few][0])
    assert (refused.status_code, refused.json().get("type")) == (
        codes.UNPROCESSABLE_ENTITY,
        "urn:fleetbatch:too-many-parts",
    )
    assert len(list(door.store.keys(f"{key_of(parts[0][0]).rpartition('/')[0]}/"))) == few
    car.say("/v1/part/confirm", parts[0][0]).raise_for_status()
    assert car.deliver(*answers(car, lease, few, start=1)).done_through == 2


def test_who_lost_an_answer_asks_for_the_same_part_as_often_as_it_likes(car: TestedCar) -> None:
    lease = car.take()
    first, content = answers(car, lease, 0)
    for _ in range(QUICK.unconfirmed_max):
        assert not car.say("/v1/part", first).json()["already"]
    for number in range(1, QUICK.unconfirmed_max):
        assert car.upload(*answers(car, lease, number)).status_code == codes.OK
    assert car.say("/v1/part", first).status_code == codes.OK
    assert car.deliver(first, content).done_through == 1


def test_another_lease_does_not_pay_for_what_one_left_unconfirmed(door: Door, car: TestedCar) -> None:
    lease = car.take()
    for number in range(QUICK.unconfirmed_max):
        car.upload(*answers(car, lease, number))
    car.release(lease).raise_for_status()
    other = door.car(2)
    door.offer((other.id, 7))
    assert other.deliver(*answers(other, other.take(), 0)).done_through == 1


def left_behind(door: Door, car: TestedCar, number: int) -> httpx.Response:
    """Return the answer to a part that a car asks for under a lease of its own, sends if it may, and never confirms."""
    lease = car.take()
    asked, content = answers(car, lease, number)
    said = car.say("/v1/part", asked)
    if said.is_success:
        assert door.http.put(said.json()["url"], content=content).is_success
    car.release(lease).raise_for_status()
    return said


def test_a_car_stores_a_few_parts_that_it_never_confirms_whatever_its_leases(door: Door, car: TestedCar) -> None:
    few = QUICK.unconfirmed_of_car_max
    said = [left_behind(door, car, number) for number in range(few + 1)]
    assert [answer.status_code for answer in said] == [codes.OK] * few + [codes.TOO_MANY_REQUESTS]
    window_s = QUICK.unconfirmed_window.total_seconds()
    assert 1 <= int(said[few].headers["retry-after"]) <= window_s
    assert sum("/parts/" in key for key in door.store.keys("nights/")) == few
    other = door.car(2)
    door.offer((car.id, 7), (other.id, 7))
    assert left_behind(door, other, 0).status_code == codes.OK
    door.pass_time(seconds=window_s)
    assert left_behind(door, car, few).status_code == codes.OK


def test_a_part_that_is_confirmed_gives_its_car_one_upload_back_and_only_one(door: Door, car: TestedCar) -> None:
    for number in range(QUICK.unconfirmed_of_car_max - 1):
        left_behind(door, car, number)
    lease = car.take()
    part, content = answers(car, lease, 0)
    assert car.deliver(part, content).done_through == 1
    for _ in range(3):
        assert car.say("/v1/part/confirm", part).is_success
    assert car.say("/v1/part", answers(car, lease, 1, start=1)[0]).status_code == codes.OK
    refused = car.say("/v1/part", answers(car, lease, 2, start=1)[0])
    assert refused.status_code == codes.TOO_MANY_REQUESTS


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


def replace_signature(part: PartRequest, identity: Identity) -> PartRequest:
    return msgspec.structs.replace(part, signature=sign(identity, part_claim(part)))


def _unsigned(part: PartRequest) -> PartRequest:
    return msgspec.structs.replace(part, signature="é" * 10)


@pytest.mark.parametrize("spelled", ["20261122-0000000000000007-01", "20261122-0000000000000007-001"])
def test_a_lease_has_one_spelling_since_its_parts_lie_under_it(door: Door, car: TestedCar, spelled: str) -> None:
    lease = car.take()
    assert lease.lease_id == "20261122-0000000000000007-1"
    part = car.part(msgspec.structs.replace(lease, lease_id=spelled), 0, 1, rows=3)
    door.store.create(key_of(part), b"answers")
    for path in ("/v1/part", "/v1/part/confirm"):
        assert car.say(path, part).status_code == codes.CONFLICT
    assert car.deliver(car.part(lease, 0, 1, rows=3)).done_through == 1


def test_a_folder_that_cannot_be_written_is_told_to_people_and_the_part_is_taken_when_it_can(
    door: Door, car: TestedCar, caplog: pytest.LogCaptureFixture
) -> None:
    lease = car.take()
    part = car.part(lease, 0, 1, rows=3)
    in_the_way = Path(door.store.uri(key_of(part))).parent
    assert not in_the_way.exists()
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("a file where a folder should be")
    assert car.upload(part).status_code == codes.FORBIDDEN
    assert "store refused" in [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    in_the_way.unlink()
    assert car.deliver(part).done_through == 1
