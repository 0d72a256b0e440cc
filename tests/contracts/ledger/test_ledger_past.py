"""What a ledger may forget, and what it must not."""

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ledger_nights import Cell, frozen_order, judge, part, publish

from fleetbatch.contracts import conform
from fleetbatch.errors import RejectedError
from fleetbatch.ledger.machine import ARCHIVED, NOT_YOURS
from fleetbatch.ledger.past import NIGHT_TABLES, NightRows
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.nouns import OrderKey
from fleetbatch.units import CellName, LeaseId

NIGHT = dt.date(2026, 11, 22)


def finished_night(cell: Cell) -> OrderKey:
    """A night of two shards that is audited and published."""
    cell.enrol(1, 2)
    key = cell.open({1: (5,), 2: (5,)})
    for number in (1, 2):
        cell.deliver(part(cell.take(number, number), 0, 1, 5))
    for task in cell.ledger.to_audit(2):
        cell.ledger.record_audit(judge(task))
    publish(cell.ledger, key)
    return key


def archived(cell: Cell, folder: Path, ledger: PostgresLedger | None = None) -> NightRows:
    ledger = ledger or cell.ledger
    rows = {name: ledger.archive_night(NIGHT, name, folder / f"{name}.parquet") for name in NIGHT_TABLES}
    return NightRows(**rows)


def offer() -> pa.Table:
    """One shard for one car."""
    row = {"car_id": 1, "seq": 0, "shard_id": 1, "copy": 0, "rg_start": 0, "rg_end": 1, "start_s": 0.0, "end_s": 1.0}
    more = {"p_finish": 1.0, "expected_units": 1.0, "speculative": False, "reason": 0}
    return conform(pa.Table.from_pylist([row | more]), "assignments")


def test_a_night_is_old_once_all_its_orders_are_over_for_long_enough(cell: Cell) -> None:
    finished_night(cell)
    other = cell.open({9: (5,)}, frozen_order(name="other"))
    assert cell.ledger.closed_nights(cell.now + dt.timedelta(days=30)) == []
    cell.ledger.cancel(other, "not wanted")
    assert cell.ledger.closed_nights(cell.now) == []
    assert cell.ledger.closed_nights(cell.now + dt.timedelta(days=1)) == [NIGHT]


def test_a_verdict_that_comes_while_its_night_is_archived_does_not_count(cell: Cell, tmp_path: Path) -> None:
    cell.enrol(1)
    key = cell.open({7: (5,)})
    cell.deliver(part(cell.take(1, 7), 0, 1, 5))
    [task] = cell.ledger.to_audit(1)
    cell.ledger.cancel(key, "not wanted")
    rows = archived(cell, tmp_path)
    assert cell.ledger.record_audit(judge(task)) is False
    assert cell.ledger.drop_night(NIGHT, rows)
    assert pq.read_table(tmp_path / "leases.parquet")["credit"].to_pylist() == ["none"]
    assert cell.ledger.balances() == {"escrow": 0, "fleet": 0}


def test_no_verdict_is_turned_away_while_an_order_of_the_night_is_open(cell: Cell, tmp_path: Path) -> None:
    cell.enrol(1)
    cell.open({7: (5,)})
    cell.deliver(part(cell.take(1, 7), 0, 1, 5))
    [task] = cell.ledger.to_audit(1)
    archived(cell, tmp_path)
    assert cell.ledger.record_audit(judge(task)) is True


def test_an_archive_holds_every_row_with_its_columns(cell: Cell, tmp_path: Path) -> None:
    finished_night(cell)
    assert archived(cell, tmp_path) == NightRows(shards=2, leases=2, parts=2)
    leases = pq.read_table(tmp_path / "leases.parquet").to_pylist()
    assert [(row["car_id"], row["state"], row["credit"], row["audited_items"]) for row in leases] == [
        (1, "done", "credited", ["row of 1"]),
        (2, "done", "credited", ["row of 2"]),
    ]
    assert leases[0]["lease_for"] == dt.timedelta(minutes=10)
    shards = pq.read_table(tmp_path / "shards.parquet").to_pylist()
    assert [(row["shard_id"], row["row_group_rows"], len(row["sha256"])) for row in shards] == [
        (1, [5], 32),
        (2, [5], 32),
    ]


