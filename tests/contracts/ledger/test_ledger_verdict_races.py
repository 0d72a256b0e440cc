"""A verdict that meets grants, or whoever recomputes the book, at the same moment."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
from gateway_doors import wait_until
from ledger_nights import Cell, judge, open_cell, part

from fleetbatch.owners import recompute

CARS = range(1, 13)
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def made_by(cell: Cell, shard: int, cars: range) -> None:
    """Let each car in turn deliver one row group of a shard, the highest number first."""
    for start, car in enumerate(reversed(cars)):
        lease = cell.take(car, shard)
        cell.deliver(part(lease, start, start + 1, 1))
        if start + 1 < len(cars):
            cell.let_go(lease)


def test_a_verdict_locks_its_cars_in_the_order_in_which_grants_hold_them(cell: Cell, cell_url: str) -> None:
    """Or the two wait for each other, and the cell's grants for the second after which the server sees it."""
    for car in reversed(CARS):  # that is how they lie in the table
        cell.enrol(car)
    cell.open({7: (1,) * len(CARS)})
    made_by(cell, 7, CARS)
    [task] = cell.ledger.to_audit(1)
    with (
        ThreadPoolExecutor(1) as aside,
        psycopg.connect(cell_url) as granting,
        psycopg.connect(cell_url, autocommit=True) as owner,
    ):
        granting.execute("SELECT FROM fleetbatch.cars WHERE car_id = 1 FOR SHARE")
        verdict = aside.submit(cell.ledger.record_audit, judge(task))
        assert wait_until(lambda: owner.execute(WAITING).fetchone() == (1,))
        free = "SELECT car_id FROM fleetbatch.cars WHERE car_id > 1 FOR SHARE SKIP LOCKED"
        assert len(owner.execute(free).fetchall()) == len(CARS) - 1
        granting.rollback()
        assert verdict.result(30)


def test_the_book_is_what_the_leases_say_while_verdicts_are_given(cell: Cell, cell_url: str) -> None:
    """Leases and book are of one instant, or every verdict in between looks like a forged entry."""
    shards, over = range(101, 141), threading.Event()
    cell.enrol(*CARS)
    cell.open(dict.fromkeys(shards, (1,)))

    def audits() -> None:
        try:
            for shard in shards:
                made_by(cell, shard, range(1, 2))
                [task] = cell.ledger.to_audit(1)
                cell.ledger.record_audit(judge(task))
        finally:
            over.set()

    night, looked = cell.now.date(), 0
    with ThreadPoolExecutor(1) as aside, open_cell(cell_url) as anyone:
        auditing = aside.submit(audits)
        while not over.is_set():
            book = anyone.ledger.night_book(night)
            assert recompute(*book, anyone.ledger.terms(), anyone.ledger.tariffs()).differences == ()
            looked += 1
        auditing.result()
    assert looked > 1
    assert len(cell.ledger.night_book(night)[1]) == 2 * len(shards)
