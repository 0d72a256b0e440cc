"""Delivered shards are computed again where it counts; what nobody computes, trusted machines do."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from audit_nights import DEPLOYMENT_KEY, AuditNight

from fleetbatch.audit.desk import Desk, Dials, Door
from fleetbatch.audit.lane import Lane
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.merge import merge_order


class Night(AuditNight):
    """An order with a desk whose workers are threads, so that a test sees each tick end."""

    def __init__(self, url: str, folder: Path, ledger: PostgresLedger, pool: ThreadPoolExecutor) -> None:
        super().__init__(url, folder, ledger)
        door = Door(ledger=ledger, store=self.store, pool=pool, deployment_key=DEPLOYMENT_KEY)
        self.desk = Desk(door, Dials(workers=1, part_s=0.0, lane=Lane(margin=timedelta(minutes=5))))

    def work(self, *, after: timedelta = timedelta(0)) -> None:
        """Tick until nothing is left to do."""
        while True:
            self.desk.tick(now=self.now + after)
            running: tuple[Future[Any], ...] = self.desk.running
            if not running:
                return
            wait(running, timeout=30)

    def counts(self) -> dict[str, int]:
        found = self.ledger.counts(self.order.key)
        return {name: count for name in found.__slots__ if (count := getattr(found, name))}


@pytest.fixture
def night(database_url: str, tmp_path: Path) -> Iterator[Night]:
    with PostgresLedger.open(database_url) as ledger, ThreadPoolExecutor(1) as pool:
        yield Night(database_url, tmp_path, ledger, pool)


def test_what_honest_cars_delivered_becomes_valid_and_names_the_rows_computed_again(night: Night) -> None:
    night.enrol(7, 8)
    shard = night.shards[0]
    first = night.take(7, shard)
    night.deliver(first, 1)
    night.ledger.release([release(first)])
    night.deliver(night.take(8, shard))
    night.work()
    assert night.counts() == {"ready": 3, "valid": 1}
    parts = night.ledger.valid_parts(night.order.key).to_pylist()
    assert [len(part["audited_items"]) for part in parts] == [2, 2]
    assert night.ledger.night_stats(night.order.key).audited_rows == 4


def test_one_wrong_row_among_those_chosen_sends_the_whole_shard_back(night: Night) -> None:
    night.enrol(7)
    night.deliver(night.take(7, night.shards[0]), change=lambda rows: [wrong(row) for row in rows])
    night.work()
    assert night.counts() == {"ready": 4}
    assert night.ledger.night_stats(night.order.key).disagreements == 2


def test_a_picture_that_a_car_calls_unreadable_is_always_decoded_again(night: Night) -> None:
    night.enrol(7)
    night.deliver(night.take(7, night.shards[0]), change=lambda rows: [*rows[:-1], unreadable(rows[-1])])
    night.work()
    assert night.counts() == {"ready": 4}


def test_a_picture_that_nobody_can_read_passes_as_a_dead_letter(night: Night) -> None:
    night.enrol(7)
    dead = night.shards[3]
    night.deliver(night.take(7, dead))
    night.work()
    assert night.counts() == {"ready": 3, "valid": 1}


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: [rows[1], rows[0], *rows[2:]],
        lambda rows: rows[1:],
        lambda rows: [*rows, rows[0]],
        lambda rows: [rows[0] | {"item_id": "0" * 16 + "-000000"}, *rows[1:]],
        lambda rows: [row | {"row_group": 0} for row in rows],
        lambda rows: [row | {"also": 1} for row in rows],
        lambda rows: [{"item_id": row["item_id"]} for row in rows],
        lambda rows: [row | {"label": "x" * 5000} for row in rows],
    ],
    ids=["order", "row lost", "row twice", "strange id", "row group", "column more", "columns less", "long text"],
)
def test_a_part_that_is_not_made_of_the_shards_rows_is_refused(night: Night, change: Any) -> None:
    night.enrol(7)
    night.deliver(night.take(7, night.shards[0]), change=change)
    night.work()
    assert night.counts() == {"ready": 4}


def test_bytes_that_are_no_parquet_file_are_refused_and_the_desk_goes_on(night: Night) -> None:
    night.enrol(7, 8)
    night.deliver_bytes(night.take(7, night.shards[0]), 3, b"PAR1 nonsense PAR1", rows=6)
    night.deliver(night.take(8, night.shards[1]))
    night.work()
    assert night.counts() == {"ready": 3, "valid": 1}


def test_an_answer_for_a_row_that_holds_nothing_is_refused(night: Night) -> None:
    night.enrol(7)
    night.deliver(night.take(7, night.shards[3]), change=lambda rows: [answered(row, rows[0]) for row in rows])
    night.work()
    assert night.counts() == {"ready": 4}


def test_a_shard_refused_too_often_is_computed_in_the_cloud_lane(night: Night) -> None:
    night.enrol(7, 8)
    for car in (7, 8):
        night.deliver(night.take(car, night.shards[0]), change=lambda rows: [wrong(row) for row in rows])
        night.work(after=timedelta(minutes=car))
    assert night.counts() == {"ready": 3, "valid": 1}
    assert {part["car_id"] for part in night.ledger.valid_parts(night.order.key).to_pylist()} == {0}


def test_with_all_cars_gone_the_cloud_lane_completes_the_night_where_they_stopped(night: Night) -> None:
    night.enrol(7)
    half = night.take(7, night.shards[0])
    night.deliver(half, 1)
    night.ledger.release([release(half)])
    night.work()
    assert night.counts() == {"ready": 4}
    night.work(after=timedelta(hours=7, minutes=56))
    assert night.counts() == {"valid": 4}
    parts, missing = night.ledger.valid_parts(night.order.key), night.ledger.missing_shards(night.order.key)
    merged = merge_order(night.store, night.order, parts, missing)
    assert (merged.rows_in, merged.rows_out, merged.dead_letter_rows, merged.missing_rows) == (24, 23, 1, 0)


def test_a_cloud_lane_that_was_cut_off_goes_on_where_its_parts_end(night: Night) -> None:
    late = timedelta(hours=7, minutes=56)
    night.desk.tick(now=night.now + late)
    wait(night.desk.running)
    night.desk.tick(now=night.now + late)
    night.desk.let_go()
    wait(night.desk.running)
    night.work(after=late)
    assert night.counts() == {"valid": 4}
    assert night.ledger.night_stats(night.order.key).resumed_shards == 1


def test_the_auditor_process_audits_and_ends_within_two_seconds_of_sigterm(database_url: str, tmp_path: Path) -> None:
    with PostgresLedger.open(database_url) as ledger:
        night = AuditNight(database_url, tmp_path, ledger)
        night.enrol(7)
        night.deliver(night.take(7, night.shards[0]))
        (tmp_path / "deployment.key").write_text(DEPLOYMENT_KEY.hex())
        (tmp_path / "settings.toml").write_text(
            f'store = "{(tmp_path / "store").as_uri()}"\ndeployment_key_file = "deployment.key"\n[[cells]]\n'
            f'name = "eu-1"\nregion = "eu"\nledger_url = "{database_url}"\n'
            f'gateway_ledger_url = "{database_url}"\ngateway_url = "http://127.0.0.1:1"\n'
        )
        command = [sys.executable, "-m", "fleetbatch.auditor", "--settings", str(tmp_path / "settings.toml")]
        command += ["--cell", "eu-1", "--every-s", "0.2", "--lane-margin-s", str(8 * 3600)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as auditor:
            until = time.monotonic() + 40
            while not ledger.counts(night.order.key).finished and time.monotonic() < until:
                time.sleep(0.1)
            auditor.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert auditor.wait(10) == 0
            took = time.monotonic() - began
            assert ends(auditor.pid)
            assert auditor.stderr
            lines = [json.loads(line) for line in auditor.stderr]
        assert ledger.counts(night.order.key).valid == 4, lines
        assert took < 2
        assert {"auditing", "audit passed", "cloud lane takes", "cloud lane delivers"} <= {e["event"] for e in lines}


def test_an_auditor_whose_workers_are_killed_goes_on_with_others(night: Night) -> None:
    night.enrol(7, 8)
    night.deliver(night.take(7, night.shards[0]))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as broken:
        with pytest.raises(BrokenExecutor):
            broken.submit(os._exit, 1).result()
        night.desk.hire(broken)
        night.desk.tick(now=night.now)
    assert night.desk.broken
    with ThreadPoolExecutor(1) as pool:
        night.desk.hire(pool)
        night.work()
    assert night.counts() == {"ready": 3, "valid": 1}


def ends(group: int) -> bool:
    """Wait until no process of the group is left (or has yet to be waited for by the system)."""
    for _ in range(50):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def release(lease: Any) -> Any:
    from fleetbatch.ledger.messages import Release

    return Release(car_id=lease.car_id, lease_id=lease.lease_id, fence=lease.fence, reason="unplugged")


def wrong(row: dict[str, Any]) -> dict[str, Any]:
    """A guess: the labels as they come, with confident scores."""
    if row["error"] is not None:
        return row
    return row | {"score": 0.34, "scores": [0.34, 0.33, 0.33]}


def unreadable(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"label": None, "score": None, "labels": None, "scores": None, "error": "not a picture"}


def answered(row: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return other | {"item_id": row["item_id"], "row_group": row["row_group"]}
