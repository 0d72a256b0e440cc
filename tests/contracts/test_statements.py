"""An owner's statement is the same before and after its nights are archived, and reads little of what lies there."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deployments import deployed
from ledger_nights import EVENING, Cell, frozen_order, judge, part, publish

from fleetbatch import layout
from fleetbatch.errors import RejectedError
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.local.postgres import Postgres
from fleetbatch.nouns import OrderKey
from fleetbatch.owners import Archive, archive_key, car_statement, statement_page, statement_table
from fleetbatch.protocol import StatementReply
from fleetbatch.settings import Settings, load_settings
from fleetbatch.steps.archiving import archive_step
from fleetbatch.steps.credits import find_statement, recompute_credits
from fleetbatch.store import Store, open_store
from fleetbatch.store.local import LocalStore
from fleetbatch.units import CarId, CellName, OwnerId

Told = dict[int, StatementReply]
EU = CellName("eu-1")
CARS = (1, 1001, 2)
"""The first two are one owner's."""
NIGHTS = ("2026-11-20", "2026-11-21", "2026-11-22")
LATER = EVENING + timedelta(days=60)


@pytest.fixture
def deployment(tmp_path: Path, postgres: Postgres) -> Iterator[Settings]:
    with deployed(tmp_path, postgres, cells=1) as file:
        yield load_settings(file)


@pytest.fixture
def ledger(deployment: Settings) -> Iterator[PostgresLedger]:
    with PostgresLedger.open(deployment.cells[0].ledger_url) as found:
        yield found


@pytest.fixture
def store(deployment: Settings) -> Store:
    return open_store(deployment.store, deployment_key=deployment.deployment_key)


def work(cell: Cell, night: str, *, generation: int = 1) -> OrderKey:
    """A night in which one car finishes, one is caught, one leaves what nobody finishes, and one shard waits."""
    number = 100 * (NIGHTS.index(night) + 1) + 10 * generation
    shards: dict[int, tuple[int, ...]] = {number + n: (3, 4) for n in range(4)}
    key = cell.open(shards, frozen_order(night, generation=generation))
    for n, car in enumerate(CARS):
        lease = cell.take(car, number + n)
        cell.deliver(part(lease, 0, 1, 3))
        if car != CARS[1]:
            cell.deliver(part(lease, 1, 2, 4))
        else:
            cell.let_go(lease, energy_wh=5.5)
    for task in cell.ledger.to_audit(2):
        cell.ledger.record_audit(judge(task, wrong=frozenset({2} & {one.car_id for one in task.parts})))
    last = cell.take(CARS[0], number + 3)
    for start, rows in enumerate((3, 4)):
        cell.deliver(part(last, start, start + 1, rows))
    assert len(cell.ledger.to_audit(1)) == 1  # put aside, and never judged
    return key


def finish(cell: Cell, key: OrderKey) -> None:
    cell.ledger.give_up(key, "the deadline")
    publish(cell.ledger, key)


def statements(deployment: Settings) -> Told:
    return {car: find_statement(deployment, CarId(car)) for car in CARS}


def assert_as_booked(ledger: PostgresLedger, told: Told) -> None:
    """What the statements of all cars say together is what the book says of each owner."""
    paid: dict[OwnerId, int] = {}
    for car, one in told.items():
        owner = OwnerId(1000 + car % 1000)
        paid[owner] = paid.get(owner, 0) + sum(night.paid_micro for night in one.nights)
    assert {owner: ledger.owner_balance(owner) for owner in paid} == paid
    for car, one in told.items():
        assert one.owner_paid_micro == paid[OwnerId(1000 + car % 1000)]
    assert sum(one.escrow_micro for one in told.values()) == ledger.balances()["escrow"]


