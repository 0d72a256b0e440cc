"""Whole runs of the DAGs in a real Airflow without a scheduler, over real ledgers and a real store."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from builders import colour_bundle
from deployments import deployed

from fleetbatch import layout
from fleetbatch.local.airflow import airflow_env, dags_folder
from fleetbatch.local.postgres import Postgres
from fleetbatch.nouns import OrderKey

pytestmark = pytest.mark.timeout(300)  # twenty seconds of processor time; machines that test are busy

NIGHT = {"night": "2026-11-22", "force": False}
WALK = ["order", "shards", "cars_finish", "merge", "check", "publish", "report"]
DUE_AT_ONCE = """
source = "generator:road-signs?count=12&seed=1"
model = "colours.zip"
deadline_hours = 0.0001
[cutting]
shard_rows = 6
row_group_rows = 2
"""
WRONG = """
source = "nowhere"
model = "colours.zip"
region = "mars"
[auditing]
rows_min = 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """How each run ended, what was said, and where the results are."""

    ended: list[dict[str, Any]]
    said: list[str]
    store: Path

    def summary(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.store / layout.summary(OrderKey.parse(key))).read_text())
        return found


@pytest.fixture(scope="module")
def runs(airflow: dict[str, str], postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Orders that are due as soon as they are frozen, so that they close without a car."""
    folder = tmp_path_factory.mktemp("nights")
    orders = folder / "orders"
    orders.mkdir()
    (orders / "small.toml").write_text(DUE_AT_ONCE)
    (orders / "wrong.toml").write_text(WRONG)
    (orders / "colours.zip").write_bytes(colour_bundle())
    with deployed(folder, postgres) as settings:
        homes = [Path(airflow["AIRFLOW_HOME"]).parent, folder / "another"]
        shutil.copytree(homes[0], homes[1])
        # Side by side: a run without a scheduler sleeps a second for every task that it skips.
        wanted = [[("small", NIGHT), ("small", NIGHT)], [("wrong", NIGHT)]]
        envs = [airflow_env(os.environ, home=h, settings=settings, dags=dags_folder(), orders=orders) for h in homes]
        started = [start(each, env, home) for each, env, home in zip(wanted, envs, homes, strict=True)]
        told = [run for child, home in zip(started, homes, strict=True) for run in finish(child, home)]
        yield Runs(ended=[end for end, _ in told], said=[said for _, said in told], store=folder / "store")


def start(wanted: list[Any], env: dict[str, str], home: Path) -> "subprocess.Popen[bytes]":
    script = str(Path(__file__).parent / "run_dags.py")
    with (home / "runs.log").open("wb") as sink:
        command = [sys.executable, script, json.dumps(wanted), str(home / "runs.json")]
        return subprocess.Popen(command, env=env, stdout=sink, stderr=subprocess.STDOUT)


def finish(child: "subprocess.Popen[bytes]", home: Path) -> list[tuple[dict[str, Any], str]]:
    """How each run ended, and what it said."""
    child.wait(240)
    log = (home / "runs.log").read_text()
    assert child.returncode == 0, log
    return list(zip(json.loads((home / "runs.json").read_text()), log.split("=== ")[1:], strict=True))


def states(ended: dict[str, Any]) -> list[str]:
    return [ended["tasks"][name]["state"] for name in WALK]


def test_a_night_that_no_car_came_to_is_published_with_every_row_named_missing(runs: Runs) -> None:
    assert runs.ended[0]["state"] == "success"
    assert states(runs.ended[0]) == ["success"] * 7
    summary = runs.summary("2026-11-22/small/g1")
    assert (summary["rows_in"], summary["rows_out"], summary["missing_rows"]) == (12, 0, 12)
    assert summary["task_instances"] == len(runs.ended[0]["tasks"])
    assert (runs.store / layout.report(OrderKey.parse("2026-11-22/small/g1"))).exists()


def test_the_wait_says_how_far_the_night_is(runs: Runs) -> None:
    assert "2026-11-22/small/g1: 0 of 2 shards accounted for" in runs.said[0]


def test_a_night_that_is_published_already_is_skipped_and_says_so(runs: Runs) -> None:
    assert runs.ended[1]["state"] == "success"
    assert states(runs.ended[1]) == ["skipped"] * 7
    assert "2026-11-22/small/g1 is published already" in runs.said[1]


def test_an_order_with_mistakes_fails_at_its_first_try_and_names_them_all(runs: Runs) -> None:
    assert runs.ended[2]["state"] == "failed"
    assert runs.ended[2]["tasks"]["order"] == {"state": "failed", "tries": 1}
    for mistake in ("nowhere", "mars", "rows_min"):
        assert mistake in runs.said[2]
