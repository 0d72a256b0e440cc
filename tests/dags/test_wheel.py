"""The wheel in an Airflow that was there before: `pip install`, and two settings."""

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def existing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has Airflow and what the wheel needs, and fleetbatch from the wheel only."""
    folder = tmp_path_factory.mktemp("existing")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True, text=True)
    [wheel] = folder.glob("fleetbatch-*.whl")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    [packages] = (folder / "env" / "lib").glob("python*/site-packages")
    # Ours come first; a .pth inside the folder that is added here, such as our own checkout's, is not followed.
    (packages / "airflow.pth").write_text(sysconfig.get_paths()["purelib"])
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, text=True)
    return folder / "env"


def test_two_settings_bring_our_dags_into_an_airflow_that_was_there_before(
    existing: Path, describe: Callable[..., dict[str, Any]], airflow: dict[str, str], tmp_path: Path
) -> None:
    dags = existing / "share" / "fleetbatch" / "dags"
    plain = {name: value for name, value in airflow.items() if not name.startswith(("AIRFLOW__CORE__", "FLEETBATCH_"))}
    env = plain | {
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(dags / "plugins"),
        "PYTHONPATH": "",
    }

    found = describe(env, tmp_path, python=str(existing / "bin" / "python"))

    assert found["import_errors"] == {}
    assert {"overnight", "adhoc"} <= set(found["dags"])
    assert found["fleetbatch"].startswith(str(existing))


def test_without_the_second_setting_airflow_says_what_is_missing(
    existing: Path, describe: Callable[..., dict[str, Any]], airflow: dict[str, str], tmp_path: Path
) -> None:
    dags = existing / "share" / "fleetbatch" / "dags"
    env = airflow | {"AIRFLOW__CORE__DAGS_FOLDER": str(dags), "AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path)}

    found = describe(env, tmp_path, python=str(existing / "bin" / "python"))

    assert f"set AIRFLOW__CORE__PLUGINS_FOLDER to {dags / 'plugins'}" in "".join(found["import_errors"].values())
    assert {path.name for path in (dags / "orders").iterdir()} == {"drive.toml", "overnight.toml", "scenarios.toml"}
