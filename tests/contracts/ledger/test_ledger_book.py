"""What owners earn: every move is between two accounts, once, and follows from the leases."""

from dataclasses import asdict, replace
from datetime import timedelta

import psycopg
import pytest
from ledger_nights import EVENING, Cell, frozen_order, judge, no, part, yes
from psycopg.rows import dict_row

from fleetbatch.errors import RejectedError
from fleetbatch.ledger.book import BOUNDS, ESCROW, FLEET, Step, Terms, owner_account
from fleetbatch.ledger.dials import BY_KEY
from fleetbatch.ledger.messages import AuditTask
from fleetbatch.ledger.pool import fetch_planned
from fleetbatch.owners import recompute
from fleetbatch.units import CarId, OwnerId

OWNER = owner_account(OwnerId(1001))
NIGHT_ENDS = timedelta(hours=10)


def returned(cell: Cell, car: int = 1, shard: int = 1) -> None:
    """A shard of ten units of work comes back; the car says that it drew 2 Wh."""
    cell.enrol(car)
    cell.open({shard: (10,)})
    cell.deliver(part(cell.take(car, shard), 0, 1, 10))


def test_delivered_work_waits_in_escrow_until_its_audit_and_then_is_the_owners(cell: Cell) -> None:
    returned(cell)
    assert cell.ledger.balances() == {}
    [task] = cell.ledger.to_audit(1)
    amount = 10 * 100 + 600  # ten units, and 2 Wh at 0.3 credits a kWh
    assert cell.ledger.balances() == {ESCROW: amount, FLEET: -amount}
    cell.ledger.record_audit(judge(task))
    assert cell.ledger.balances() == {ESCROW: 0, FLEET: -amount, OWNER: amount}
    assert cell.ledger.owner_balance(OwnerId(1001)) == amount


def test_refused_work_goes_back(cell: Cell) -> None:
    returned(cell)
    [task] = cell.ledger.to_audit(1)
    cell.ledger.record_audit(judge(task, wrong=frozenset({1})))
    assert cell.ledger.balances() == {ESCROW: 0, FLEET: 0}


def shared(cell: Cell) -> AuditTask:
    """Cars 1 and 2 deliver 10 and 30 rows of one shard, which waits for its audit."""
    cell.enrol(1, 2)
    cell.open({1: (10, 30)})
    first = cell.take(1, 1)
    cell.deliver(part(first, 0, 1, 10))
    cell.let_go(first)
    cell.deliver(part(cell.take(2, 1), 1, 2, 30))
    [task] = cell.ledger.to_audit(1)
    return task


def paid_work(cell: Cell) -> dict[CarId, int]:
    """Work that owners were paid for, by car."""
    entries = cell.ledger.night_book(cell.now.date())[1]
    return {entry.car_id: entry.work_micro for entry in entries if entry.to_account.startswith("owner:")}


def test_an_owner_whose_rows_stood_is_paid_although_a_stranger_spoiled_the_shard(cell: Cell) -> None:
    cell.ledger.record_audit(judge(shared(cell), wrong=frozenset({2})))
    assert paid_work(cell) == {1: 1000}
    assert cell.ledger.balances()[ESCROW] == 0
    cell.enrol(3)
    lease = cell.take(3, 1)
    assert lease.start == 0
    cell.deliver(part(lease, 0, 2, 40))
    [task] = cell.ledger.to_audit(1)
    cell.ledger.record_audit(judge(task))
    assert paid_work(cell) == {1: 1000, 3: 4000}
    assert cell.ledger.balances()[ESCROW] == 0


def test_of_a_spoiled_shard_nobody_is_paid_whose_rows_were_not_looked_at(cell: Cell) -> None:
    verdict = judge(shared(cell), wrong=frozenset({2}))
    cell.ledger.record_audit(replace(verdict, findings=verdict.findings[1:]))
    assert paid_work(cell) == {}
    assert (cell.ledger.balances()[ESCROW], cell.ledger.balances()[FLEET]) == (0, 0)


def test_a_second_claim_and_a_second_verdict_move_nothing(cell: Cell) -> None:
    returned(cell)
    [task] = cell.ledger.to_audit(1)
    cell.pass_time(minutes=11)
    [again] = cell.ledger.to_audit(1)
    for one in (task, again, again):
        cell.ledger.record_audit(judge(one))
    assert [entry.step for entry in cell.ledger.night_book(cell.now.date())[1]] == [Step.ESCROW, Step.SETTLE]


def test_work_that_nobody_audited_by_the_deadline_goes_back(cell: Cell) -> None:
    cell.enrol(1)
    key = cell.open({1: (10,)})
    cell.deliver(part(cell.take(1, 1), 0, 1, 10))
    [task] = cell.ledger.to_audit(1)
    cell.ledger.give_up(key, "the deadline")
    assert not cell.ledger.record_audit(judge(task))
    assert cell.ledger.balances() == {ESCROW: 0, FLEET: 0}


