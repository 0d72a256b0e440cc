"""A book is recomputed some shards at a time, and comes out the same."""

import datetime as dt
import itertools
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deployments import deployed
from hypothesis import given
from hypothesis import strategies as st
from ledger_nights import EVENING, judge, open_cell, part, publish
from ledger_sound import wipe

from fleetbatch import layout
from fleetbatch.errors import RejectedError
from fleetbatch.ledger.book import ALL_SHARDS, DeliveredLease, Entry
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.local.postgres import Postgres
from fleetbatch.owners import ShardRanges, archive_key
from fleetbatch.settings import Settings, load_settings
from fleetbatch.steps.archiving import archive_step
from fleetbatch.steps.credits import CellBook, _Cell, _recompute_cell, recompute_credits
from fleetbatch.steps.doors import open_doors

CARS = (1, 2, 3)
NIGHT = EVENING.date()
ID = st.integers(0, (1 << 63) - 1)
TOP = (1 << 63) - 1
SHARDS = (0, 5, 1 << 61, 1 << 62, (1 << 62) + 1, TOP)


@pytest.fixture
def deployment(postgres: Postgres, tmp_path: Path) -> Iterator[Settings]:
    with deployed(tmp_path, postgres, cells=1) as file:
        yield load_settings(file)


def finished(deployment: Settings) -> None:
    """A night of shards from the lowest id to the highest, each made by two cars of which one is caught lying."""
    wipe(deployment.cells[0].ledger_url)
    with open_cell(deployment.cells[0].ledger_url) as cell:
        cell.enrol(*CARS)
        key = cell.open(dict.fromkeys(SHARDS, (3, 4)))
        for shard in SHARDS:
            for car, start, rows in ((1, 0, 3), (2 + shard % 2, 1, 4)):
                lease = cell.take(car, shard)
                cell.deliver(part(lease, start, start + 1, rows))
                cell.let_go(lease)
        for task in cell.ledger.to_audit(len(SHARDS)):
            cell.ledger.record_audit(judge(task, wrong=frozenset({3})))
        cell.ledger.give_up(key, "the deadline")
        publish(cell.ledger, key)


def recomputed(deployment: Settings, *, at_a_time: int) -> CellBook:
    [book] = recompute_credits(deployment, at_a_time=at_a_time).values()
    return book


def test_a_book_is_the_same_by_whatever_ranges_it_is_recomputed_and_archived_or_not(deployment: Settings) -> None:
    finished(deployment)
    before = [recomputed(deployment, at_a_time=rows) for rows in (1, 3, 7, 50_000)]
    assert archive_step(deployment, now=EVENING + timedelta(days=60))
    after = [recomputed(deployment, at_a_time=rows) for rows in (1, 3, 7, 50_000)]
    assert before + after == [before[0]] * 8
    assert (after[0].leases, after[0].entries, after[0].differences) == (12, 24, ())


def test_forged_entries_are_found_in_every_range(deployment: Settings) -> None:
    finished(deployment)
    assert archive_step(deployment, now=EVENING + timedelta(days=60))
    with psycopg.connect(deployment.cells[0].ledger_url) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE fleetbatch.book SET work_micro = work_micro + 1 WHERE fence = 2 AND step = 'escrow'")
    found = [recomputed(deployment, at_a_time=rows).differences for rows in (1, 50_000)]
    assert found[0] == found[1]
    assert [line.split()[3].split("-")[1] for line in found[0][: len(SHARDS)]] == [f"{shard:016x}" for shard in SHARDS]


def test_a_forged_entry_of_a_shard_that_cannot_be_is_found(deployment: Settings) -> None:
    finished(deployment)
    with psycopg.connect(deployment.cells[0].ledger_url) as owner:
        owner.execute(
            "INSERT INTO fleetbatch.book SELECT night, -5, fence, step, at, car_id, from_account, to_account, 7, 0"
            " FROM fleetbatch.book WHERE shard_id = 5 AND fence = 1 AND step = 'settle'"
        )
    for rows in (1, 50_000):
        entry, *accounts = recomputed(deployment, at_a_time=rows).differences
        assert f"{-5:016x}" in entry
        assert [line.split()[1] for line in accounts] == ["escrow:", f"owner:{1001:016x}:"]


