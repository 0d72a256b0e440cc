"""The database under the ledger: migrations, partitions, and what each role may do."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from ledger_nights import Cell, enrolment, frozen_order, manifest, open_cell, part, publish, request, yes

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.ledger.dials import BY_KEY
from fleetbatch.ledger.messages import Delivered, LedgerDials, Released
from fleetbatch.ledger.postgres import PostgresLedger, migrate

Verb = Callable[[], object]
HOT_TABLES = b"""
    SELECT tablename, count(*), bool_and(c.reloptions::text LIKE '%fillfactor=80%')
    FROM pg_indexes i JOIN pg_class c ON c.oid = format('%I.%I', i.schemaname, i.tablename)::regclass
    WHERE schemaname = 'fleetbatch' AND tablename IN ('open_leases', 'shards_20261122') GROUP BY 1 ORDER BY 1"""


def as_role(url: str, role: str) -> str:
    return url.replace("//postgres:@", f"//{role}:@")


def test_migrating_twice_applies_nothing_new(database_url: str) -> None:
    assert migrate(database_url)[:2] == ["0001_cell", "0002_roles"]
    assert migrate(database_url) == []


def test_a_migration_that_was_edited_after_it_was_applied_is_refused(database_url: str) -> None:
    migrate(database_url)
    with psycopg.connect(database_url) as owner:
        owner.execute("UPDATE fleetbatch.migrations SET sha256 = 'other' WHERE name = '0001_cell'")
    with pytest.raises(RejectedError, match="0001_cell was edited"):
        migrate(database_url)


def test_a_database_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="does not answer"):
        migrate(f"postgresql://postgres:@/ledger?host={tmp_path}")


@pytest.mark.parametrize("version", ["no", "an older"])
def test_a_database_of_no_or_of_an_older_version_is_refused_with_what_to_do(database_url: str, version: str) -> None:
    """As when new processes start before the database is migrated."""
    if version != "no":
        migrate(database_url)
        with psycopg.connect(database_url) as owner:
            owner.execute("ALTER TABLE fleetbatch.orders DROP COLUMN giving_up")
    with PostgresLedger.open(database_url) as ledger, pytest.raises(RejectedError, match="migrate it as its owner"):
        ledger.grant([request(1, 7)])


def test_nobody_turns_the_clock_of_a_ledger(database_url: str) -> None:
    migrate(database_url)
    for role in ("postgres", "fleetbatch_trusted", "fleetbatch_gateway"):
        with psycopg.connect(as_role(database_url, role), autocommit=True) as session:
            session.execute("SELECT set_config('fleetbatch.now', '2001-01-01', false)")
            [off] = session.execute("SELECT abs(extract(epoch FROM fleetbatch.now() - clock_timestamp()))").fetchone()  # type: ignore[misc] # one row
            assert off < 1
            if role != "postgres":
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute(
                        "CREATE OR REPLACE FUNCTION fleetbatch.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'"
                    )


def test_hot_tables_have_their_key_and_one_partial_index(cell: Cell, cell_url: str) -> None:
    cell.open({7: (1,)})
    with psycopg.connect(cell_url) as owner:
        rows = owner.execute(HOT_TABLES).fetchall()
    assert rows == [("open_leases", 2, True), ("shards_20261122", 2, True)]


def test_a_batch_of_grants_reads_its_own_cars_although_nobody_has_analysed_the_others(database_url: str) -> None:
    """Guessed to be few, they were all read for each batch, and compared with each of its requests."""
    migrate(database_url)
    batches, cars = 12, range(1, 140)
    with PostgresLedger.open(database_url, dials=LedgerDials(connections=1, session=BY_KEY)) as ledger:
        ledger.enrol([enrolment(car) for car in range(1, 1501)])
        ledger.open_order(frozen_order())
        ledger.register_shards(frozen_order().key, manifest(dict.fromkeys(cars, (1,))))
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("SELECT pg_stat_reset()")
        with PostgresLedger.open(database_url, dials=LedgerDials(connections=1, session=BY_KEY)) as ledger:
            for _ in range(batches):
                ledger.grant([request(car, car) for car in cars])
        owner.execute("SELECT pg_sleep(0.2)")  # a session's counts are there once it has ended
        read = owner.execute("SELECT idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'cars'").fetchone()
    assert read is not None
    assert 0 < read[0] <= 2 * batches * len(cars)


def test_a_gateway_can_do_its_work_and_nothing_else(cell: Cell, cell_url: str) -> None:
    cell.enrol(1)
    key = cell.open({7: (1, 1), 8: (1,)})
    lock = cell.ledger.lock_planner(frozen_order().key.order)  # type: ignore[arg-type] # any name will do for a cell
    assert lock is not None
    gateway_url = as_role(cell_url, "fleetbatch_gateway")
    with open_cell(gateway_url) as gateway:
        lease = gateway.take(1, 7)
        assert gateway.take(1, 7).again
        gateway.ask(2, 7)
        assert gateway.beat(lease).go_on
        assert gateway.deliver(part(lease, 0, 1, 1)) == gateway.deliver(part(lease, 0, 1, 1))
        assert gateway.ledger.lease(lease.lease_id) is not None
        assert gateway.let_go(lease) == Released(done_through=1)
        lease = gateway.take(1, 7)
        assert gateway.deliver(part(lease, 1, 2, 1)) == Delivered(done_through=2, complete=True)
        gateway.ledger.set_consent(yes(1, "telemetry"))
        assert gateway.ledger.order(key) is not None
        assert gateway.ledger.latest_round() is None
        gateway.serve(minutes=1)
        forbidden: list[Verb] = [
            lambda: gateway.ledger.enrol([enrolment(5)]),
            lambda: gateway.ledger.close_order(key, gateway.ledger.settled_version(key)),
            lambda: gateway.ledger.mark_published(key),
            lambda: gateway.ledger.give_up(key, "mischief"),
            lambda: gateway.ledger.open_order(frozen_order("2026-11-23")),
            lambda: gateway.ledger.to_audit(1),
            lambda: gateway.ledger.lock_planner(lock.cell),
        ]
        for mischief in forbidden:
            with pytest.raises(RejectedError, match="permission denied"):
                mischief()


def test_a_gateway_can_neither_forge_what_was_delivered_nor_the_cars_keys(cell: Cell, cell_url: str) -> None:
    cell.enrol(1)
    cell.open({7: (1,)})
    statements = (
        b"UPDATE fleetbatch.parts SET sha256 = ''",
        b"DELETE FROM fleetbatch.parts",
        b"UPDATE fleetbatch.leases SET credit = 'credited'",
        b"INSERT INTO fleetbatch.leases (credit) VALUES ('credited')",
        b"UPDATE fleetbatch.open_leases SET car_id = 2",
        b"UPDATE fleetbatch.open_leases SET fence = fence + 1",
        b"UPDATE fleetbatch.open_leases SET lease_for = '1 day'",
        b"UPDATE fleetbatch.cars SET public_key_pem = 'mine'",
        b"UPDATE fleetbatch.cars SET revoked_at = NULL",
        b"UPDATE fleetbatch.shards SET sha256 = ''",
        b"UPDATE fleetbatch.orders SET secret_wrapped = ''",
        b"INSERT INTO fleetbatch.offers VALUES (current_date, 1, 1, 1, 1)",
        b"SELECT fleetbatch.ensure_night('2026-01-01')",
        b"SELECT * FROM fleetbatch.audits",
    )
    with psycopg.connect(as_role(cell_url, "fleetbatch_gateway"), autocommit=True) as gateway:
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                gateway.execute(statement)


def test_the_trusted_role_runs_a_night_without_owning_the_tables(cell_url: str) -> None:
    with open_cell(as_role(cell_url, "fleetbatch_trusted")) as trusted:
        trusted.enrol(1)
        key = trusted.open({7: (1,)}, frozen_order("2026-12-01"))
        trusted.deliver(part(trusted.take(0, 7), 0, 1, 1))
        assert trusted.ledger.counts(key).valid == 1
        publish(trusted.ledger, key)
        assert trusted.ledger.counts(key).done == 1
