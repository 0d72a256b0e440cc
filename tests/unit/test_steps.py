import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetbatch.errors import RejectedError
from fleetbatch.ledger.messages import ShardCounts
from fleetbatch.local.airflow import airflow_env
from fleetbatch.nouns import Auditing, Cutting, Order, OrderKey
from fleetbatch.settings import Settings
from fleetbatch.steps.forecast import capacities, hours_ahead, rows_left
from fleetbatch.steps.opening import order_step
from fleetbatch.steps.waiting import AUDIT_GRACE, judge_wait, total
from fleetbatch.units import CellName, Night, OrderName

KEY = OrderKey.parse("2026-11-22/overnight/g1")
DEADLINE = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
BEFORE, AFTER = DEADLINE - timedelta(seconds=1), DEADLINE + timedelta(seconds=1)
STATES = ("ready", "out", "returned", "valid", "done", "missing")
COUNTS = st.builds(ShardCounts, **dict.fromkeys(STATES, st.integers(0, 9)))


def over(counts: ShardCounts, now: datetime) -> bool:
    return judge_wait(KEY, counts, DEADLINE, now=now).over


def test_the_wait_is_over_when_every_shard_is_accounted_for() -> None:
    assert over(ShardCounts(valid=3, missing=1), BEFORE)


@pytest.mark.parametrize("left", ["ready", "out", "returned"])
def test_the_wait_goes_on_while_a_shard_is_open_and_the_deadline_ahead(left: str) -> None:
    assert not over(ShardCounts(valid=3, **{left: 1}), BEFORE)


@pytest.mark.parametrize("left", ["ready", "out"])
def test_the_wait_ends_at_the_deadline(left: str) -> None:
    assert over(ShardCounts(**{left: 1}), AFTER)


def test_what_came_back_in_time_may_still_be_audited_for_a_while() -> None:
    waiting = ShardCounts(ready=1, returned=1)
    assert not over(waiting, AFTER)
    assert over(waiting, DEADLINE + AUDIT_GRACE)


@given(st.lists(COUNTS))
def test_counts_of_cells_add_up(each: list[ShardCounts]) -> None:
    assert total(each).total == sum(one.total for one in each)
    assert total(each).finished == all(one.finished for one in each)


def test_the_line_for_the_night_watch_says_where_the_shards_are() -> None:
    counts = ShardCounts(ready=1, out=2, returned=3, valid=4, missing=5)
    line = judge_wait(KEY, counts, DEADLINE, now=AFTER).line()
    assert line == (
        "2026-11-22/overnight/g1: 9 of 15 shards accounted for; 1 free, 2 on cars, 3 being audited, 5 missing; "
        "the deadline 2026-11-23 06:00 UTC has passed"
    )


