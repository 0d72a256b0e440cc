"""A cell at a glance: what monitors and people see of a ledger."""

from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta

import psycopg
from ledger_nights import EVENING, Cell, judge, no, open_cell, part, publish
from turned_clock import migrate_with_turned_clock

from fleetbatch.cli.status import status_lines, told
from fleetbatch.gateway.metrics import Metrics, prometheus
from fleetbatch.ledger.messages import OrderState
from fleetbatch.units import CarId


def test_an_empty_cell_has_nothing_and_no_round(cell: Cell) -> None:
    seen = cell.ledger.glance()
    assert (seen.orders, seen.leases.total, seen.cars.total, seen.last_round) == ((), 0, 0, None)


def test_every_shard_of_an_open_order_is_counted_in_one_state(cell: Cell) -> None:
    cell.enrol(1, 2, 3)
    key = cell.open({1: (5,), 2: (5,), 3: (5,), 4: (5,)})
    cell.deliver(part(cell.take(1, 1), 0, 1, 5))
    [task] = cell.ledger.to_audit(1)
    cell.ledger.record_audit(judge(task))
    cell.deliver(part(cell.take(2, 2), 0, 1, 5))
    cell.take(3, 3)

    [order] = cell.ledger.glance().orders
    assert (order.key, order.state) == (key, OrderState.OPEN)
    assert asdict(order.shards) == {"ready": 1, "out": 1, "returned": 1, "valid": 1, "done": 0, "missing": 0}


def test_given_up_shards_are_counted_until_the_order_is_closed(cell: Cell) -> None:
    key = cell.open({1: (5,), 2: (5,)})
    cell.ledger.give_up(key, "the deadline")
    assert cell.ledger.glance().shards.missing == 2
    publish(cell.ledger, key)
    assert cell.ledger.glance().orders == ()


def test_an_order_without_shards_in_this_cell_is_seen_as_well(cell: Cell) -> None:
    key = cell.open({})
    assert [(one.key, one.shards.total) for one in cell.ledger.glance().orders] == [(key, 0)]


def test_open_leases_are_parted_by_age(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({1: (5, 5), 2: (5, 5)})
    old = cell.take(1, 1)
    cell.serve(minutes=9)
    cell.beat(old)
    cell.take(2, 2)

    leases = cell.ledger.glance().leases
    assert leases.counts == (1, 0, 1, 0, 0)
    assert leases.cloud == 0


def test_every_car_is_in_one_state(cell: Cell) -> None:
    cell.enrol(1, 2, 3, 4)
    cell.open({1: (5,), 2: (5,)})
    cell.take(1, 1)
    cell.take(0, 2)
    cell.ledger.set_consent(no(3))
    cell.ledger.revoke_car(CarId(4), "stolen")

    cars = cell.ledger.glance().cars
    assert asdict(cars) == {"computing": 1, "idle": 1, "unwilling": 1, "revoked": 1}


def test_a_lock_table_that_is_small_beside_the_nights_kept_is_warned_of_before_it_is_full(database_url: str) -> None:
    migrate_with_turned_clock(database_url)
    with open_cell(database_url) as cell, ExitStack() as crowd:
        with psycopg.connect(database_url) as owner:
            for days in range(16):
                owner.execute("SELECT fleetbatch.ensure_night(%s)", [EVENING.date() + timedelta(days=days)])
        before = cell.ledger.glance()
        assert before.locks.needed <= before.locks.room
        assert not any("lock table" in line for line in status_lines(told(before)))

        for _ in range(before.locks.room // before.locks.relations + 1):
            crowd.enter_context(psycopg.connect(database_url))
        seen = cell.ledger.glance()
        [line] = [line for line in status_lines(told(seen)) if "lock table" in line]
        assert f"small for 16 nights: {seen.locks.connections} connections" in line
        assert f"set max_locks_per_transaction from {before.locks.per_transaction} to 256" in line
        text = prometheus(Metrics(), {}, seen)
        assert f"fleetbatch_locks_needed {seen.locks.needed}\n" in text
        assert f"fleetbatch_locks_room {before.locks.room}\n" in text


def test_what_the_lock_table_is_held_against_is_what_a_look_at_all_nights_locks(database_url: str) -> None:
    migrate_with_turned_clock(database_url)
    with psycopg.connect(database_url) as owner:
        for days in range(3):
            owner.execute("SELECT fleetbatch.ensure_night(%s)", [EVENING.date() + timedelta(days=days)])
    with open_cell(database_url) as cell, psycopg.connect(database_url) as looker:
        for table in ("shards", "leases", "parts"):
            looker.execute(f"SELECT FROM fleetbatch.{table}")
        [locked] = looker.execute(
            "SELECT count(DISTINCT c.oid) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
            " WHERE l.pid = pg_backend_pid() AND c.relispartition"
        ).fetchall()
        locks = cell.ledger.glance().locks
    assert (locks.nights, locks.relations) == (3, *locked)
