"""Whatever changes many rows does it in batches: each finds its rows by an index, and may be the last that is done."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from faults.simulation.faulty import CrashedError, Fault, FaultyLedger
from ledger_nights import EVENING, MINUTE, Cell, frozen_order, judge, open_cell, part, publish
from ledger_sound import assert_sound
from turned_clock import migrate_with_turned_clock

from fleetbatch.ledger.dials import BY_KEY, LedgerDials
from fleetbatch.ledger.literals import with_literals
from fleetbatch.ledger.messages import Granted, Refused, ShardCounts
from fleetbatch.ledger.pool import statement
from fleetbatch.local.postgres import Postgres, fresh_database
from fleetbatch.nouns import OrderKey
from fleetbatch.units import CarId, RoundId

NIGHT = EVENING.date()
SMALL = LedgerDials(batch_rows=3)
SHARDS = range(10, 30)
"""Every other one is of another order."""
VERSION = b"SELECT xmin::text FROM fleetbatch.orders WHERE name = %s"


@dataclass(slots=True, kw_only=True)
class Scene:
    """A night of two orders whose shards lie mixed; of one, shards are valid, returned, out and free."""

    cell: Cell
    ledger: FaultyLedger
    key: OrderKey
    other: OrderKey
    lease: Granted


@pytest.fixture
def scene(cell: Cell, cell_url: str) -> Iterator[Scene]:
    cell.enrol(1, 2, 3, 4)
    key = cell.open({shard: (5, 5) for shard in SHARDS if shard % 2 == 0})
    other = cell.open({shard: (5, 5) for shard in SHARDS if shard % 2}, frozen_order(name="other"))
    for car, shard in ((0, 10), (1, 12), (2, 20), (0, 28)):
        lease = cell.take(car, shard)
        for start in (0, 1):
            cell.deliver(part(lease, start, start + 1, 5))
    cell.ledger.to_audit(1)
    ledger = FaultyLedger(cell_url, SMALL)
    ledger.turn_clock(cell.now)
    yield Scene(cell=cell, ledger=ledger, key=key, other=other, lease=cell.take(3, 22))
    ledger.close()


def assert_cancelled(scene: Scene, counts: ShardCounts, reason: str, cell_url: str) -> None:
    assert scene.cell.ledger.counts(scene.key) == counts
    assert scene.cell.ledger.counts(scene.other) == ShardCounts(ready=10)
    assert scene.cell.beat(scene.lease).reason == f"the lease is revoked: {reason}"
    assert set(scene.cell.ledger.missing_shards(scene.key)["reason"].to_pylist()) == {reason}
    assert scene.cell.ledger.finish_giving_up() == 0
    assert_sound(cell_url)


@pytest.mark.parametrize("calls", range(9))
def test_a_cancel_that_is_interrupted_anywhere_grants_nothing_and_whoever_looks_next_finishes_it(
    scene: Scene, cell_url: str, calls: int
) -> None:
    scene.ledger.faults.arm(Fault.COMMITTED, after=calls)
    with pytest.raises(CrashedError):
        scene.ledger.cancel(scene.key, "wrong")
    if calls:  # before that the order was only looked up
        assert scene.cell.ask(4, 24) == Refused(reason="the order is cancelled")
    else:
        assert isinstance(scene.cell.ask(4, 24), Granted)
        scene.cell.ledger.cancel(scene.key, "wrong")
    assert_sound(cell_url)
    scene.cell.ledger.finish_giving_up()
    assert_cancelled(scene, ShardCounts(valid=2, returned=2, missing=6), "the order is cancelled: wrong", cell_url)


@pytest.mark.parametrize("calls", [1, 3, 5, 8])
def test_nothing_is_published_of_an_order_whose_recall_was_interrupted(scene: Scene, cell_url: str, calls: int) -> None:
    scene.ledger.faults.arm(Fault.COMMITTED, after=calls)
    with pytest.raises(CrashedError):
        scene.ledger.recall(scene.key, "bad")
    publish(scene.cell.ledger, scene.key)
    assert scene.cell.ledger.valid_parts(scene.key).num_rows == 0
    assert_cancelled(scene, ShardCounts(missing=10), "the order is recalled: bad", cell_url)
    assert scene.cell.ledger.balances()["escrow"] == 0


def test_an_order_is_not_closed_while_it_is_being_recalled(scene: Scene, cell_url: str) -> None:
    scene.ledger.faults.arm(Fault.COMMITTED, after=3)
    with pytest.raises(CrashedError):
        scene.ledger.recall(scene.key, "bad")
    with psycopg.connect(cell_url) as connection:
        [version] = connection.execute(VERSION, [scene.key.order]).fetchone() or ("",)
    assert not scene.cell.ledger.close_order(scene.key, version)
    assert scene.cell.ledger.close_order(scene.key, scene.cell.ledger.settled_version(scene.key))
    assert scene.cell.ledger.counts(scene.key) == ShardCounts(missing=10)


@pytest.mark.parametrize("calls", [1, 4])
def test_what_an_interrupted_recall_has_left_is_missing_because_of_it_and_not_of_the_deadline(
    scene: Scene, cell_url: str, calls: int
) -> None:
    scene.ledger.faults.arm(Fault.COMMITTED, after=calls)
    with pytest.raises(CrashedError):
        scene.ledger.recall(scene.key, "bad")
    before = scene.cell.ledger.counts(scene.key).missing
    assert before + scene.cell.ledger.give_up(scene.key, "the deadline") == 10
    assert_cancelled(scene, ShardCounts(missing=10), "the order is recalled: bad", cell_url)


@pytest.mark.parametrize("calls", [1, 4, 7])
def test_an_open_order_that_is_being_given_up_grants_nothing(scene: Scene, cell_url: str, calls: int) -> None:
    scene.ledger.faults.arm(Fault.COMMITTED, after=calls)
    with pytest.raises(CrashedError):
        scene.ledger.give_up(scene.key, "the deadline")
    answer = scene.cell.ask(4, 24)
    assert isinstance(answer, Refused)
    assert answer.reason in {"the order is given up: the deadline", "the shard is missing"}
    scene.cell.ledger.give_up(scene.key, "the deadline")
    assert_cancelled(scene, ShardCounts(valid=2, missing=8), "the deadline", cell_url)
    assert scene.cell.ledger.to_audit(10) == []


def test_what_an_audit_says_between_two_batches_of_a_recall_counts_for_the_owner_and_not_for_the_night(
    scene: Scene, cell_url: str
) -> None:
    scene.ledger.faults.arm(Fault.COMMITTED, after=1)
    with pytest.raises(CrashedError):
        scene.ledger.recall(scene.key, "bad")
    [first] = scene.cell.ledger.to_audit(1)
    assert scene.cell.ledger.record_audit(judge(first))
    assert scene.cell.ledger.finish_giving_up() == 10
    assert_cancelled(scene, ShardCounts(missing=10), "the order is recalled: bad", cell_url)
    assert scene.cell.ledger.balances()["escrow"] == 0
    assert sum(micro > 0 for account, micro in scene.cell.ledger.balances().items() if account != "fleet") == 1


def test_all_old_rounds_assertions_and_days_of_offers_go_and_no_other(cell: Cell, cell_url: str) -> None:
    until = [EVENING + n * MINUTE for n in range(1, 11)]
    cell.ledger.use_assertions([(CarId(1), str(n), at) for n, at in enumerate(until)])
    with psycopg.connect(cell_url, autocommit=True) as owner:
        owner.execute(
            "INSERT INTO fleetbatch.rounds (cell, epoch, day, at, offers, stats)"
            " SELECT 'eu', 1, day, day, 0, '{}' FROM generate_series(date '2026-11-01', date '2026-11-10', '1 day') day"
        )
        owner.execute(
            "SELECT fleetbatch.ensure_partition('offers', day::date)"
            " FROM generate_series(date '2026-11-01', date '2026-11-10', '1 day') day"
        )
        cell.pass_time(minutes=7)
        ledger = FaultyLedger(cell_url, SMALL)
        ledger.turn_clock(cell.now)
        ledger.forget_assertions()
        ledger.forget_rounds(RoundId(8), dt.datetime(2026, 11, 9, tzinfo=dt.UTC))
        ledger.close()
        left = (
            owner.execute("SELECT array_agg(jti ORDER BY used_until) FROM fleetbatch.used_assertions").fetchone(),
            owner.execute("SELECT array_agg(round_id ORDER BY round_id) FROM fleetbatch.rounds").fetchone(),
            owner.execute(  # other tests of this database leave days of their own
                "SELECT array_agg(relname::text ORDER BY relname) FROM pg_class"
                " WHERE relkind = 'r' AND relname BETWEEN 'offers_20261101' AND 'offers_20261110'"
            ).fetchone(),
        )
    assert left == ((["7", "8", "9"],), ([9, 10],), (["offers_20261109", "offers_20261110"],))


FILLED = b"""
    INSERT INTO fleetbatch.shards (night, shard_id, order_no, row_groups, rows, work_units, size_bytes, sha256,
                                   row_group_rows, state)
    SELECT date '2026-11-22', n << 32, 1 + n % 2, 1, 5, 5, 100, '', '{5}', CASE WHEN n % 7 = 0 THEN 'out' ELSE 'ready'
           END::fleetbatch.shard_state
    FROM generate_series(1, 30000) n;
    INSERT INTO fleetbatch.open_leases (night, shard_id, fence, order_no, car_id, start, row_groups_done, lease_for,
                                        granted_at, expires_at, beat_at, threads, power_w, hardware_class, provider,
                                        runner_version)
    SELECT night, shard_id, 0, order_no, shard_id >> 32, 0, 0, '10 minutes', '2026-11-22Z', '2026-11-22Z',
           '2026-11-22Z', 2, 60, 'orin', '', ''
    FROM fleetbatch.shards WHERE state = 'out';
    INSERT INTO fleetbatch.audits (shard_id, night, order_no, fence, queued_at)
    SELECT shard_id, night, order_no, 0, '2026-11-22Z' FROM fleetbatch.shards;
    INSERT INTO fleetbatch.book
    SELECT night, shard_id, 0, step, '2026-11-22Z', 1, 'escrow', 'owner:' || shard_id % 5000, 1, 1
    FROM fleetbatch.shards, unnest(enum_range(NULL::fleetbatch.book_step)) step;
    INSERT INTO fleetbatch.used_assertions
    SELECT n, 'a', timestamptz '2026-11-22Z' + n * interval '1 s', 'b' FROM generate_series(1, 30000) n;
    INSERT INTO fleetbatch.rounds (cell, epoch, day, at, offers, stats)
    SELECT 'eu', 1, '2026-11-22', '2026-11-22Z', 0, '{}' FROM generate_series(1, 30000);
    INSERT INTO fleetbatch.leases SELECT l.*, 'done', '', '', '2026-11-22Z', 1 FROM fleetbatch.open_leases l;
    INSERT INTO fleetbatch.parts
    SELECT night, shard_id, 0, 0, 1, 5, 100, 1, 1, '2026-11-22Z', '', '', '' FROM fleetbatch.shards;
    INSERT INTO fleetbatch.cars (car_id, owner_id, public_key_pem, region, enrolled_at)
    SELECT n, n, '', '', '2026-11-22Z' FROM generate_series(1, 30000) n;
    INSERT INTO fleetbatch.consents
    SELECT n, 'compute', 1, true, '', '', '2026-11-22Z', '', '' FROM generate_series(1, 30000) n;
    ANALYZE"""
PAGE: dict[str, Any] = {
    "night": NIGHT,
    "order_no": 1,
    "first": 1000 << 32,
    "last": 1200 << 32,
    "batch": 200,
    "shard_id": [n << 32 for n in range(1000, 1200)],
    "fence": [0] * 200,
    "gone": ["ready", "out", "returned"],
    "reason": "why",
    "through": 20000,
    "account": "owner:77",
    "car_id": 77,
    "after": 1000,
    "limit": 200,
}


@pytest.fixture(scope="module")
def filled(postgres: Postgres) -> Iterator[str]:
    """A ledger with a night of thirty thousand shards, a seventh of them out, all waiting and paid."""
    with fresh_database(postgres) as url:
        migrate_with_turned_clock(url)
        with open_cell(url) as cell:
            cell.open({}, frozen_order())
            cell.open({}, frozen_order(name="other"))
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute(FILLED)
        yield url


@pytest.mark.parametrize(
    ("name", "indexes"),
    [
        ("page_of_shards", {"shards_20261122_pkey"}),
        ("leases_of_page", {"shards_20261122_pkey", "open_leases_pkey"}),
        ("give_up", {"shards_20261122_pkey"}),
        ("left_in_page", {"shards_20261122_pkey"}),
        ("drop_audits", {"audits_pkey"}),
        ("settle_given_up", {"book_20261122_pkey"}),
        ("forget_rounds", {"rounds_pkey"}),
        ("forget_assertions", {"used_assertions_by_end"}),
        ("ended_leases", {"leases_20261122_car_id_idx", "shards_20261122_pkey", "parts_20261122_pkey"}),
        ("last_ended", {"leases_20261122_car_id_idx"}),
        ("consented", {"cars_pkey", "consents_pkey"}),
        ("owner_balance", {"book_20261122_to_account_work_micro_energy_micro_idx"}),
    ],
)
def test_a_batch_and_an_owners_question_find_their_rows_by_an_index_in_full_tables(
    filled: str, name: str, indexes: set[str]
) -> None:
    with psycopg.connect(filled) as connection:
        connection.execute("SET search_path = fleetbatch, pg_catalog")
        query = b"EXPLAIN (FORMAT JSON) " + statement(name)
        [[told]] = connection.execute(query, with_literals(PAGE)).fetchall()
    nodes = list(_nodes(told[0]["Plan"]))
    read = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
    assert read <= {"terms", "service"}, nodes
    assert {node["Index Name"] for node in nodes if "Index Name" in node} >= indexes, nodes


def test_grants_ask_of_each_car_whether_it_holds_a_lease_and_read_none_of_the_others(cell_url: str) -> None:
    cars = list(range(1, 201))
    asked: dict[str, Any] = dict.fromkeys(("car_id", "shard_id", "threads"), cars)
    asked |= {name: ["x"] * len(cars) for name in ("hardware_class", "provider", "runner_version")}
    with psycopg.connect(cell_url) as connection:
        for name, value in {"search_path": "fleetbatch, pg_catalog", **BY_KEY}.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        query = b"EXPLAIN (FORMAT JSON) " + statement("grant")
        values = with_literals({**asked, "lease_for": [MINUTE] * len(cars), "power_w": [1.0] * len(cars)})
        [[told]] = connection.execute(query, values).fetchall()
    nodes = list(_nodes(told[0]["Plan"]))
    leases = [node for node in nodes if node.get("Relation Name") == "open_leases" and "Operation" not in node]
    assert leases, nodes
    assert all("car_id = r" in node.get("Index Cond", "") for node in leases), leases


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)
