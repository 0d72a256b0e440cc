"""What every ledger does with cars and their owners' consent."""

import hashlib
from dataclasses import replace

import psycopg
import pytest
from ledger_nights import EVENING, MINUTE, Cell, digest, enrolment, frozen_order, no, open_cell, part, yes

from fleetbatch.errors import RejectedError
from fleetbatch.ledger.messages import CarKey, ConsentRecord, Delivered, LeaseState, Refused, Terminal
from fleetbatch.units import CarId, OwnerId


def test_a_car_keeps_the_key_with_which_it_enrolled(cell: Cell) -> None:
    cell.ledger.enrol([enrolment(1)])
    cell.ledger.enrol([replace(enrolment(1), public_key_pem="another"), enrolment(2)])
    assert cell.ledger.car_key(CarId(1)) == CarKey(
        car_id=CarId(1),
        owner_id=OwnerId(1001),
        public_key_pem="key of 1",
        revoked=False,
        telemetry=False,
        tokens_void_at=None,
    )
    assert cell.ledger.car_key(CarId(3)) is None
    assert cell.ledger.car_key(CarId(0)) is None


def test_unknown_means_no(cell: Cell) -> None:
    cell.ledger.enrol([enrolment(1)])
    cell.open({7: (10,)})
    assert cell.ask(1, 7) == Refused(reason="the owner has not consented to compute")
    cell.ledger.set_consent(yes(1, "telemetry"))
    assert cell.ask(1, 7) == Refused(reason="the owner has not consented to compute")
    cell.ledger.set_consent(yes(1))
    cell.take(1, 7)