def test_a_statement_is_the_same_and_equals_the_book_before_between_and_after_archiving(
    deployment: Settings, ledger: PostgresLedger
) -> None:
    cell = Cell(ledger)
    cell.enrol(*CARS)
    keys = [work(cell, night) for night in NIGHTS]
    waiting = statements(deployment)
    assert waiting[1].escrow_micro > 0
    assert_as_booked(ledger, waiting)

    for key in keys[:2]:
        finish(cell, key)
    before = statements(deployment)
    assert_as_booked(ledger, before)
    assert sorted(archive_step(deployment, now=LATER)) == [f"{EU}/{night}" for night in NIGHTS[:2]]
    assert ledger.nights() == [date.fromisoformat(night) for night in NIGHTS]
    assert statements(deployment) == before

    finish(cell, keys[2])
    before = statements(deployment)
    assert archive_step(deployment, now=LATER)
    after = statements(deployment)
    assert after == before
    assert_as_booked(ledger, after)
    assert [night.night for night in after[1].nights] == list(NIGHTS)
    assert [(night.leases, night.rows, night.bytes_read) for night in after[1].nights] == [(2, 14, 400)] * 3
    assert {night.refused_leases for night in after[2].nights} == {1}
    assert all(night.paid_micro > 0 for night in after[1].nights)
    assert all(not book.differences for book in recompute_credits(deployment).values())


def old_key(path: Path, table: str = "leases") -> str:
    """Under what name a file was archived before names told the footer's hash."""
    return f"{layout.archived(EU, table, NIGHTS[0])}{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.parquet"


def one_archived(deployment: Settings, ledger: PostgresLedger, store: Store) -> tuple[Cell, Told, str]:
    """Live one night and archive it; return its cell, what the statements said before, and the leases' key."""
    cell = Cell(ledger)
    cell.enrol(*CARS)
    finish(cell, work(cell, NIGHTS[0]))
    before = statements(deployment)
    assert archive_step(deployment, now=LATER)
    [key] = store.keys(layout.archives(EU, "leases"))
    return cell, before, key


def test_a_lease_that_lies_in_two_archives_and_in_the_ledger_is_told_once(
    deployment: Settings, ledger: PostgresLedger, store: Store, tmp_path: Path
) -> None:
    cell, before, key = one_archived(deployment, ledger, store)
    store.fetch(key, tmp_path / "twice.parquet")
    store.copy(key, old_key(tmp_path / "twice.parquet"))
    assert statements(deployment) == before

    finish(cell, work(cell, NIGHTS[0], generation=2))
    both = statements(deployment)
    assert [(night.night, night.generation) for night in both[1].nights] == [(NIGHTS[0], 1), (NIGHTS[0], 2)]
    assert both[1].nights[0] == before[1].nights[0]
    assert archive_step(deployment, now=LATER)
    assert statements(deployment) == both


def test_an_archive_from_before_it_was_sorted_by_car_is_told_the_same(
    deployment: Settings, ledger: PostgresLedger, store: Store, tmp_path: Path
) -> None:
    _, before, key = one_archived(deployment, ledger, store)
    store.fetch(key, tmp_path / "new.parquet")
    table = pq.read_table(tmp_path / "new.parquet", partitioning=None).sort_by([("shard_id", "ascending")])
    pq.write_table(table.drop_columns(["bytes_read", "bytes_sent"]), tmp_path / "old.parquet")
    store.delete(key)
    store.create_file(old_key(tmp_path / "old.parquet"), tmp_path / "old.parquet")
    assert statements(deployment) == before

    for key in list(store.keys(layout.archives(EU, "shards"))):
        store.delete(key)
    assert {tuple(one.unreadable_nights) for one in statements(deployment).values() if not one.nights} == {(NIGHTS[0],)}


