"""A deployment whose parts cannot be used: taken ports, a dead database, wrong keys, an old Python."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from deployments import deployed
from parked_cars import parked_cell, until

from fleetbatch.car.identity import make_key
from fleetbatch.cli import EXIT_REJECTED, EXIT_TRANSIENT, run_command
from fleetbatch.local.postgres import Postgres
from fleetbatch.orders import model_file
from fleetbatch.settings import KEY_BYTES
from fleetbatch.steps.__main__ import run as run_step

NOBODY = "postgresql://nobody@127.0.0.1:1/gone"
ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """The settings of a deployment whose database nobody runs."""
    (tmp_path / "deployment.key").write_text(secrets.token_hex(KEY_BYTES))
    lines = [f'store = "{(tmp_path / "store").as_uri()}"', 'deployment_key_file = "deployment.key"', "[[cells]]"]
    lines += ['name = "eu-1"', 'region = "eu"', f'ledger_url = "{NOBODY}"', f'gateway_ledger_url = "{NOBODY}"']
    (tmp_path / "settings.toml").write_text("\n".join([*lines, 'gateway_url = "http://eu-1.invalid"']))
    return tmp_path / "settings.toml"


def service(name: str, settings: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", f"fleetbatch.{name}", "--settings", str(settings), "--cell", "eu-1", *words]


def refused(command: list[str], code: int) -> str:
    """Run a process that must end by itself with this code; return what it says, on one line."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def test_the_port_of_airflows_ui_is_looked_at_before_anything_starts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with taken_port() as port:
        assert run_command(["up", "--home", str(tmp_path / "home"), "--port", str(port)]) == EXIT_REJECTED
    assert f"port {port} is taken; choose another with --port" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_a_gateway_whose_port_is_taken_says_so(dead: Path) -> None:
    with taken_port() as port:
        said = refused(service("gateway", dead, "--port", str(port)), EXIT_REJECTED)
    assert f"port {port} of 127.0.0.1 is taken by another process; choose another with --port" in said


def test_a_gateway_without_its_database_ends_so_that_it_is_started_again(dead: Path) -> None:
    said = refused(service("gateway", dead, "--port", "0"), EXIT_TRANSIENT)
    assert "database does not answer" in said


def test_a_command_without_its_database_says_that_trying_again_may_help(
    capsys: pytest.CaptureFixture[str], dead: Path
) -> None:
    assert run_command(["status", "--home", str(dead.parent)]) == EXIT_TRANSIENT
    said = capsys.readouterr()
    assert said.out == ""
    assert "no ledger that" in said.err
    assert "trying again may help" in said.err


