"""One cell with a real ledger, a real gateway process and real runner processes, for stories about a car."""

import contextlib
import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from model_bundles import plain_picture
from psycopg.rows import dict_row
from turned_clock import migrate_with_turned_clock

from fleetbatch.car.conditions import CABLE, CURRENT, CURRENT_MAX, SOC, SPEED, TEMPERATURE, VOLTAGE
from fleetbatch.car.identity import car_id_of, make_key, public_pem
from fleetbatch.contracts import conform
from fleetbatch.ledger.messages import ConsentChange, Enrolment
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.nouns import Auditing, Cutting, FrozenOrder, Order, OrderKey
from fleetbatch.orders import freeze_order
from fleetbatch.sealing import unwrap_secret
from fleetbatch.settings import Settings, load_settings
from fleetbatch.sharding import cut_order
from fleetbatch.store import Store, open_store
from fleetbatch.units import CarId, CellName, Night, OrderName, OwnerId, Sha256

CELL = CellName("eu-1")
ROW_GROUP_ROWS = 4
NOTICE = Sha256("0" * 64)
GOOD_SIGNALS: dict[str, float | bool] = {
    CABLE: True,
    SPEED: 0.0,
    TEMPERATURE: 24.0,
    SOC: 80.0,
    VOLTAGE: 230.0,
    CURRENT: 0.0,
    CURRENT_MAX: 16.0,
}