def test_a_car_that_comes_back_after_its_night_was_archived_hears_that_its_lease_is_over(
    cell: Cell, tmp_path: Path
) -> None:
    cell.enrol(3)
    cell.open({3: (5, 5)}, frozen_order(name="left"))
    lease = cell.take(3, 3)
    cell.deliver(part(lease, 0, 1, 5))
    finished_night(cell)
    cell.ledger.cancel(lease.order_key, "not wanted")
    assert cell.ledger.drop_night(NIGHT, archived(cell, tmp_path))

    late = part(lease, 0, 1, 5)
    assert (cell.deliver(late), cell.let_go(lease), cell.beat(lease).go_on) == (ARCHIVED, ARCHIVED, False)
    assert cell.beat(lease).reason == ARCHIVED.reason
    other = LeaseId(lease.lease_id.replace("20261122", "20261121"))
    assert cell.ledger.gone([lease.lease_id, other, LeaseId("nonsense")]) == [ARCHIVED, NOT_YOURS, NOT_YOURS]


def test_a_dropped_night_is_gone_and_dropping_it_again_changes_nothing(cell: Cell, tmp_path: Path) -> None:
    key = finished_night(cell)
    rows = archived(cell, tmp_path)
    assert cell.ledger.drop_night(NIGHT, rows)
    assert cell.ledger.counts(key).total == 0
    assert cell.ledger.closed_nights(cell.now + dt.timedelta(days=1)) == []
    assert cell.ledger.order(key) is not None
    assert cell.ledger.drop_night(NIGHT, NightRows(shards=0, leases=0, parts=0))


def test_a_night_that_holds_other_rows_than_were_archived_stays(cell: Cell, tmp_path: Path) -> None:
    key = finished_night(cell)
    rows = archived(cell, tmp_path)
    assert not cell.ledger.drop_night(NIGHT, NightRows(shards=rows.shards, leases=rows.leases - 1, parts=rows.parts))
    assert cell.ledger.counts(key).done == 2


def test_a_night_with_an_open_order_stays(cell: Cell, tmp_path: Path) -> None:
    cell.open({1: (5,)})
    assert not cell.ledger.drop_night(NIGHT, archived(cell, tmp_path))


def test_a_dropped_night_can_be_computed_anew(cell: Cell, tmp_path: Path) -> None:
    finished_night(cell)
    cell.ledger.drop_night(NIGHT, archived(cell, tmp_path))
    again = cell.open({3: (5,)}, frozen_order(generation=2))
    cell.deliver(part(cell.take(1, 3), 0, 1, 5))
    assert cell.ledger.counts(again).returned == 1


def test_an_old_orders_key_is_forgotten_and_an_open_ones_kept(cell: Cell) -> None:
    key = finished_night(cell)
    still = cell.open({9: (5,)}, frozen_order(name="other"))
    later = cell.now + dt.timedelta(days=1)
    assert [row.key for row in cell.ledger.keys_to_forget(later)] == [key]
    for one in (key, still):
        cell.ledger.forget_key(one)
    assert cell.ledger.keys_to_forget(later) == []
    forgotten, kept = cell.ledger.order(key), cell.ledger.order(still)
    assert forgotten is not None
    assert kept is not None
    assert (forgotten.frozen.secret_wrapped, kept.frozen.secret_wrapped) == (b"", bytes(40))


def test_old_rounds_are_forgotten_with_their_offers_but_never_the_newest(cell: Cell) -> None:
    cell.enrol(1)
    cell.open({1: (5,)})
    rounds = []
    for _ in range(3):
        lock = cell.ledger.lock_planner(CellName("eu"))
        assert lock is not None
        rounds.append(cell.ledger.write_round(lock, offer(), {}))
        cell.pass_time(days=3)
    before = cell.now - dt.timedelta(days=4)
    assert cell.ledger.rounds_before(before) == rounds[1]
    cell.ledger.forget_rounds(rounds[1], before)
    assert cell.ledger.rounds_before(cell.now) is None
    assert cell.ledger.latest_round() == rounds[2]
    assert cell.ledger.offers(rounds[2]).shard_id.tolist() == [1]


def test_the_trusted_role_may_drop_a_night_and_the_gateways_role_may_not(
    cell: Cell, cell_url: str, tmp_path: Path
) -> None:
    finished_night(cell)
    rows = archived(cell, tmp_path)
    with (
        PostgresLedger.open(cell_url.replace("//postgres:@", "//fleetbatch_gateway:@")) as gateway,
        pytest.raises(RejectedError, match="permission denied"),
    ):
        gateway.drop_night(NIGHT, rows)
    with PostgresLedger.open(cell_url.replace("//postgres:@", "//fleetbatch_trusted:@")) as trusted:
        assert archived(cell, tmp_path, trusted) == rows
        assert trusted.drop_night(NIGHT, rows)