def test_each_car_is_paid_for_the_row_groups_that_it_delivered(cell: Cell) -> None:
    cell.ledger.record_audit(judge(shared(cell)))
    paid = {
        entry.car_id: entry.work_micro
        for entry in cell.ledger.night_book(cell.now.date())[1]
        if entry.step is Step.SETTLE
    }
    assert paid == {1: 1000, 2: 3000}


def test_units_are_credited_once_to_whoever_delivered_them_when_the_audit_lets_them_stand(cell: Cell) -> None:
    cell.enrol(1, 2, 3)
    cell.open({1: (10, 30), 2: (10,)})
    first = cell.take(1, 1)
    for _ in range(2):
        cell.deliver(part(first, 0, 1, 10))
    cell.let_go(first)
    cell.deliver(part(cell.take(2, 1), 1, 2, 30))
    cell.deliver(part(cell.take(3, 2), 0, 1, 10))
    tonight = cell.now.date()
    assert cell.ledger.credited(tonight).num_rows == 0
    for task in cell.ledger.to_audit(2):
        wrong = frozenset({3} & {one.car_id for one in task.parts})
        cell.ledger.record_audit(judge(task, wrong=wrong))
    assert cell.ledger.credited(tonight).to_pydict() == {"car_id": [1, 2], "units": [10.0, 30.0]}
    assert cell.ledger.credited(tonight + timedelta(days=1)).num_rows == 0


def test_the_cloud_lane_earns_nothing(cell: Cell) -> None:
    cell.open({1: (10,)})
    cell.deliver(part(cell.take(0, 1), 0, 1, 10))
    assert cell.ledger.to_audit(1) == []
    assert cell.ledger.balances() == {}


def test_energy_is_paid_at_the_owners_tariff_and_never_beyond_what_the_work_can_have_drawn(cell: Cell) -> None:
    cell.enrol(1)
    cell.ledger.set_tariff(CarId(1), 500_000)
    cell.pass_time(seconds=1)
    cell.open({1: (10,), 2: (10,)})
    cell.deliver(part(cell.take(1, 1), 0, 1, 10))
    cell.deliver(replace(part(cell.take(1, 2), 0, 1, 10), energy_wh=1e9))
    cell.ledger.to_audit(2)
    assert [entry.energy_micro for entry in cell.ledger.night_book(cell.now.date())[1]] == [1000, 5000]