@pytest.fixture
def silent_database() -> Iterator[str]:
    """A server that accepts and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"postgresql://nobody@127.0.0.1:{server.getsockname()[1]}/none"


def start_step(folder: Path, step: str, ledger_url: str, **words: Any) -> "subprocess.Popen[bytes]":
    (folder / "deployment.key").write_text("00" * 32)
    settings = folder / "settings.toml"
    settings.write_text(
        f'store = "file://{folder}/store"\ndeployment_key_file = "deployment.key"\n[[cells]]\nname = "eu-1"\n'
        f'region = "eu"\ngateway_url = "http://eu-1.invalid"\nledger_url = "{ledger_url}"\n'
        f'gateway_ledger_url = "{ledger_url}"\n'
    )
    told = {"settings": str(settings), "now": DEADLINE.isoformat(), "key": str(KEY), **words}
    command = [sys.executable, "-m", "fleetbatch.steps", step, json.dumps(told), str(folder / "answer.json")]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)


def answer_of(folder: Path, child: "subprocess.Popen[bytes]") -> dict[str, str]:
    assert child.wait(60) == 0
    assert child.stdin is not None
    child.stdin.close()
    found: dict[str, str] = json.loads((folder / "answer.json").read_text())
    return found


def test_a_step_that_is_refused_says_why(tmp_path: Path) -> None:
    words = {"file": str(tmp_path / "no.toml"), "night": "2026-11-22", "force": False}
    child = start_step(tmp_path, "order", "postgresql:///none", **words)
    assert "no.toml" in answer_of(tmp_path, child)["rejected"]


def test_a_step_whose_database_is_down_may_be_tried_again(tmp_path: Path) -> None:
    child = start_step(tmp_path, "merge", "postgresql://nobody@127.0.0.1:1/none")
    assert "database does not answer" in answer_of(tmp_path, child)["transient"]


def test_a_step_ends_at_once_when_whoever_started_it_is_gone(tmp_path: Path, silent_database: str) -> None:
    child = start_step(tmp_path, "merge", silent_database)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(2)
    began = time.monotonic()

    assert child.stdin is not None
    child.stdin.close()

    assert child.wait(10) == 3
    assert time.monotonic() - began < 1.5
    assert not (tmp_path / "answer.json").exists()


def test_the_laptops_airflow_knows_nothing_of_another_airflow() -> None:
    base = {"AIRFLOW_HOME": "/theirs", "AIRFLOW__CORE__DAGS_FOLDER": "/theirs/dags", "PATH": "/bin", "HOME": "/home/me"}
    env = airflow_env(base, home=Path("/ours"), settings=Path("/ours/settings.toml"), dags=Path("/dags"))
    assert "/theirs" not in " ".join(env.values())
    assert env["HOME"] == "/home/me"
    assert env["PATH"].endswith(":/bin")
    assert env["AIRFLOW__CORE__PLUGINS_FOLDER"] == "/dags/plugins"


def parked(*survival: list[int], ready_s: float = 0.0, limit_s: float = 1e6) -> pa.Table:
    rows = len(survival)
    curves = [curve + [0] * (97 - len(curve)) for curve in survival]
    return pa.table(
        {
            "survival": pa.array(curves, pa.list_(pa.uint8(), 97)),
            "ready_s": pa.array([ready_s] * rows, pa.float32()),
            "limit_s": pa.array([limit_s] * rows, pa.float32()),
        }
    )


def test_hours_ahead_are_those_in_which_cars_will_probably_be_there() -> None:
    assert hours_ahead(parked([255] * 8), within_s=36_000) == pytest.approx(2.0)
    assert hours_ahead(parked([255] * 8, [51] * 8), within_s=36_000) == pytest.approx(2.4)


def test_hours_ahead_end_at_the_deadline_and_begin_when_the_car_may_compute() -> None:
    assert hours_ahead(parked([255] * 97), within_s=5400) == pytest.approx(1.5)
    assert hours_ahead(parked([255] * 97, ready_s=1800), within_s=5400) == pytest.approx(1.0)
    assert hours_ahead(parked([255] * 97, limit_s=2700), within_s=5400) == pytest.approx(0.75)
    assert hours_ahead(parked(), within_s=5400) == 0.0


@pytest.mark.parametrize(
    ("forecast", "shares"),
    [
        ({"eu": 30.0, "us": 10.0}, {"eu": 30.0, "us": 10.0}),
        ({"eu": 30.0, "us": -5.0}, {"eu": 30.0, "us": 0.0}),
        ({"eu": 30.0, "us": None}, {"eu": 7.0, "us": 8.0}),
        ({"eu": -1.0, "us": 0.0}, {"eu": 7.0, "us": 8.0}),
    ],
)
def test_work_for_any_region_is_split_by_the_cells_free_hours(
    forecast: dict[CellName, float | None], shares: dict[CellName, float]
) -> None:
    assert capacities(forecast, {CellName("eu"): 7.0, CellName("us"): 8.0}) == shares


def test_rows_left_are_those_of_row_groups_not_delivered() -> None:
    shards = pa.table({"rows": [100, 50], "row_groups": [10, 5], "done_through": [4, 0]})
    assert rows_left(shards) == 110


@pytest.mark.parametrize("night", ["2026-13-01", "tonight", "20261122", ""])
def test_a_night_is_a_date(tmp_path: Path, night: str) -> None:
    settings = Settings(store=f"file://{tmp_path}/store", deployment_key=bytes(32), cells=())
    order = Order(
        name=OrderName("small"),
        workload="image",
        source="generator:road-signs?count=1&seed=1",
        model="road_signs",
        region="any",
        priority=1,
        deadline_hours=1.0,
        data_class="open",
        schedule="",
        timezone="UTC",
        cutting=Cutting(),
        auditing=Auditing(),
    )
    with pytest.raises(RejectedError, match="expected a date such as"):
        order_step(settings, order, night=Night(night), force=False, now=DEADLINE)
