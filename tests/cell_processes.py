"""A whole cell as processes, as in production: whatever ends is started again; nights are walked step by step."""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from model_bundles import Shape, content, plain_picture

from fleetbatch.bundle import build_bundle
from fleetbatch.errors import TransientError
from fleetbatch.ledger.postgres import PostgresLedger, migrate
from fleetbatch.local.cars import ParkedCar, enrol, park, show_signals
from fleetbatch.local.laptop import free_ports, laptop_cars
from fleetbatch.local.postgres import Postgres, make_database, restart_postgres, start_postgres, stop_postgres
from fleetbatch.local.processes import Child, Children, children
from fleetbatch.nouns import OrderKey
from fleetbatch.settings import KEY_BYTES, Settings, load_settings
from fleetbatch.steps.waiting import progress

LOOK_S = 0.1
STEP_S = 120.0
NIGHT_S = 300.0
TRIES = 40
ORDER = """
source = "pictures"
model = "colours.zip"
deadline_hours = 8.0
[cutting]
shard_rows = 12
row_group_rows = 3
"""
STEPS_BEFORE = ("order", "shards")
STEPS_AFTER = ("merge", "check", "publish", "report")


@dataclass(kw_only=True)
class Kept:
    """A program that is started again whenever it ends."""

    name: str
    command: list[str]
    env: dict[str, str]
    child: Child | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningStep:
    """The step of a night that runs now."""

    name: str
    key: str
    """Of the order's night; empty before it is frozen."""
    process: "subprocess.Popen[bytes]"
    started: float = field(default_factory=time.time)


@dataclass(kw_only=True)
class CellProcesses:
    """One cell: its server, its services, its cars, and the night's steps."""

    home: Path
    settings: Settings
    server: Postgres
    ledger: PostgresLedger
    ledger_url: str
    family: Children
    cars: list[ParkedCar]
    env: dict[str, str]
    kept: dict[str, Kept] = field(default_factory=dict)
    step: "RunningStep | None" = None
    starts: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def settings_file(self) -> Path:
        return self.home / "settings.toml"

    def keep(self, name: str, module: str, *words: str, trusted: bool = True) -> None:
        """Run a program of ours for as long as the cell lives."""
        command = [sys.executable, "-m", module]
        command += ["--settings", str(self.settings_file), "--cell", "eu-1"] if trusted else []
        self.kept[name] = Kept(name=name, command=[*command, *words], env=self.env)

    def postmaster(self) -> int:
        """Return the number of the database's first process; 0 when there is none."""
        with suppress(OSError, ValueError):
            return int((self.server.data / "postmaster.pid").read_text().split("\n", 1)[0])
        return 0

    def gateways(self) -> list[str]:
        """Return the names of the programs that are gateways."""
        return [name for name in self.kept if name.startswith("gateway-")]

    def watch(self) -> None:
        """Start again whatever has ended, until the cell's end."""
        while not self._over.wait(LOOK_S):
            for one in self.kept.values():
                if one.child is None or not one.child.alive():
                    self.starts += 1
                    one.child = self.family.spawn(f"{one.name}-{self.starts}", one.command, one.env)
            if not _serves(self.server.url):
                restart_postgres(self.server)
            for car in self.cars:
                show_signals(car, now=datetime.now(UTC))

    def end(self) -> None:
        """Start nothing any more."""
        self._over.set()

    def run_night(self, night: str, *, force: bool = False) -> dict[str, Any]:
        """Walk one night through its steps, each again until it is done; return the summary."""
        words = {"file": str(self.home / "colours.toml"), "night": night, "force": force}
        key = ""
        for step in STEPS_BEFORE:
            key = self.take_step(step, words | {"key": key})["key"]
        give_up_at = time.monotonic() + NIGHT_S
        while not self._is_over(key):
            assert time.monotonic() < give_up_at, f"{key}: {self.ledger.counts(OrderKey.parse(key))}"
            time.sleep(LOOK_S)
        for step in STEPS_AFTER:
            self.take_step(step, words | {"key": key, "task_instances": 7})
        return {"key": key}

    def take_step(self, step: str, words: dict[str, Any]) -> dict[str, Any]:
        """Run a step as its task does, again when it is killed or the world was to blame."""
        told = words | {"settings": str(self.settings_file)}
        said: dict[str, Any] = {}
        for number in range(TRIES):
            answer = self.home / f"answer-{secrets.token_hex(4)}.json"
            told["now"] = datetime.now(UTC).isoformat()
            command = [sys.executable, "-m", "fleetbatch.steps", step, json.dumps(told), str(answer)]
            with (
                (self.home / "logs" / f"step-{step}-{number}.log").open("wb") as log,
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self.env) as process,
            ):
                self.step = RunningStep(name=step, key=str(words["key"]), process=process)
                code = process.wait(STEP_S)
                self.step = None
            said = json.loads(answer.read_text()) if answer.exists() else {"transient": f"ended with {code}"}
            assert "rejected" not in said, said
            if "transient" not in said:
                return said
            time.sleep(LOOK_S)
        message = f"{step} was not done in {TRIES} tries: {said}"
        raise AssertionError(message)

    def _is_over(self, key: str) -> bool:
        with suppress(TransientError):
            return progress(self.settings, OrderKey.parse(key), now=datetime.now(UTC)).over
        return False


