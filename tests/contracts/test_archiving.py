"""What maintenance takes away from real ledgers and a real store, and what it leaves."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deployments import deployed
from ledger_nights import EVENING, Cell, frozen_order, judge, part, publish

from fleetbatch import layout
from fleetbatch.contracts import empty
from fleetbatch.errors import RejectedError
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.local.postgres import Postgres
from fleetbatch.nouns import FrozenOrder
from fleetbatch.orders import order_to_json, stored_order
from fleetbatch.settings import Settings, load_settings
from fleetbatch.steps.archiving import archive_step, forget_keys_step, forget_rounds_step
from fleetbatch.store import Store, open_store
from fleetbatch.units import CellName, RoundId, ShardId

EU = CellName("eu-1")
LATER = EVENING + timedelta(days=60)
ORDER = replace(frozen_order(), secret_wrapped=b"a secret")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    settings: Settings
    store: Store
    ledgers: dict[str, PostgresLedger]

    def finish(self, cell_name: str, order: FrozenOrder = ORDER) -> None:
        """Run one order's night in a cell to its end."""
        cell = Cell(self.ledgers[cell_name])
        cell.enrol(1)
        key = cell.open({1: (5,)}, order)
        cell.deliver(part(cell.take(1, 1), 0, 1, 5))
        [task] = cell.ledger.to_audit(1)
        cell.ledger.record_audit(judge(task))
        publish(cell.ledger, key)


@pytest.fixture
def deployment(tmp_path: Path, postgres: Postgres) -> Iterator[Deployment]:
    with deployed(tmp_path, postgres) as file:
        settings = load_settings(file)
        store = open_store(settings.store, deployment_key=settings.deployment_key)
        eu, us = settings.cells
        with PostgresLedger.open(eu.ledger_url) as first, PostgresLedger.open(us.ledger_url) as second:
            yield Deployment(settings=settings, store=store, ledgers={"eu-1": first, "us-1": second})


def test_an_old_night_moves_to_files_and_a_second_run_finds_nothing(deployment: Deployment, tmp_path: Path) -> None:
    deployment.finish("eu-1")

    assert archive_step(deployment.settings, now=EVENING + timedelta(days=20)) == {}
    moved = archive_step(deployment.settings, now=LATER)
    assert moved == {"eu-1/2026-11-22": {"shards": 1, "leases": 1, "parts": 1}}
    assert archive_step(deployment.settings, now=LATER) == {}

    [key] = deployment.store.keys(layout.archives(EU, "parts"))
    assert "night=2026-11-22" in key
    deployment.store.fetch(key, tmp_path / "parts.parquet")
    [row] = pq.read_table(tmp_path / "parts.parquet", partitioning=None).to_pylist()
    assert (row["shard_id"], row["rows"], row["signature"]) == (1, 5, "signed")
    assert deployment.ledgers["eu-1"].counts(ORDER.key).total == 0


def test_a_night_that_is_computed_anew_is_archived_beside_its_first_archive(deployment: Deployment) -> None:
    deployment.finish("eu-1")
    archive_step(deployment.settings, now=LATER)
    deployment.finish("eu-1", replace(ORDER, key=replace(ORDER.key, generation=2)))

    archive_step(deployment.settings, now=LATER)

    assert len(list(deployment.store.keys(layout.archives(EU, "leases")))) == 2


def test_a_store_that_holds_something_else_under_an_archives_name_costs_no_row(deployment: Deployment) -> None:
    deployment.finish("eu-1")
    archive_step(deployment.settings, now=LATER)
    [key] = deployment.store.keys(layout.archives(EU, "shards"))
    deployment.finish("us-1")
    theirs = key.replace("eu-1", "us-1")
    deployment.store.create(theirs, b"half of it")

    with pytest.raises(RejectedError, match="is not what was written to it"):
        archive_step(deployment.settings, now=LATER)
    assert deployment.ledgers["us-1"].counts(ORDER.key).done == 1

    deployment.store.delete(theirs)
    assert archive_step(deployment.settings, now=LATER).keys() == {"us-1/2026-11-22"}


def test_an_old_orders_secret_is_forgotten_in_the_store_and_in_every_cell(deployment: Deployment) -> None:
    deployment.store.create(layout.order(ORDER.key), order_to_json(ORDER))
    deployment.store.create(layout.shard(ORDER.key, ShardId(1)), b"sealed")
    for cell in ("eu-1", "us-1"):
        deployment.finish(cell)

    assert forget_keys_step(deployment.settings, now=LATER) == [str(ORDER.key)]
    assert forget_keys_step(deployment.settings, now=LATER) == []

    assert stored_order(deployment.store, ORDER.key) == replace(ORDER, secret_wrapped=b"")
    assert deployment.store.size(layout.shard(ORDER.key, ShardId(1))) is None
    rows = [ledger.order(ORDER.key) for ledger in deployment.ledgers.values()]
    assert [row and row.frozen.secret_wrapped for row in rows] == [b"", b""]


def test_a_secret_is_kept_while_one_cell_still_computes_with_it(deployment: Deployment) -> None:
    deployment.store.create(layout.order(ORDER.key), order_to_json(ORDER))
    deployment.finish("eu-1")
    deployment.ledgers["us-1"].open_order(ORDER)

    assert forget_keys_step(deployment.settings, now=LATER) == []
    assert stored_order(deployment.store, ORDER.key) == ORDER


def test_old_rounds_and_telemetry_go_and_young_ones_stay(deployment: Deployment) -> None:
    ledger = deployment.ledgers["eu-1"]
    names = []
    for age_days in (100, 20, 0):
        at = LATER - timedelta(days=age_days)
        ledger.turn_clock(at)
        lock = ledger.lock_planner(EU)
        assert lock is not None
        names.append(layout.round_name(at, ledger.write_round(lock, empty("assignments"), {})))
        deployment.store.create(layout.round_table(EU, names[-1], "cars"), b"cars")
        deployment.store.create(layout.telemetry(EU, "gateway", at), b"signals")

    assert forget_rounds_step(deployment.settings, now=LATER) == {"eu-1": 3, "us-1": 0}
    assert forget_rounds_step(deployment.settings, now=LATER) == {"eu-1": 0, "us-1": 0}

    assert list(deployment.store.keys(layout.rounds(EU))) == [layout.round_table(EU, names[-1], "cars")]
    assert len(list(deployment.store.keys(layout.telemetry_days(EU)))) == 2


def test_rounds_of_a_ledger_that_is_gone_go_when_they_are_old_though_their_numbers_are_higher(
    deployment: Deployment,
) -> None:
    old, young = (
        layout.round_table(EU, layout.round_name(LATER - timedelta(days=age_days), RoundId(number)), "cars")
        for age_days, number in ((100, 900), (0, 1))
    )
    for key in (old, young):
        deployment.store.create(key, b"cars")
    assert forget_rounds_step(deployment.settings, now=LATER)["eu-1"] == 1
    assert list(deployment.store.keys(layout.rounds(EU))) == [young]
