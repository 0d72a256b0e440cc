"""Several gateways, auditors and owners at once: races that only a real server shows."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from faults.simulation.faulty import FaultyLedger
from ledger_nights import Cell, judge, no, open_cell, part, request, yes
from proofs import Count

from fleetbatch.errors import TransientError
from fleetbatch.ledger.messages import Beat, Delivered, Granted, LedgerDials, Release
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.units import CarId

CARS = range(1, 13)
SHARDS = range(101, 113)
OTHERS = b" FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@contextmanager
def gateways(url: str, count: int, dials: LedgerDials | None = None) -> Iterator[list[Cell]]:
    with ExitStack() as stack:
        yield [stack.enter_context(open_cell(url, dials)) for _ in range(count)]


def together(lanes: list[Callable[[], None]]) -> None:
    """Run all lanes at once; raise what any of them raised."""
    failures: list[BaseException] = []
    start = threading.Barrier(len(lanes))

    def run(lane: Callable[[], None]) -> None:
        try:
            start.wait(10)
            lane()
        except BaseException as failure:  # noqa: BLE001 # told to the test's own thread
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]


def test_a_car_that_asks_two_gateways_at_once_gets_one_lease_and_strands_no_shard(cell: Cell, cell_url: str) -> None:
    cell.enrol(*CARS)
    cell.open(dict.fromkeys(SHARDS, (1,)))
    answers: list[list[object]] = [[], []]
    orders = [list(SHARDS), list(reversed(SHARDS))]
    with gateways(cell_url, 2) as (one, two):

        def lane(gateway: Cell, number: int) -> Callable[[], None]:
            wanted = [request(car, shard) for car, shard in zip(CARS, orders[number], strict=True)]
            return lambda: answers[number].extend(gateway.ledger.grant(wanted))

        together([lane(one, 0), lane(two, 1)])
    leases = {a.lease_id: a.car_id for lane_answers in answers for a in lane_answers if isinstance(a, Granted)}
    assert len(set(leases.values())) == len(leases)
    held = [shard for shard in cell.ledger.open_shards()["held_by_car"].to_pylist() if shard is not None]
    assert len(held) == len(leases)


def test_no_lease_survives_a_withdrawal_that_has_committed(cell: Cell, cell_url: str) -> None:
    cell.enrol(1)
    cell.open({7: (1,)})
    caught: list[str] = []
    with gateways(cell_url, 2, LedgerDials(decisions_a_day=100)) as (gateway, owner):

        def ask() -> None:
            for _ in range(60):
                gateway.ask(1, 7)

        def decide() -> None:
            for _ in range(30):
                owner.ledger.set_consent(no(1))
                caught.extend(lease for lease in owner.ledger.cars()["open_lease"].to_pylist() if lease)
                owner.ledger.set_consent(yes(1))

        together([ask, decide])
    assert caught == []


def test_lanes_that_do_everything_at_once_leave_a_sound_ledger(cell: Cell, cell_url: str, count: Count) -> None:
    cell.enrol(*CARS)
    key = cell.open(dict.fromkeys(SHARDS, (2, 2, 2)))

    def lane(gateway: Cell, seed: int) -> Callable[[], None]:
        chance = random.Random(seed)  # a story, not a secret
        held: dict[int, Granted] = {}

        def work() -> None:
            ledger = gateway.ledger
            for _ in range(25):
                cars = chance.sample(CARS, 4)
                asked = ledger.grant([request(car, chance.choice(SHARDS)) for car in cars])
                held.update({a.car_id: a for a in asked if isinstance(a, Granted)})
                some = [lease for lease in held.values() if chance.random() < 0.7]
                ledger.beat([beat(lease) for lease in some])
                done = {lease.lease_id: chance.randrange(3) for lease in some}
                ledger.deliver([part(lease, n, n + 1, 2) for lease in some for n in range(done[lease.lease_id] + 1)])
                ledger.release([leaves(lease) for lease in some if chance.random() < 0.4])
                for task in ledger.to_audit(3):
                    wrong = frozenset(part.car_id for part in task.parts if chance.random() < 0.1)
                    ledger.record_audit(judge(task, wrong=wrong))
                if chance.random() < 0.2:
                    car = chance.choice(CARS)
                    ledger.set_consent(no(car))
                    ledger.set_consent(yes(car))

        return work

    with gateways(cell_url, 4) as lanes:
        together([lane(gateway, seed) for seed, gateway in enumerate(lanes)])
    counts = cell.ledger.counts(key)
    assert counts.total == len(SHARDS)
    count(lanes=4, leases=cell.ledger.night_stats(key).leases, shards=counts.total)


def beat(lease: Granted) -> Beat:
    return Beat(
        car_id=lease.car_id, lease_id=lease.lease_id, fence=lease.fence, row_groups_done=0, energy_wh=1.0, busy_s=1.0
    )


def leaves(lease: Granted) -> Release:
    return Release(car_id=lease.car_id, lease_id=lease.lease_id, fence=lease.fence, reason="driving")


def test_a_ledger_whose_connections_were_cut_makes_new_ones(cell: Cell, cell_url: str) -> None:
    cell.enrol(1)
    cell.open({7: (1,)})
    lease = cell.take(1, 7)
    with psycopg.connect(cell_url, autocommit=True) as owner:
        owner.execute(b"SELECT pg_terminate_backend(pid)" + OTHERS)
    assert cell.beat(lease).go_on
    assert cell.deliver(part(lease, 0, 1, 1)) == Delivered(done_through=1, complete=True)


def test_a_database_that_does_not_answer_is_waited_for_and_then_named() -> None:
    dials = LedgerDials(retries=2)
    with (
        PostgresLedger.open("postgresql://nobody@/nowhere?host=/nonexistent", dials=dials) as ledger,
        pytest.raises(TransientError, match="the ledger's database does not answer"),
    ):
        ledger.car_key(CarId(1))


def test_threads_share_a_few_connections(cell: Cell, cell_url: str) -> None:
    cell.enrol(*CARS)
    with PostgresLedger.open(cell_url, dials=replace(LedgerDials(), connections=2)) as ledger:

        def look() -> None:
            for car in CARS:
                ledger.car_key(CarId(car))

        together([look] * 8)
        with psycopg.connect(cell_url) as owner:
            found = owner.execute(b"SELECT count(*)" + OTHERS).fetchone()
    assert found is not None
    assert found[0] <= 2 + 4  # the cell of this test holds up to four of its own


def test_a_lease_that_is_granted_while_its_order_is_cancelled_ends_with_it(cell: Cell, cell_url: str) -> None:
    cell.enrol(1)
    key = cell.open({7: (1,)})
    cancelling = threading.Thread(target=cell.ledger.cancel, args=(key, "wrong folder"))
    with FaultyLedger.open(cell_url) as gateway:
        gateway.turn_clock(cell.now)
        with gateway.faults.held_open(), psycopg.connect(cell_url, autocommit=True) as owner:
            [lease] = gateway.grant([request(1, 7)])
            assert isinstance(lease, Granted)
            cancelling.start()  # it finds no lease yet, and waits for the shard
            until(owner, b"SELECT count(*)" + OTHERS + b" AND wait_event_type = 'Lock'", 1)
    cancelling.join(30)
    assert cell.ledger.counts(key).missing == 1
    assert cell.beat(lease).reason == "the lease is revoked: the order is cancelled: wrong folder"


def until(owner: psycopg.Connection[Any], query: bytes, wanted: int) -> None:
    """Wait until a count is that, as long as any lane of these tests."""
    for _ in range(3000):
        if owner.execute(query).fetchone() == (wanted,):
            return
        threading.Event().wait(0.01)
    pytest.fail(f"never {wanted}: {query.decode()}")
