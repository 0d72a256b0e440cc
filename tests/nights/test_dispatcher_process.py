"""A dispatcher's process plans, says what it does, and stops when told; a refused plan gives way to the next."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deployments import deployed
from planner_tables import NOW, POLICY, car, cars, shard, shards

from fleetbatch.errors import RejectedError
from fleetbatch.local.postgres import Postgres
from fleetbatch.planner import Policy, Round, plan_round, verified


def _spoiled(fleet: pa.Table, work: pa.Table, now: datetime, policy: Policy) -> Round:
    planned = plan_round(fleet, work, now, policy)
    return replace(planned, planner="spoiled", assignments=pa.concat_tables([planned.assignments] * 2))


def test_a_plan_that_verification_refuses_gives_way_to_the_next() -> None:
    fleet, work = cars(car(1)), shards(shard(11))
    assert verified(fleet, work, NOW, POLICY, plans=(_spoiled, plan_round)).planner == "greedy"


def test_when_no_plan_is_allowed_nothing_is_published_and_all_violations_are_named() -> None:
    with pytest.raises(RejectedError) as refusal:
        verified(cars(car(1)), shards(shard(11)), NOW, POLICY, plans=(_spoiled,))
    assert "a shard has one holder" in str(refusal.value)


def test_the_process_plans_logs_json_and_stops_when_told(tmp_path: Path, postgres: Postgres) -> None:
    with deployed(tmp_path, postgres, cells=1) as settings:
        command = [sys.executable, "-m", "fleetbatch.dispatcher", "--settings", str(settings), "--cell", "eu-1"]
        process = subprocess.Popen(
            [*command, "--round-every-s", "0.2"], stderr=subprocess.PIPE, text=True, env=os.environ
        )
        assert process.stderr is not None
        events = []
        while "round" not in events:
            events.append(json.loads(process.stderr.readline())["event"])
        asked_at = time.monotonic()
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=10)[1]
        assert events[0] == "ready"
        assert (process.returncode, time.monotonic() - asked_at < 2.0) == (0, True)
        assert json.loads(rest.splitlines()[-1])["event"] == "stopped"


@pytest.mark.parametrize(("said", "used"), [(None, "1"), ("2", "2")])
def test_a_dispatcher_plans_with_one_thread_unless_it_is_told_otherwise(said: str | None, used: str) -> None:
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
    plain = {name: value for name, value in os.environ.items() if name not in names}
    environment = plain | dict.fromkeys(names, said) if said else plain
    tell = f"import fleetbatch.dispatcher, os; print(*(os.environ[name] for name in {names}))"
    run = subprocess.run([sys.executable, "-c", tell], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.split() == [used, used]


def test_the_process_refuses_settings_that_name_no_such_cell(tmp_path: Path, postgres: Postgres) -> None:
    with deployed(tmp_path, postgres, cells=1) as settings:
        command = [sys.executable, "-m", "fleetbatch.dispatcher", "--settings", str(settings), "--cell", "mars"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert run.returncode == 2
        assert "the settings know eu-1" in run.stderr