def test_a_withdrawal_ends_the_open_lease_and_no_other_follows(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({7: (10, 10)})
    lease = cell.take(1, 7)
    kept = part(lease, 0, 1, 10)
    cell.deliver(kept)
    cell.ledger.set_consent(no(1))
    stop = "the lease is revoked: consent to compute is withdrawn"
    assert cell.beat(lease).reason == stop
    assert cell.deliver(part(lease, 1, 2, 10)) == Terminal(reason=stop, state=LeaseState.REVOKED)
    assert cell.deliver(kept) == Delivered(done_through=1, complete=False)
    assert cell.ask(1, 7) == Refused(reason="the owner has not consented to compute")
    assert cell.take(2, 7).start == 1


def test_withdrawing_telemetry_ends_no_lease_and_voids_the_tokens_that_said_yes(cell: Cell) -> None:
    cell.enrol(1)
    cell.open({7: (10,)})
    cell.ledger.set_consent(yes(1, "telemetry"))
    assert telemetry_of(cell, 1) is True
    lease = cell.take(1, 7)
    cell.ledger.set_consent(no(1, "telemetry"))
    assert cell.beat(lease).go_on
    assert telemetry_of(cell, 1) is False
    assert cell.ledger.voided_tokens(MINUTE) == {CarId(1): EVENING}


def telemetry_of(cell: Cell, car: int) -> bool:
    key = cell.ledger.car_key(CarId(car))
    assert key is not None
    return key.telemetry


def test_an_assertion_is_used_once_whoever_asks_and_forgotten_when_it_buys_nothing(cell: Cell, cell_url: str) -> None:
    until = EVENING + 5 * MINUTE
    one, other = (CarId(1), "a", until), (CarId(2), "a", until)
    assert cell.ledger.use_assertions([one, other]) == [True, True]
    with open_cell(cell_url) as another_gateway:
        assert another_gateway.ledger.use_assertions([one, (CarId(1), "b", until)]) == [False, True]
    cell.pass_time(minutes=4)
    cell.ledger.forget_assertions()
    assert cell.ledger.use_assertions([one]) == [False]
    cell.pass_time(minutes=1)
    cell.ledger.forget_assertions()
    assert cell.ledger.use_assertions([one]) == [True]


def test_work_of_a_closer_data_class_needs_its_own_consent(cell: Cell) -> None:
    cell.enrol(1)
    cell.open({7: (10,)}, frozen_order(data_class="confidential"))
    assert cell.ask(1, 7) == Refused(reason="the owner has not consented to confidential data")
    cell.ledger.set_consent(yes(1, "data:confidential"))
    cell.take(1, 7)


def test_consent_is_a_chain_that_anyone_can_recompute(cell: Cell) -> None:
    cell.ledger.enrol([enrolment(1)])
    answers = [cell.ledger.set_consent(change) for change in (yes(1), no(1), yes(1), yes(1, "telemetry"))]
    kept = [answer for answer in answers if isinstance(answer, ConsentRecord)]
    assert cell.ledger.consents(CarId(1)) == kept
    previous = "0" * 64
    for number, record in enumerate(kept[:3], start=1):
        assert (record.number, record.at) == (number, EVENING)
        assert record.sha256 == recomputed(record, previous)
        previous = record.sha256
    assert kept[3].sha256 == recomputed(kept[3], "0" * 64)


def recomputed(record: ConsentRecord, previous: str) -> str:
    change = record.change
    granted = "t" if change.granted else "f"
    lines = ["fleetbatch-consent-1", previous, str(change.car_id), change.purpose, str(record.number), granted]
    lines += [change.notice_version, change.notice_sha256, f"{record.at:%Y-%m-%dT%H:%M:%S.%fZ}"]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_a_consent_record_can_be_neither_changed_nor_removed(cell: Cell, cell_url: str) -> None:
    cell.enrol(1)
    with psycopg.connect(cell_url, autocommit=True) as owner:
        for statement in (
            b"UPDATE fleetbatch.consents SET granted = false",
            b"DELETE FROM fleetbatch.consents",
            b"TRUNCATE fleetbatch.consents",
        ):
            with pytest.raises(psycopg.errors.RaiseException, match="only ever added to"):
                owner.execute(statement)


def test_consent_of_a_car_that_never_enrolled_is_refused(cell: Cell) -> None:
    for nobody in (5, 0):
        with pytest.raises(RejectedError, match="not enrolled"):
            cell.ledger.set_consent(yes(nobody))


def test_a_revoked_car_loses_its_lease_and_stays_revoked(cell: Cell) -> None:
    cell.enrol(1)
    cell.open({7: (10,)})
    lease = cell.take(1, 7)
    cell.ledger.revoke_car(CarId(1), "key copied")
    cell.ledger.revoke_car(CarId(1), "another reason")
    assert cell.beat(lease).reason == "the lease is revoked: the car is revoked: key copied"
    assert cell.ask(1, 7) == Refused(reason="the car is revoked: key copied")
    key = cell.ledger.car_key(CarId(1))
    assert key is not None
    assert key.revoked


def test_cars_are_seen_with_their_consent_and_their_lease(cell: Cell) -> None:
    cell.enrol(2, 1)
    cell.ledger.enrol([enrolment((1 << 63) - 1)])
    cell.open({7: (10, 10)})
    lease = cell.take(2, 7)
    cell.deliver(part(lease, 0, 1, 10))
    one, two, last = cell.ledger.cars().to_pylist()
    assert (one["car_id"], one["consent"], one["open_lease"], one["running_shard"]) == (1, True, None, None)
    assert (two["open_lease"], two["running_shard"], two["running_done_through"]) == (lease.lease_id, 7, 1)
    assert two["last_beat_at"] == EVENING
    assert (last["car_id"], last["consent"], last["revoked"]) == ((1 << 63) - 1, False, False)


def test_the_digest_of_the_notice_is_kept(cell: Cell) -> None:
    cell.enrol(1)
    [record] = cell.ledger.consents(CarId(1))
    assert record.change.notice_sha256 == digest("notice")


def test_cars_say_which_data_of_open_orders_their_owners_agreed_to(cell: Cell) -> None:
    cell.enrol(1, 2, 3)
    cell.ledger.set_consent(yes(1, "data:confidential"))
    cell.ledger.set_consent(yes(2, "data:pseudonymous"))
    assert cell.ledger.cars()["consents"].to_pylist() == [[], [], []]
    cell.open({4: (10,)}, frozen_order(data_class="confidential"))
    assert cell.ledger.cars()["consents"].to_pylist() == [["data:confidential"], [], []]