def until(true: Callable[[], Any], *, seconds: float = 40.0, what: str = "it") -> Any:
    """Wait until something is so, and return it."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if found := true():
            return found
        time.sleep(0.05)
    message = f"{what} did not happen within {seconds} s"
    raise AssertionError(message)


@dataclass(kw_only=True)
class ParkedCar:
    """A runner's process, its key and its sensors."""

    folder: Path
    car_id: CarId
    gateway_url: str
    process: subprocess.Popen[str] | None = None

    def signals(self, **changed: float | bool) -> None:
        """Say what the sensors say; names of conditions.py's constants are not needed, only VSS leaves."""
        named = {name: changed.get(name.rsplit(".", 1)[1], value) for name, value in GOOD_SIGNALS.items()}
        scratch = self.folder / "signals.new"
        scratch.write_text(json.dumps({"signals": named}))
        scratch.replace(self.folder / "signals.json")

    def start(self, *flags: str) -> None:
        """Start the runner."""
        command = [sys.executable, "-m", "fleetbatch.runner", "--gateway", self.gateway_url]
        command += ["--key", str(self.folder / "car.pem"), "--signals", f"file:{self.folder / 'signals.json'}"]
        log = (self.folder / "log").open("a")
        self.process = subprocess.Popen([*command, *flags], stderr=log, text=True)
        log.close()

    def log(self) -> list[dict[str, Any]]:
        """Return what the runner logged."""
        lines = (self.folder / "log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def events(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] == event]

    def workers(self) -> list[psutil.Process]:
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            return [worker for forks in psutil.Process(self.process.pid).children() for worker in forks.children()]
        return []

    def stop(self) -> int:
        """Ask the runner to end; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=20)


@dataclass(kw_only=True)
class ParkedCell:
    """What a car meets, and what the trusted side sees of it."""

    home: Path
    settings: Settings
    ledger: PostgresLedger
    store: Store
    port: int
    gateway: subprocess.Popen[str] | None = None
    cars: list[ParkedCar] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.settings.cells[0].gateway_url

    def start_gateway(self, **times: float) -> None:
        """Start the gateway; times in seconds, such as lease=10."""
        flags = [f"--{name.replace('_', '-')}-s={seconds}" for name, seconds in times.items()]
        command = [sys.executable, "-m", "fleetbatch.gateway", "--settings", str(self.home / "settings.toml")]
        log = (self.home / "gateway.log").open("a")
        self.gateway = subprocess.Popen(
            [*command, "--cell", CELL, "--port", str(self.port), *flags],
            stdout=subprocess.DEVNULL,
            stderr=log,
            text=True,
        )
        log.close()
        until(self._answers, what="the gateway's start")

    def stop_gateway(self) -> None:
        assert self.gateway is not None
        self.gateway.send_signal(signal.SIGKILL)
        self.gateway.wait()
        self.gateway = None

    def park(self, *, enrolled: bool = True) -> ParkedCar:
        """A car with a key, at its plug; not started."""
        folder = self.home / f"car-{len(self.cars)}"
        folder.mkdir()
        pem = make_key()
        (folder / "car.pem").write_bytes(pem)
        car = ParkedCar(folder=folder, car_id=car_id_of(pem), gateway_url=self.url)
        car.signals()
        self.cars.append(car)
        if enrolled:
            owner = OwnerId(len(self.cars))
            self.ledger.enrol(
                [Enrolment(car_id=car.car_id, owner_id=owner, public_key_pem=public_pem(pem), region="eu")]
            )
            self.consent(car, granted=True)
            self.consent(car, granted=True, purpose="telemetry")
        return car

    def consent(self, car: ParkedCar, *, granted: bool, purpose: str = "compute") -> None:
        self.ledger.set_consent(
            ConsentChange(
                car_id=car.car_id,
                purpose=purpose,
                granted=granted,
                notice_version="1",
                notice_sha256=NOTICE,
            )
        )

    def order(
        self, name: str, *, model: Path, rows: int = 48, source: str = "", options: Mapping[str, str] | None = None
    ) -> OrderKey:
        """Freeze an order of small plain pictures, or of a source, cut it into one shard and register it."""
        order = Order(
            name=OrderName(name),
            workload="image",
            source=source or str(self._pictures(rows)),
            model=str(model),
            region="any",
            priority=1,
            deadline_hours=8.0,
            data_class="open",
            schedule="",
            timezone="UTC",
            cutting=Cutting(shard_rows=1000, row_group_rows=ROW_GROUP_ROWS),
            auditing=Auditing(),
            options=tuple((options or {}).items()),
        )
        frozen = freeze_order(
            self.store,
            order,
            night=Night("2026-11-22"),
            force=False,
            now=datetime.now(UTC),
            deployment_key=self.settings.deployment_key,
        )
        assert isinstance(frozen, FrozenOrder)
        self.ledger.open_order(frozen)
        secret = unwrap_secret(frozen.secret_wrapped, self.settings.deployment_key)
        self.ledger.register_shards(frozen.key, cut_order(self.store, frozen, secret=secret, shares={CELL: 1.0}))
        return frozen.key

    def _pictures(self, count: int) -> Path:
        folder = self.home / f"pictures-{count}"
        folder.mkdir(exist_ok=True)
        for number in range(count):
            (folder / f"{number:04d}.png").write_bytes(plain_picture((number, 255 - number, 60)))
        return folder

    def offer(self, key: OrderKey, *cars: ParkedCar) -> None:
        """Write a round that offers the order's open shards to every one of these cars."""
        open_shards = self.ledger.open_shards().to_pylist()
        shards = [row["shard_id"] for row in open_shards if row["order_key"] == str(key)]
        rows = [
            {"car_id": car.car_id, "seq": seq, "shard_id": shard, "copy": 0, "rg_start": 0, "rg_end": 1}
            | {"start_s": 0.0, "end_s": 1.0, "p_finish": 1.0, "expected_units": 1.0, "speculative": False, "reason": 0}
            for car in cars
            for seq, shard in enumerate(shards)
        ]
        lock = self.ledger.lock_planner(CELL)
        assert lock is not None
        self.ledger.write_round(lock, conform(pa.Table.from_pylist(rows), "assignments"), {})

    def answers(self, key: OrderKey) -> list[dict[str, Any]]:
        """Return every delivered row, in order, read as the merge reads it."""
        folder = f"nights/{key.night}/{key.order}/g{key.generation}/parts/"
        parts = [self.store.read(name) for name in self.store.keys(folder)]
        tables = [pq.read_table(pa.BufferReader(part)) for part in parts]
        return sorted((row for table in tables for row in table.to_pylist()), key=lambda row: str(row["item_id"]))

    def parts(self, key: OrderKey) -> list[dict[str, Any]]:
        """Return what the ledger keeps of the parts of the order's one shard."""
        of_order = (
            "SELECT shard_id FROM fleetbatch.shards s JOIN fleetbatch.orders o USING (order_no) WHERE o.name = %s"
        )
        query = f"SELECT energy_wh, energy_source FROM fleetbatch.parts WHERE shard_id IN ({of_order})"
        with psycopg.connect(self.settings.cells[0].ledger_url, row_factory=dict_row) as connection:
            return connection.execute(query, [key.order]).fetchall()

    def done_through(self, key: OrderKey) -> int:
        """Return how many row groups of the order's one shard are durable; -1 when it came back whole."""
        rows = [row for row in self.ledger.open_shards().to_pylist() if row["order_key"] == str(key)]
        return int(rows[0]["done_through"]) if rows else -1

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/v1/health", timeout=1).status_code < 500
        except httpx.TransportError:
            return False


@contextlib.contextmanager
def parked_cell(home: Path, database_url: str) -> Iterator[ParkedCell]:
    """Give a cell without gateway or cars, and end every process of it afterwards."""
    migrate_with_turned_clock(database_url)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    (home / "deployment.key").write_text(secrets.token_hex(32))
    lines = [f'store = "{(home / "store").as_uri()}"', 'deployment_key_file = "deployment.key"', "[[cells]]"]
    lines += [f'name = "{CELL}"', 'region = "eu"', f'ledger_url = "{database_url}"']
    lines += [f'gateway_ledger_url = "{database_url}"', f'gateway_url = "{url}"']
    (home / "settings.toml").write_text("\n".join(lines))
    settings = load_settings(home / "settings.toml")
    store = open_store(settings.store, deployment_key=settings.deployment_key, base_url=url)
    with PostgresLedger.open(database_url) as ledger:
        cell = ParkedCell(home=home, settings=settings, ledger=ledger, store=store, port=port)
        try:
            yield cell
        finally:
            for process in [cell.gateway, *(car.process for car in cell.cars)]:
                if process is not None and process.poll() is None:
                    process.kill()
                    process.wait()


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
