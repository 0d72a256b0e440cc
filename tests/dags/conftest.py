"""Airflow runs beside these tests, in processes and a home of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fleetbatch.local.airflow import airflow_env, dags_folder, migrate_airflow

if find_spec("airflow") is None:  # importing it would take seconds of every worker
    pytest.skip("the dags group (Airflow) is not installed", allow_module_level=True)

_DESCRIBE = Path(__file__).parent / "describe_dags.py"


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an Airflow whose metadata are ready."""
    home = tmp_path_factory.mktemp("airflow")
    env = airflow_env(os.environ, home=home, settings=home / "settings.toml", dags=dags_folder())
    migrate_airflow(env)
    return env


@pytest.fixture(scope="session")
def describe() -> Callable[..., dict[str, Any]]:
    """Parse an environment's DAGs in a process of their own; the folder is for what passes between."""

    def parse(env: dict[str, str], folder: Path, *, python: str = sys.executable) -> dict[str, Any]:
        target = folder / "dags.json"
        command = [python, str(_DESCRIBE), str(target)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert target.exists(), done.stdout + done.stderr
        found: dict[str, Any] = json.loads(target.read_text())
        return found

    return parse


@pytest.fixture(scope="session")
def parsed(
    airflow: dict[str, str],
    describe: Callable[..., dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What Airflow finds in the repository's own folder of DAGs."""
    return describe(airflow, tmp_path_factory.mktemp("parsed"))
