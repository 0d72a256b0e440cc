"""What an owner may say without end is kept within bounds; what takes a car back is heard at any time."""

from dataclasses import asdict, replace
from datetime import timedelta

import pytest
from ledger_nights import MINUTE, Cell, digest, enrolment, no, yes

from fleetbatch.ledger.dials import LedgerDials
from fleetbatch.ledger.messages import ConsentChange, ConsentRecord, ConsentRefused, Refused
from fleetbatch.ledger.owners import PURPOSES
from fleetbatch.ledger.pool import Pool, fetch
from fleetbatch.owners import broken_car
from fleetbatch.units import CarId

A_DAY = LedgerDials().decisions_a_day
HOUR = 60 * MINUTE


@pytest.fixture(autouse=True)
def known(cell: Cell) -> None:
    cell.ledger.enrol([enrolment(1), enrolment(2)])


def kept(cell: Cell, change: ConsentChange) -> ConsentRecord:
    record = cell.ledger.set_consent(change)
    assert isinstance(record, ConsentRecord), record
    return record


def refused(cell: Cell, change: ConsentChange) -> ConsentRefused:
    answer = cell.ledger.set_consent(change)
    assert isinstance(answer, ConsentRefused), answer
    return answer


def reread(version: int, purpose: str = "compute") -> ConsentChange:
    """A yes to another version of the notice."""
    return replace(yes(1, purpose), notice_version=str(version), notice_sha256=digest("notice", version))


def fill(cell: Cell) -> None:
    """Say yes to one version of the notice after the other until the day is full."""
    for version in range(A_DAY):
        assert kept(cell, reread(version)).number == version + 1


def test_a_decision_that_changes_nothing_is_answered_by_the_one_that_stands_and_adds_none(cell: Cell) -> None:
    agreed = kept(cell, yes(1))
    cell.pass_time(minutes=1)
    assert kept(cell, yes(1)) == agreed
    withdrawn = kept(cell, no(1))
    assert withdrawn.number == 2
    cell.pass_time(minutes=1)
    assert kept(cell, no(1)) == withdrawn
    assert kept(cell, replace(no(1), notice_version="2")) == withdrawn, "what is refused cannot be refused any more"
    assert cell.ledger.consents(CarId(1)) == [agreed, withdrawn]
    assert cell.ledger.voided_tokens(HOUR) == {CarId(1): withdrawn.at}
    assert kept(cell, yes(1)).number == 3


def test_a_no_before_any_yes_is_kept_once(cell: Cell) -> None:
    first = kept(cell, no(1))
    assert (kept(cell, no(1)), first.number) == (first, 1)


def test_a_yes_to_another_notice_is_a_decision_of_its_own(cell: Cell) -> None:
    assert [kept(cell, reread(version)).number for version in (1, 2, 2, 1)] == [1, 2, 2, 3]


def test_nothing_is_kept_for_a_purpose_that_nothing_is_done_for(cell: Cell) -> None:
    for change in (yes(1, "data:faces"), no(1, "data:faces"), yes(1, "data:open"), no(1, "sleep")):
        answer = refused(cell, change)
        assert repr(change.purpose) in answer.reason
        assert all(purpose in answer.reason for purpose in PURPOSES)
        assert answer.again_in is None
    assert cell.ledger.consents(CarId(1)) == []


def test_what_was_agreed_to_before_it_was_unknown_can_be_withdrawn(cell: Cell, cell_url: str) -> None:
    old = yes(1, "data:faces")
    pool = Pool(cell_url, LedgerDials())
    with pool.connect() as connection:
        fetch(connection, "consent_add", asdict(old))
        fetch(connection, "consent_apply", asdict(old))
    withdrawn = kept(cell, no(1, "data:faces"))
    assert (withdrawn.number, kept(cell, no(1, "data:faces"))) == (2, withdrawn)
    assert refused(cell, old).again_in is None
    assert [broken_car(car) for car in cell.ledger.consented(CarId(0), 10)] == ["", ""]


def test_a_full_day_holds_back_a_yes_and_no_withdrawal(cell: Cell) -> None:
    kept(cell, yes(1, "telemetry"))
    for version in range(A_DAY - 1):
        kept(cell, reread(version))
    cell.open({7: (10,)})
    lease = cell.take(1, 7)
    for change in (reread(99), yes(1, "data:confidential")):
        assert refused(cell, change).again_in == timedelta(days=1)
    assert cell.beat(lease).go_on
    assert kept(cell, no(1)).number == A_DAY
    assert not cell.beat(lease).go_on
    assert kept(cell, no(1, "telemetry")).number == 2
    assert cell.ask(1, 7) == Refused(reason="the owner has not consented to compute")
    assert refused(cell, yes(1)).again_in
    assert kept(cell, yes(2)).number == 1, "another car has a day of its own"
    assert [broken_car(car) for car in cell.ledger.consented(CarId(0), 10)] == ["", ""]


def test_a_day_after_the_records_that_filled_it_a_yes_is_heard_again(cell: Cell) -> None:
    kept(cell, reread(99))
    cell.pass_time(hours=2)
    for version in range(A_DAY - 1):
        kept(cell, reread(version))
    cell.pass_time(hours=21)
    assert refused(cell, yes(1, "telemetry")).again_in == HOUR
    cell.pass_time(hours=1)
    assert kept(cell, yes(1, "telemetry")).number == 1
    assert refused(cell, reread(98)).again_in == 2 * HOUR, "the next oldest"


def test_the_same_yes_is_answered_on_a_full_day_too(cell: Cell) -> None:
    fill(cell)
    assert kept(cell, reread(A_DAY - 1)).number == A_DAY
    assert refused(cell, reread(A_DAY)).again_in == timedelta(days=1)


def test_a_chain_is_bounded_by_its_days_whatever_an_owner_says(cell: Cell) -> None:
    for _ in range(2 * A_DAY):
        for purpose in PURPOSES:
            cell.ledger.set_consent(yes(1, purpose))
            cell.ledger.set_consent(no(1, purpose))
    assert len(cell.ledger.consents(CarId(1))) <= A_DAY + len(PURPOSES)


def test_a_clock_that_was_set_back_makes_nobody_wait_for_longer_than_a_day(cell: Cell) -> None:
    fill(cell)
    cell.pass_time(days=-30)
    assert refused(cell, reread(99)).again_in == timedelta(days=1)
    assert kept(cell, no(1)).number == A_DAY + 1