@pytest.mark.parametrize("name", ["dispatcher", "auditor"])
def test_a_service_without_its_database_says_so_waits_and_stops_when_told(
    name: str, dead: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with log.open("w") as sink:
        process = subprocess.Popen(service(name, dead), stderr=sink)
    try:
        until(lambda: "database does not answer" in log.read_text(), seconds=60, what="the complaint")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


def words(settings: Path) -> dict[str, object]:
    now = datetime.now(UTC).isoformat()
    order = ROOT / "dags" / "orders" / "overnight.toml"
    return {"settings": str(settings), "now": now, "night": "2026-11-22", "force": False, "file": str(order)}


def test_a_step_without_its_database_is_tried_again_by_airflow_and_froze_nothing(dead: Path) -> None:
    [(kind, said)] = run_step("order", words(dead)).items()
    assert kind == "transient"
    assert "database does not answer" in said
    assert not list((dead.parent / "store").glob("nights/**/*"))


def test_a_step_refuses_an_order_with_all_its_mistakes_and_an_unknown_region(dead: Path, tmp_path: Path) -> None:
    order = tmp_path / "wrong.toml"
    order.write_text('source = "generator:stars"\nmodel = "road-signs"\ndeadline_hours = 8.0\nregion = "mars"\n')
    [(kind, said)] = run_step("order", {**words(dead), "file": str(order)}).items()
    assert kind == "rejected"
    assert "no generator 'stars'" in said
    assert "`region` 'mars' has no cell; cells serve eu" in said


def test_a_store_that_cannot_be_written_is_named(dead: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    [(kind, said)] = run_step("order", words(dead)).items()
    assert (kind, f"the store's folder {tmp_path / 'store'} is not writable" in said) == ("rejected", True)
    said = refused(service("auditor", dead), EXIT_REJECTED)
    assert "is not writable" in said


def test_another_deployment_key_does_not_open_what_the_first_one_froze(tmp_path: Path, postgres: Postgres) -> None:
    with deployed(tmp_path, postgres, cells=1) as settings:
        frozen = run_step("order", {**words(settings), "file": str(few_signs(tmp_path))})
        (tmp_path / "deployment.key").write_text(secrets.token_hex(KEY_BYTES))
        refusal = run_step("shards", {**words(settings), "key": frozen["key"]})
    assert "does not open this order's secret; was the key file replaced?" in refusal["rejected"]


def test_a_gateway_with_another_deployment_key_names_it_and_the_car_comes_back_later(
    tmp_path: Path, database_url: str
) -> None:
    with parked_cell(tmp_path, database_url) as cell:
        key = cell.order("replaced", model=model_file("road_signs"), rows=4)
        (tmp_path / "deployment.key").write_text(secrets.token_hex(KEY_BYTES))
        cell.start_gateway(poll_every=0.2)
        car = cell.park()
        cell.offer(key, car)
        car.start()
        log = tmp_path / "gateway.log"
        until(lambda: "does not open this order's secret" in log.read_text(), seconds=30, what="the complaint")
        assert "Traceback" not in log.read_text()
        assert car.stop() == 0


def few_signs(folder: Path) -> Path:
    path = folder / "signs.toml"
    path.write_text('source = "generator:road-signs?count=8"\nmodel = "road-signs"\ndeadline_hours = 8.0\n')
    return path


@pytest.mark.parametrize(
    ("key", "why"),
    [("12ab", "2 bytes; expected 32"), ("xyz", "not hexadecimal; expected 64 hex digits"), (None, "No such file")],
)
def test_a_deployment_key_that_is_none_is_named(dead: Path, key: str | None, why: str) -> None:
    file = dead.parent / "deployment.key"
    if key is None:
        file.unlink()
    else:
        file.write_text(key)
    [(kind, said)] = run_step("order", words(dead)).items()
    assert (kind, f"deployment key {file}: {why}" in said) == ("rejected", True)


def test_a_car_whose_key_is_garbage_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "car.pem").write_text("-----BEGIN PRIVATE KEY-----\ngarbage\n-----END PRIVATE KEY-----\n")
    command = [sys.executable, "-m", "fleetbatch.runner", "--gateway", "http://127.0.0.1:1"]
    command += ["--key", str(tmp_path / "car.pem"), "--signals", f"file:{tmp_path / 'signals.json'}"]
    assert "make one and enrol the car again" in refused(command, EXIT_REJECTED)
    (tmp_path / "car.pem").write_bytes(make_key()[:-40])
    assert "make one and enrol the car again" in refused(command, EXIT_REJECTED)


def test_make_refuses_a_python_that_is_too_old_and_sets_nothing_up(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "infra" / "locks").mkdir(parents=True)
    (tmp_path / "infra" / "locks" / "laptop.txt").touch()
    old = tmp_path / "python3.9"
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9, 18); exec(sys.argv[2])" "$@"\n'
    )
    old.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        ["make", "night", f"PYTHON={old}"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert f"fleetbatch needs Python 3.11 or newer, and {old} is 3.9" in done.stderr
    assert "make PYTHON=/path/to/python3" in done.stderr
    assert not (tmp_path / ".venv").exists()