def test_an_archive_of_which_a_byte_was_changed_is_no_ground_for_a_book(deployment: Settings) -> None:
    finished(deployment)
    assert archive_step(deployment, now=EVENING + timedelta(days=60))
    with open_doors(deployment) as doors:
        [name] = doors.ledgers
        for table in ("leases", "shards"):
            [key] = doors.store.keys(layout.archived(name, table, str(NIGHT)))
            right = doors.store.read(key)
            doors.store.write(key, right[:20] + bytes([right[20] ^ 1]) + right[21:])
            with pytest.raises(RejectedError, match=f"{table}.*is not what was written"):
                recompute_credits(deployment)
            doors.store.write(key, right)
        doors.store.delete(key)
        with pytest.raises(RejectedError, match=f"lease of shard {0:016x}, night {NIGHT}, and no such shard"):
            recompute_credits(deployment)
        doors.store.write(key, right)
    assert recomputed(deployment, at_a_time=5).differences == ()


class LeavingLedger(PostgresLedger):
    """A ledger whose nights go to the archive just before its book is looked into for the first time."""

    leave: Callable[[], object] | None = None

    def night_book(self, night: dt.date, shards: range = ALL_SHARDS) -> tuple[list[DeliveredLease], list[Entry]]:
        leave, self.leave = self.leave, None
        if leave is not None:
            leave()
        return super().night_book(night, shards)


def test_a_night_that_goes_to_the_archive_meanwhile_is_looked_for_there(deployment: Settings) -> None:
    finished(deployment)
    before = recomputed(deployment, at_a_time=7)
    [cell] = deployment.cells
    with open_doors(deployment) as doors, LeavingLedger.open(cell.ledger_url) as ledger:
        ledger.leave = lambda: archive_step(deployment, now=EVENING + timedelta(days=60))
        assert _recompute_cell(_Cell(doors.store, cell.name, ledger), at_a_time=7) == before
    assert recomputed(deployment, at_a_time=7) == before


# -- memory


def columns(table: str, count: int) -> dict[str, Any]:
    shards = {"shard_id": [place * (TOP // count) for place in range(count)]}
    if table == "shards":
        return shards | {"work_units": [7.0] * count, "rows": [7] * count}
    lease = {"night": [NIGHT] * count, "fence": [1] * count, "car_id": [1 + place % 3 for place in range(count)]}
    lease |= {"granted_at": [EVENING + timedelta(days=9000)] * count, "delivered_rows": [7] * count}
    return shards | lease | {"delivered_wh": [1.0] * count, "credit": ["none"] * count}


def most_bytes(deployment: Settings, *, count: int) -> int:
    """Archive a night of so many leases by hand and recompute it; return the most that was in memory for it."""
    wipe(deployment.cells[0].ledger_url)
    with open_cell(deployment.cells[0].ledger_url) as cell:
        cell.enrol(*CARS)
        cell.open({1: (1,)})
    with open_doors(deployment) as doors, tempfile.TemporaryDirectory() as folder:
        [name] = doors.ledgers
        for table in ("leases", "shards"):
            for old in list(doors.store.keys(layout.archives(name, table))):
                doors.store.delete(old)
            path = Path(folder) / table
            pq.write_table(pa.table(columns(table, count)), path, row_group_size=500, write_page_checksum=True)
            doors.store.create_file(archive_key(name, table, NIGHT, path), path)
    tracemalloc.start()
    try:
        book = recomputed(deployment, at_a_time=500)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (book.leases, book.entries, book.differences) == (count, 0, ())
    return most


def test_of_an_archived_night_some_shards_at_a_time_are_in_memory(deployment: Settings) -> None:
    few, many = (most_bytes(deployment, count=count) for count in (1000, 8000))
    assert many < 1.5 * few


# -- ranges


@given(rows=st.integers(0, 1 << 40), at_a_time=st.integers(1, 1 << 20), ids=st.lists(ID, min_size=1, max_size=20))
def test_every_shard_is_in_one_range_and_ranges_follow_each_other(rows: int, at_a_time: int, ids: list[int]) -> None:
    ranges = ShardRanges.of(rows, at_a_time=at_a_time)
    told = list(ranges)
    assert (told[0].start, told[-1].stop, len(told)) == (0, 1 << 63, ranges.count)
    assert all(one.stop == other.start for one, other in itertools.pairwise(told))
    places = ranges.places(np.array(ids, np.int64)).tolist()
    assert all(shard in told[place] for shard, place in zip(ids, places, strict=True))