def test_new_terms_and_tariffs_count_for_leases_that_begin_later(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({1: (10,), 2: (10,)})
    before = cell.take(1, 1)
    cell.pass_time(minutes=1)
    dear = Terms(
        from_at=cell.now - NIGHT_ENDS, micro_per_unit=1000, wh_per_unit_max=1, micro_per_kwh=0, micro_per_kwh_max=0
    )
    cell.ledger.add_terms(dear)
    cell.ledger.set_tariff(CarId(2), 900_000)
    cell.pass_time(seconds=1)
    for lease in (before, cell.take(2, 2)):
        cell.deliver(part(lease, 0, 1, 10))
    cell.ledger.to_audit(2)
    assert [entry.work_micro for entry in cell.ledger.night_book(cell.now.date())[1]] == [1000, 10_000]
    assert [entry.energy_micro for entry in cell.ledger.night_book(cell.now.date())[1]] == [600, 0]


def test_what_is_said_while_the_clock_is_set_back_does_not_reach_leases_that_were_granted_before(cell: Cell) -> None:
    returned(cell)
    [task] = cell.ledger.to_audit(1)
    cell.pass_time(minutes=-2)
    [usual] = cell.ledger.terms()
    cell.ledger.add_terms(replace(usual, micro_per_unit=1000))
    cell.ledger.set_tariff(CarId(1), 900_000)
    cell.ledger.record_audit(judge(task))
    night = cell.now.date()
    book = cell.ledger.night_book(night)
    assert recompute(*book, cell.ledger.terms(), cell.ledger.tariffs()).differences == ()


def test_a_tariff_is_kept_for_an_enrolled_car_only(cell: Cell) -> None:
    with pytest.raises(RejectedError, match="is not enrolled"):
        cell.ledger.set_tariff(CarId(9), 1.0)


@pytest.mark.parametrize("change", ["UPDATE fleetbatch.book SET work_micro = 0", "DELETE FROM fleetbatch.book"])
@pytest.mark.parametrize("role", ["postgres", "fleetbatch_trusted", "fleetbatch_gateway"])
def test_nobody_changes_what_the_book_says(cell: Cell, cell_url: str, role: str, change: str) -> None:
    returned(cell)
    cell.ledger.to_audit(1)
    url = cell_url.replace("//postgres:@", f"//{role}:@")
    with (
        psycopg.connect(url) as connection,
        pytest.raises(psycopg.Error, match=r"only ever added to|permission denied"),
    ):
        connection.execute(change.encode())


def test_a_statement_tells_each_night_of_a_car_and_no_other_cars(cell: Cell) -> None:
    returned(cell)
    [task] = cell.ledger.to_audit(1)
    cell.enrol(2)
    [lease] = cell.ledger.ended_leases(CarId(1))
    assert (lease.rows, lease.busy_s, lease.energy_wh, lease.bytes_sent, lease.bytes_read) == (10, 30.0, 2.0, 1000, 100)
    [line] = cell.ledger.booked(EVENING.date(), [lease])
    assert (line.order_no, line.night, line.name, line.generation) == (lease.order_no, EVENING.date(), "signs", 1)
    assert (line.paid_micro, line.escrow_micro) == (0, 1600)
    cell.ledger.record_audit(judge(task))
    [line] = cell.ledger.booked(EVENING.date(), [lease])
    assert (line.paid_micro, line.escrow_micro) == (1600, 0)
    assert cell.ledger.ended_leases(CarId(2)) == []


def test_a_statement_tells_a_cars_nights_oldest_first(cell: Cell) -> None:
    returned(cell, shard=7)
    cell.open({3: (10,), 5: (10,)}, frozen_order("2026-11-23"))
    for shard in (5, 3):
        cell.deliver(part(cell.take(1, shard), 0, 1, 10))
    leases = [one.lease for one in cell.ledger.ended_leases(CarId(1))]
    assert [(one.night.day, one.shard_id) for one in leases] == [(22, 7), (23, 3), (23, 5)]


@pytest.mark.parametrize("name", ["ended_leases", "last_ended"])
def test_a_question_about_one_night_locks_nothing_of_the_others_whatever_a_session_says_of_plans(
    cell_url: str, name: str
) -> None:
    locks = []
    with psycopg.connect(cell_url, row_factory=dict_row) as connection:
        connection.execute("SET search_path = fleetbatch, pg_catalog")
        for setting, value in BY_KEY.items():
            connection.execute("SELECT set_config(%s, %s, false)", [setting, value])
        for night in range(4):
            connection.execute("SELECT ensure_night(%s)", [EVENING.date() + timedelta(days=night)])
            connection.commit()
            fetch_planned(connection, name, {"night": EVENING.date(), "car_id": 1})
            [row] = connection.execute("SELECT count(*) AS n FROM pg_locks WHERE pid = pg_backend_pid()").fetchall()
            locks.append(row["n"])
            connection.rollback()
    assert len(set(locks)) == 1, locks


def test_a_withdrawal_voids_the_cars_tokens_as_it_ends_its_lease(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({1: (10,)})
    lease = cell.take(1, 1)
    cell.pass_time(minutes=1)
    cell.ledger.set_consent(yes(2, "telemetry"))
    cell.ledger.set_consent(no(1))
    assert cell.ledger.voided_tokens(timedelta(hours=1)) == {1: cell.now}
    assert not cell.beat(lease).go_on
    cell.pass_time(hours=2)
    assert cell.ledger.voided_tokens(timedelta(hours=1)) == {}


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), 1e300, -1.0])
def test_what_no_audit_could_put_aside_is_refused_and_pays_nobody(cell: Cell, amount: float) -> None:
    cell.enrol(1)
    [usual] = cell.ledger.terms()
    for name in BOUNDS:
        with pytest.raises(RejectedError, match=name):
            cell.ledger.add_terms(Terms(**{**asdict(usual), name: amount}))
    with pytest.raises(RejectedError, match="micro_per_kwh"):
        cell.ledger.set_tariff(CarId(1), amount)
    assert (cell.ledger.terms(), cell.ledger.tariffs()) == ([usual], [])


def test_a_lease_is_put_aside_under_the_highest_terms_and_tariff_that_may_be_said(cell: Cell, cell_url: str) -> None:
    cell.enrol(1)
    cell.pass_time(minutes=1)
    cell.ledger.add_terms(Terms(from_at=cell.now, **BOUNDS))
    cell.ledger.set_tariff(CarId(1), BOUNDS["micro_per_kwh"])
    cell.pass_time(minutes=1)
    cell.open({1: (10,)})
    cell.deliver(replace(part(cell.take(1, 1), 0, 1, 10), energy_wh=1e12))
    [task] = cell.ledger.to_audit(1)
    cell.ledger.record_audit(judge(task))
    assert cell.ledger.balances()[OWNER] == 10 * 1e12 + 10 * 1e6 * 1e9 / 1000
    for beyond in (
        b"INSERT INTO fleetbatch.tariffs VALUES (1, 9, fleetbatch.now(), 'NaN')",
        b"INSERT INTO fleetbatch.terms VALUES (DEFAULT, fleetbatch.now(), 1e13, 1, 1, 1)",
    ):
        with psycopg.connect(cell_url) as owner, pytest.raises(psycopg.errors.CheckViolation):
            owner.execute(beyond)
