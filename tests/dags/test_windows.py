"""Days and months of the forecast in a real Airflow without a scheduler, over a real store."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deployments import deployed
from signal_rows import PLUGGED, said, signals
from windows_story import UNJUDGED, bytes_of, live, past, small_model

from fleetbatch import layout
from fleetbatch.local.airflow import airflow_env, dags_folder
from fleetbatch.local.postgres import Postgres
from fleetbatch.store import Store, open_store
from fleetbatch.units import CellName
from fleetbatch.windows.bundle import open_bundle
from fleetbatch.windows.daily import tune_day
from fleetbatch.windows.state import Tuned
from fleetbatch.windows.stored import latest_state

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

TODAY = datetime(2025, 11, 24, tzinfo=UTC)
"""Long ago, so that every run sees the same past."""
LEARNT = TODAY - timedelta(days=9)
EU, US = CellName("eu-1"), CellName("us-1")
BROKEN = "0" * 64
NEW_CAR = 77


def test_a_day_of_the_forecast_closes_stays_and_then_tunes(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["windows"]["tasks"]
    assert [(task["id"], task["upstream"]) for task in tasks] == [("ingest", []), ("tune", ["ingest"])]
    assert "day" in parsed["dags"]["windows"]["params"]


def test_a_model_is_learnt_in_a_dag_of_its_own(parsed: dict[str, Any]) -> None:
    assert [task["id"] for task in parsed["dags"]["windows_refit"]["tasks"]] == ["refit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How the runs ended, what they said, and the store that they left."""

    ended: list[dict[str, Any]]
    said: str
    store: Store
    leaver: int

    def state(self, cell: CellName) -> Tuned:
        return msgspec.json.decode(self.store.read(layout.windows_state(cell, f"{TODAY:%Y-%m-%d}")), type=Tuned)

    def page(self, cell: CellName) -> str:
        return self.store.read(layout.windows_page(cell, f"{TODAY:%Y-%m-%d}")).decode()

    def stays(self, key: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(self.store.read(key))).to_pylist()
        return rows


@pytest.fixture(scope="module")
def ran(airflow: dict[str, str], postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """A cell with a past, a weak model that serves and a better one to learn; another with nothing but a broken one."""
    folder = tmp_path_factory.mktemp("windows")
    store = open_store((folder / "store").as_uri(), deployment_key=bytes(32))
    leaver = a_cell_with_a_past(store)
    store.write(layout.windows_model(US, "2025-11-01", BROKEN), b"PK")  # type: ignore[arg-type] # no hash of anything
    with deployed(folder, postgres) as settings:
        home = Path(airflow["AIRFLOW_HOME"]).parent
        env = airflow_env(os.environ, home=home, settings=settings, dags=dags_folder())
        runs = [("windows_refit", {"day": f"{LEARNT:%Y-%m-%d}"}), ("windows", {"day": f"{TODAY:%Y-%m-%d}"})]
        script = str(Path(__file__).parent / "run_dags.py")
        done = subprocess.run(
            [sys.executable, script, json.dumps(runs), str(folder / "runs.json")],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        yield Ran(ended=json.loads((folder / "runs.json").read_text()), said=done.stdout, store=store, leaver=leaver)


def a_cell_with_a_past(store: Store) -> int:
    """Write the days until the day before yesterday, with a weak model that serves; return who leaves yesterday."""
    evening, yesterday = TODAY - timedelta(hours=26), TODAY - timedelta(days=1)
    stays = past(30, days=140, until=evening)
    live(store, EU, stays, now=evening)
    weak = bytes_of(small_model())
    store.create(layout.windows_model(EU, "2025-10-01", open_bundle(weak).sha256), weak)
    tune_day(store, EU, evening.date(), now=evening, dials=UNJUDGED)
    leaver = int(stays.filter(pa.array(stays["unplugged_at"].is_null().to_pylist()))["car_id"][0].as_py())
    heard = [
        said(leaver, yesterday + timedelta(hours=6)),
        said(leaver, yesterday + timedelta(hours=7), **{PLUGGED: False}),
        said(NEW_CAR, yesterday + timedelta(hours=18), departure_at=TODAY + timedelta(hours=7)),
    ]
    sink = io.BytesIO()
    pq.write_table(signals(*heard), sink)
    store.write(layout.telemetry(EU, "g1", yesterday), sink.getvalue())
    broken = io.BytesIO()
    pq.write_table(pa.table({"at": [1]}), broken)
    store.write(layout.telemetry(EU, "g2", yesterday), broken.getvalue())
    return leaver


def test_a_month_learns_a_model_and_keeps_it_when_it_passes_its_gates(ran: Ran) -> None:
    assert [run["state"] for run in ran.ended] == ["success", "success"]
    assert {task["tries"] for run in ran.ended for task in run["tasks"].values()} == {1}
    [model] = [key for key in ran.store.keys(layout.windows_models(EU)) if f"{LEARNT:%Y-%m-%d}" in key]
    manifest = open_bundle(ran.store.read(model)).manifest
    assert manifest.trained_until == f"{LEARNT + timedelta(days=1):%Y-%m-%d}T00:00:00+00:00"
    assert "closed stays before" in ran.said  # of the cell without a past
    assert "are too few to learn from" in ran.said


def test_a_day_closes_the_stays_that_ended_and_carries_on_the_others(ran: Ran) -> None:
    yesterday = f"{TODAY - timedelta(days=1):%Y-%m-%d}"
    closed = {row["car_id"]: row for row in ran.stays(layout.stays(EU, yesterday))}
    assert closed[ran.leaver]["unplugged_at"] == TODAY - timedelta(hours=17)
    still = {row["car_id"]: row for row in ran.stays(layout.open_stays(EU, yesterday))}
    assert ran.leaver not in still
    assert still[NEW_CAR]["departure_at"] == TODAY + timedelta(hours=7)


def test_telemetry_that_breaks_its_contract_is_named_and_stops_nothing(ran: Ran) -> None:
    assert "telemetry skipped" in ran.said
    assert "-g2.parquet" in ran.said


def test_a_better_model_takes_over_after_its_week_in_the_shadow_and_the_page_says_so(ran: Ran) -> None:
    before = latest_state(ran.store, EU, before=TODAY.date())
    state = ran.state(EU)
    assert before is not None
    [learnt] = [key for key in ran.store.keys(layout.windows_models(EU)) if f"{LEARNT:%Y-%m-%d}" in key]
    assert before.model_sha256 not in learnt
    assert state.model_sha256 in learnt
    assert '"promoted":true' in ran.said
    assert state.level == "L2"
    assert "L2 serves" in ran.page(EU)
    assert state.figures["L2"].integrated_brier < state.figures["L1"].integrated_brier


def test_a_cell_whose_model_is_broken_falls_back_and_log_and_page_say_why(ran: Ran) -> None:
    state = ran.state(US)
    assert (state.level, state.model_sha256) == ("L1", "")
    assert "no model can be used: 2025-11-01 000000000000" in state.reason
    assert "no model can be used" in ran.said
    assert "no model can be used" in ran.page(US)
