"""Airflow's own scheduler and triggerer open and close nights; no car comes, so the cloud lane computes them.

Takes a few minutes: part of `make prove`.
"""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow.parquet as pq
import pytest
from builders import colour_bundle
from deployments import deployed

from fleetbatch import layout
from fleetbatch.local.airflow import airflow_env, dags_folder, migrate_airflow, standalone_command, stop_airflow
from fleetbatch.local.postgres import Postgres
from fleetbatch.units import OrderName

pytestmark = [pytest.mark.prove, pytest.mark.timeout(2400)]

ROWS = 800
"""So many that the cloud lane, which has not measured itself yet, takes the first night's shards at once."""
ORDER = f"""
source = "generator:road-signs?count={ROWS}&seed=1"
model = "colours.zip"
deadline_hours = 0.02
schedule = "0 20 * * *"
timezone = "Europe/Berlin"
[cutting]
shard_rows = 400
row_group_rows = 100
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A running Airflow over a running deployment."""

    env: dict[str, str]
    url: str
    store: Path

    def airflow(self, *words: str) -> None:
        command = [sys.executable, "-m", "airflow", *words]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def get(self, path: str) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = httpx.get(f"{self.url}{path}", timeout=10, trust_env=False).json()
        except (httpx.TransportError, json.JSONDecodeError):
            return {}
        return answer

    def runs(self) -> list[tuple[str, str, str]]:
        """Partition, kind and state of every run."""
        found = self.get("/api/v2/dags/small/dagRuns?limit=100").get("dag_runs", [])
        return sorted((run["partition_key"] or "", run["run_type"], run["state"]) for run in found)

    def no_backfill(self) -> bool:
        """Whether every backfill is closed."""
        found = self.get("/api/v2/backfills?dag_id=small").get("backfills")
        return found is not None and all(one["completed_at"] for one in found)

    def nights(self, order: str = "small") -> dict[str, dict[str, Any]]:
        """What is published, by night."""
        path = self.store / layout.nights(OrderName(order))
        if not path.exists():
            return {}
        return {row["night"]: row for row in pq.read_table(io.BytesIO(path.read_bytes())).to_pylist()}


def wait(true: Callable[[], Any], what: Callable[[], object], *, seconds: float = 600) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, what()
        time.sleep(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def standing(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    folder, port = tmp_path_factory.mktemp("scheduler"), free_port()
    (folder / "orders").mkdir()
    (folder / "orders" / "small.toml").write_text(ORDER)
    (folder / "orders" / "colours.zip").write_bytes(colour_bundle())
    with contextlib.ExitStack() as stack:
        settings = stack.enter_context(deployed(folder, postgres, cells=1))
        env = airflow_env(
            os.environ, home=folder, settings=settings, dags=dags_folder(), orders=folder / "orders", port=port
        )
        log = stack.enter_context((folder / "log").open("wb"))
        migrate_airflow(env)
        command = [sys.executable, "-m", "fleetbatch.auditor", "--settings", str(settings), "--cell", "eu-1"]
        auditor = subprocess.Popen(command, stdout=log, stderr=log)
        stack.callback(auditor.wait)
        stack.callback(auditor.terminate)
        airflow = subprocess.Popen(standalone_command(), env=env, stdout=log, stderr=log, start_new_session=True)
        stack.callback(stop_airflow, airflow)
        running = Standing(env=env, url=f"http://127.0.0.1:{port}", store=folder / "store")
        wait(lambda: healthy(running), lambda: (folder / "log").read_text()[-5000:])
        wait(lambda: running.get("/api/v2/dags/small").get("dag_id"), lambda: running.get("/api/v2/importErrors"))
        yield running
        session = [process for process in psutil.process_iter() if session_of(process) == airflow.pid]
        assert len(session) > 4
        stop_airflow(airflow)
        assert [process for process in session if alive(process)] == []


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def session_of(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None


def healthy(running: Standing) -> bool:
    parts = running.get("/api/v2/monitor/health")
    return bool(parts) and all(
        parts[name]["status"] == "healthy" for name in ("metadatabase", "scheduler", "triggerer", "dag_processor")
    )


def test_the_schedulers_own_tick_runs_a_night(standing: Standing) -> None:
    standing.airflow("dags", "unpause", "small")

    wait(standing.nights, standing.runs)
    wait(lambda: all(state == "success" for *_, state in standing.runs()), standing.runs)
    [(partition, kind, _)] = standing.runs()
    assert kind == "scheduled"
    [(night, row)] = standing.nights().items()
    assert night == partition
    assert (row["rows_out"], row["missing_rows"]) == (ROWS, 0)
    assert "Cell eu-1" in httpx.get(f"{standing.url}/fleetbatch/", timeout=10, trust_env=False).text


def test_a_backfill_computes_three_nights_and_a_forced_one_replaces_just_its_own(standing: Standing) -> None:
    dates = ["2026-11-10", "2026-11-11", "2026-11-12"]
    backfill = ("backfill", "create", "--dag-id", "small", "--max-active-runs", "3")

    standing.airflow(*backfill, "--from-date", dates[0], "--to-date", f"{dates[-1]}T23:59:59")

    wait(lambda: set(dates) <= standing.nights().keys(), standing.runs)
    wait(lambda: all(state == "success" for *_, state in standing.runs()), standing.runs)
    first = standing.nights()
    assert [first[date]["rows_out"] for date in dates] == [ROWS] * 3
    assert [first[date]["generation"] for date in dates] == [1, 1, 1]

    # One backfill of a DAG at a time; the scheduler closes a finished one at its next look.
    wait(standing.no_backfill, standing.runs)
    one = (*backfill, "--from-date", dates[1], "--to-date", f"{dates[1]}T23:59:59")
    standing.airflow(*one, "--reprocess-behavior", "completed", "--dag-run-conf", '{"force": true}')

    wait(lambda: standing.nights()[dates[1]]["generation"] == 2, standing.runs)
    second = standing.nights()
    assert second[dates[1]]["files"] != first[dates[1]]["files"]
    unchanged = first.keys() - {dates[1]}
    for night in unchanged:
        assert (second[night]["generation"], second[night]["files"]) == (1, first[night]["files"])


def test_an_order_that_is_typed_into_the_form_runs_at_once(standing: Standing) -> None:
    model = standing.store.parent / "orders" / "colours.zip"
    form = {
        "source": "generator:road-signs?count=5&seed=2",
        "model": str(model),
        "name": "typed",
        "night": "2026-11-20",
    }
    standing.airflow("dags", "unpause", "adhoc")

    standing.airflow("dags", "trigger", "adhoc", "--conf", json.dumps({**form, "deadline_hours": 0.02}))

    wait(lambda: standing.nights("typed"), lambda: standing.get("/api/v2/dags/adhoc/dagRuns"))
    assert standing.nights("typed")["2026-11-20"]["rows_out"] == 5