@contextmanager
def cell_processes(
    home: Path, *, cars: int, pictures: int, gateways: int = 1, store: str = "", env: dict[str, str] | None = None
) -> Iterator[CellProcesses]:
    """Give a running cell; `store` is a URL, or "" for a folder. Pictures are of one colour each.

    Several gateways share one port: the kernel shares the cars' connections out among them.
    """
    with ExitStack() as stack:
        family = stack.enter_context(children(home / "logs"))
        server = start_postgres(home, guard=family.guard)
        stack.callback(stop_postgres, server)
        url = make_database(server, "cell")
        migrate(url)
        [port] = free_ports(1)
        settings = _write_settings(home, server, port, store or (home / "store").as_uri())
        _write_order(home, pictures)
        ledger = stack.enter_context(PostgresLedger.open(url))
        parked = park(home, [car for car in laptop_cars(2 * cars) if car.cell == "eu-1"], now=datetime.now(UTC))
        enrol({settings.cells[0].name: ledger}, parked)
        cell = CellProcesses(
            home=home,
            settings=settings,
            server=server,
            ledger=ledger,
            ledger_url=url,
            family=family,
            cars=parked,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        )
        _keep_all(cell, port, gateways)
        watching = threading.Thread(target=cell.watch)
        watching.start()
        stack.callback(watching.join)
        stack.callback(cell.end)
        yield cell


def _keep_all(cell: CellProcesses, port: int, gateways: int) -> None:
    times = {"lease": 5, "beat-every": 1, "part-every": 0, "poll-every": 0.5, "telemetry-every": 1, "sweep-every": 0.5}
    gateway = [word for name, value in times.items() for word in (f"--{name}-s", str(value))]
    for number in range(1, gateways + 1):
        cell.keep(f"gateway-{number}", "fleetbatch.gateway", "--port", str(port), "--share-port", *gateway)
    cell.keep("dispatcher", "fleetbatch.dispatcher", "--round-every-s", "1", "--silent-after-s", "8")
    cell.keep("auditor", "fleetbatch.auditor", "--every-s", "0.3", "--workers", "1", "--claim-s", "8")
    for car in cell.cars:
        words = ["--gateway", cell.settings.cells[0].gateway_url, "--key", str(car.key_file), "--settle-s", "0.5"]
        words += ["--signals", f"file:{car.signals_file}", "--cache", str(car.folder / "cache")]
        cell.keep(car.car.name, "fleetbatch.runner", *words, trusted=False)


def _write_settings(home: Path, server: Postgres, port: int, store: str) -> Settings:
    (home / "deployment.key").write_text(secrets.token_hex(KEY_BYTES))
    lines = [f"store = {json.dumps(store)}", 'deployment_key_file = "deployment.key"', "[[cells]]", 'name = "eu-1"']
    lines += ['region = "eu"', f'ledger_url = "{server.database_url("cell", role="fleetbatch_trusted")}"']
    lines += [f'gateway_ledger_url = "{server.database_url("cell", role="fleetbatch_gateway")}"']
    lines += [f'gateway_url = "http://127.0.0.1:{port}"']
    (home / "settings.toml").write_text("\n".join(lines))
    return load_settings(home / "settings.toml")


def _write_order(home: Path, pictures: int) -> None:
    (home / "colours.zip").write_bytes(build_bundle(content(Shape(slowness=2))))
    (home / "pictures").mkdir()
    for number in range(pictures):
        (home / "pictures" / f"{number:03d}.png").write_bytes(plain_picture((number % 256, 255 - number % 256, 60)))
    (home / "colours.toml").write_text(ORDER)


def _serves(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError as error:
        return "starting up" in str(error) or "too many" in str(error)  # it recovers, or is busy
    return True


def published_rows(files: Sequence[str], env: dict[str, str]) -> list[str]:
    """Return the ids of the rows in published files."""
    import polars as pl

    options = {name.lower(): value for name, value in env.items() if name.startswith("AWS_")}
    ids: list[str] = []
    for file in files:
        ids += pl.read_parquet(file, columns=["item_id"], storage_options=options or None)["item_id"].to_list()
    return ids