def test_an_archive_with_a_wrong_bit_is_named_or_tells_the_same_and_never_ends_the_process(
    deployment: Settings, ledger: PostgresLedger, store: Store
) -> None:
    cell = Cell(ledger)
    cell.enrol(*CARS)
    finish(cell, work(cell, NIGHTS[0]))
    before = find_statement(deployment, CarId(1))
    assert archive_step(deployment, now=LATER)
    [key] = store.keys(layout.archives(EU, "leases"))
    right = store.read(key)
    footer = len(right) - 8 - int.from_bytes(right[-8:-4], "little")
    refused = 0
    places = [*range(0, footer, 41), *range(footer, len(right), 29)]
    for bit, place in enumerate(places):
        wrong = bytearray(right)
        wrong[place] ^= 1 << bit % 8
        store.write(key, bytes(wrong))
        told = car_statement(ledger, Archive(store=store, cell=EU), CarId(1))
        if told.unreadable_nights:
            refused += 1
            assert (told.unreadable_nights, told.nights) == ([NIGHTS[0]], [])
            assert told.owner_paid_micro == before.owner_paid_micro > 0
        else:
            assert place < footer
            assert told == before
    assert len(range(footer, len(right), 29)) < refused < len(places)  # some pages hold what no statement tells


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingStore(LocalStore):
    """A folder that notes how much is read of it."""

    sizes: list[int]

    def read(self, key: str) -> bytes:
        return self._noted(LocalStore.read(self, key))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        return self._noted(LocalStore.read_range(self, key, start, stop))

    def _noted(self, data: bytes) -> bytes:
        self.sizes.append(len(data))
        return data


def test_of_a_large_archive_a_statement_reads_a_footer_and_the_row_group_of_its_car(
    deployment: Settings, ledger: PostgresLedger, store: Store, tmp_path: Path
) -> None:
    cell = Cell(ledger)
    cell.enrol(*CARS)
    finish(cell, work(cell, NIGHTS[0]))
    before = find_statement(deployment, CarId(1001))
    assert archive_step(deployment, now=LATER)
    [key] = store.keys(layout.archives(EU, "leases"))
    store.fetch(key, tmp_path / "small.parquet")
    small = pq.read_table(tmp_path / "small.parquet", partitioning=None)
    others = 100_000
    strangers = small.take([0] * others).set_column(
        small.schema.get_field_index("car_id"), "car_id", pa.array(range(2000, 2000 + others))
    )
    strangers = strangers.set_column(
        small.schema.get_field_index("audit_detail"), "audit_detail", pa.array([f"{n:064}" for n in range(others)])
    )
    large = tmp_path / "large.parquet"
    pq.write_table(pa.concat_tables([small, strangers]), large, row_group_size=2000, write_statistics=["car_id"])
    store.delete(key)
    store.create_file(archive_key(EU, "leases", date.fromisoformat(NIGHTS[0]), large), large)

    counted = CountingStore(root=Path(deployment.store.removeprefix("file://")), key=b"", base_url="", sizes=[])
    assert car_statement(ledger, Archive(store=counted, cell=EU), CarId(1001)) == before
    assert 0 < sum(counted.sizes) < large.stat().st_size / 5
    assert len(counted.sizes) <= 4  # the footer, and what lies apart of the row group


def test_an_archive_that_is_no_parquet_file_is_named(
    deployment: Settings, ledger: PostgresLedger, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Cell(ledger).enrol(1)
    for n, data in enumerate((b"", b"not a table", b"PAR1" + bytes(100) + b"PAR1", b"PAR1" + b"\xff" * 8)):
        (tmp_path / str(n)).write_bytes(data)
        old = old_key(tmp_path / str(n))
        footer = hashlib.sha256(data[-8:]).hexdigest()
        for key in (old, *(old.replace(".parquet", f"-{one[:16]}.parquet") for one in (footer, "0" * 16))):
            store.write(key, data)
            with caplog.at_level("ERROR"):
                found = find_statement(deployment, CarId(1))
            assert found.unreadable_nights == [NIGHTS[0]]
            assert "archive cannot be read" in caplog.text
            [one] = Archive(store=store, cell=EU).ended_leases(CarId(1))[1]
            assert f"{key} cannot be read" in one.why
            with pytest.raises(RejectedError, match="lacks nights"):
                statement_table(found)
            assert NIGHTS[0] in statement_page(found)
            store.delete(key)
