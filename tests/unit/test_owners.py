"""Credits computed from leases alone: what a lease is worth, and every way in which a book can be wrong."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetbatch.errors import RejectedError
from fleetbatch.ledger.book import ESCROW, FLEET, DeliveredLease, Entry, LeaseRef, Step, Tariff, Terms, owner_account
from fleetbatch.owners import lease_amount, recompute
from fleetbatch.owners.credits import balances
from fleetbatch.units import CarId, Fence, OwnerId, ShardId
from fleetbatch.workloads import row_units, workload

AT = datetime(2026, 11, 22, 20, tzinfo=UTC)
TERMS = Terms(
    from_at=AT - timedelta(days=1),
    micro_per_unit=100.0,
    wh_per_unit_max=1.0,
    micro_per_kwh=300_000.0,
    micro_per_kwh_max=1_000_000.0,
)
LEASE = DeliveredLease(
    lease=LeaseRef(night=date(2026, 11, 22), shard_id=ShardId(1), fence=Fence(1)),
    car_id=CarId(7),
    owner_id=OwnerId(9),
    granted_at=AT,
    delivered_rows=10,
    delivered_wh=2.0,
    credit="credited",
    work_units=40.0,
    rows=40,
)
ESCROWED = Entry(
    lease=LEASE.lease,
    step=Step.ESCROW,
    car_id=LEASE.car_id,
    from_account=FLEET,
    to_account=ESCROW,
    work_micro=1000,
    energy_micro=600,
)
PAID = replace(ESCROWED, step=Step.SETTLE, from_account=ESCROW, to_account=owner_account(OwnerId(9)))
GIVEN_BACK = replace(PAID, to_account=FLEET)
LEASES = st.builds(
    replace,
    st.just(LEASE),
    delivered_rows=st.integers(1, 40),
    delivered_wh=st.floats(0, 1e12),
    work_units=st.floats(0, 1e9),
    credit=st.sampled_from(["none", "credited", "refused", "voided"]),
)


def differences(*entries: Entry, lease: DeliveredLease = LEASE) -> tuple[str, ...]:
    return recompute([lease], entries, [TERMS], []).differences


def test_a_lease_is_worth_its_share_of_the_work_and_the_energy_for_it() -> None:
    amount = lease_amount(LEASE, TERMS, None)
    assert (amount.work_micro, amount.energy_micro) == (1000, 600)


def test_time_that_a_car_claims_to_have_worked_is_worth_nothing_and_energy_only_what_the_work_can_have_drawn() -> None:
    assert lease_amount(replace(LEASE, delivered_wh=1e9), TERMS, None).energy_micro == 3000
    assert lease_amount(LEASE, TERMS, 1e9).energy_micro == 2000


@given(LEASES)
def test_no_lease_is_worth_more_than_the_terms_allow_for_its_work(lease: DeliveredLease) -> None:
    amount = lease_amount(lease, TERMS, None)
    assert 0 <= amount.work_micro <= lease.work_units * TERMS.micro_per_unit
    assert 0 <= amount.energy_micro <= lease.work_units * TERMS.wh_per_unit_max * TERMS.micro_per_kwh_max / 1000


def test_a_right_book_has_no_difference() -> None:
    found = recompute([LEASE], [ESCROWED, PAID], [TERMS], [])
    assert found.differences == ()
    assert found.balances == {ESCROW: 0, FLEET: -1600, owner_account(OwnerId(9)): 1600}


@pytest.mark.parametrize("credit", ["refused", "voided"])
def test_what_an_audit_refused_must_have_been_given_back(credit: str) -> None:
    refused = replace(LEASE, credit=credit)
    assert differences(ESCROWED, GIVEN_BACK, lease=refused) == ()
    assert len(differences(ESCROWED, PAID, lease=refused)) == 1


def test_a_lease_without_a_verdict_may_wait_may_be_in_escrow_or_be_given_back() -> None:
    waiting = replace(LEASE, credit="none")
    for entries in ([], [ESCROWED], [ESCROWED, GIVEN_BACK]):
        assert differences(*entries, lease=waiting) == ()
    assert len(differences(ESCROWED, PAID, lease=waiting)) == 1


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "not in the book"),
        ([ESCROWED], "settle of lease 20261122-0000000000000001-1: not in the book"),
        ([replace(ESCROWED, work_micro=1001), PAID], "the book says work 1001"),
        ([ESCROWED, replace(PAID, energy_micro=0)], "energy 0"),
        ([ESCROWED, replace(PAID, to_account=owner_account(OwnerId(8)))], "to owner:0000000000000008"),
        ([ESCROWED, PAID, PAID], "in the book twice"),
        ([ESCROWED, PAID, replace(PAID, lease=replace(LEASE.lease, fence=Fence(2)))], "no lease delivered that"),
    ],
)
def test_every_wrong_book_is_found_and_the_lease_named(entries: list[Entry], said: str) -> None:
    found = differences(*entries)
    assert found
    assert any(said in line for line in found), found


def test_a_tariff_counts_from_its_instant_on_and_for_its_car_only() -> None:
    tariffs = [
        Tariff(car_id=CarId(7), from_at=AT - timedelta(hours=1), micro_per_kwh=500_000.0),
        Tariff(car_id=CarId(7), from_at=AT + timedelta(hours=1), micro_per_kwh=1.0),
        Tariff(car_id=CarId(8), from_at=AT - timedelta(hours=2), micro_per_kwh=1.0),
    ]
    entries = [replace(one, energy_micro=1000) for one in (ESCROWED, PAID)]
    assert recompute([LEASE], entries, [TERMS], tariffs).differences == ()


def test_a_lease_older_than_all_terms_is_named() -> None:
    with pytest.raises(RejectedError, match="before there were any terms"):
        recompute([LEASE], [ESCROWED], [replace(TERMS, from_at=AT + timedelta(days=1))], [])


@given(st.lists(st.tuples(LEASES, st.integers(1, 50))))
def test_all_accounts_together_are_zero_whatever_the_leases_are(drawn: list[tuple[DeliveredLease, int]]) -> None:
    leases = [replace(lease, lease=replace(lease.lease, fence=Fence(fence))) for lease, fence in drawn]
    found = recompute(leases, [], [TERMS], [])
    assert sum(found.balances.values()) == 0
    assert sum(balances([ESCROWED, PAID, GIVEN_BACK]).values()) == 0


@pytest.mark.parametrize("name", ["image", "video", "scenario"])
def test_twenty_minutes_of_the_reference_car_earn_the_same_whatever_was_computed(name: str) -> None:
    rows = round(1200 * workload(name).rows_per_s)
    lease = replace(LEASE, work_units=rows * row_units(name), rows=rows, delivered_rows=rows)
    assert lease_amount(lease, TERMS, None).work_micro == pytest.approx(2_000_000, abs=1)
