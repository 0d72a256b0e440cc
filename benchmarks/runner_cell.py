"""A real cell for one car: embedded PostgreSQL, gateway and store, an order cut, registered and offered to it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.run import ROOT, Subject, python_of
from benchmarks.trees import Cost, Watch, children_cpu_s, cpu_s
from fleetbatch.bundle import open_bundle
from fleetbatch.contracts import conform
from fleetbatch.ledger.postgres import PostgresLedger, migrate
from fleetbatch.local.cars import ParkedCar, enrol, park
from fleetbatch.local.laptop import free_ports, laptop_cars, write_settings
from fleetbatch.local.postgres import start_postgres, stop_postgres
from fleetbatch.local.processes import Child, children, wait_ready
from fleetbatch.nouns import Auditing, Cell, Cutting, FrozenOrder, Order, OrderKey
from fleetbatch.orders import freeze_order
from fleetbatch.sealing import unwrap_secret
from fleetbatch.settings import Settings
from fleetbatch.sharding import cut_order
from fleetbatch.store import Store, open_store
from fleetbatch.units import Night, OrderName

PATIENCE_S = 900
LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What is up while the car computes."""

    gateway_child: Child
    postgres: int
    ledger: PostgresLedger
    store: Store
    key: OrderKey
    url: str
    parked: ParkedCar

    @property
    def gateway(self) -> int:
        """Its process."""
        return self.gateway_child.process.pid

    def start_car(self, cores: int) -> "subprocess.Popen[bytes]":
        """Start the runner as a car does, in an environment that has what a car has and nothing else."""
        car = python_of(Subject(name="car", script="", lock="infra/locks/car.txt"))
        command = [str(car), "-m", "fleetbatch.runner", "--gateway", self.url]
        command += ["--key", str(self.parked.key_file), "--signals", f"file:{self.parked.signals_file}"]
        command += ["--threads", str(cores), "--cache", str(self.parked.folder / "cache")]
        with (self.parked.folder / "log").open("wb") as log:
            return subprocess.Popen(command, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)})

    def wait_for_first(self) -> float:
        """Return when the first picture was answered."""
        self._until(lambda: "first answers" in (self.parked.folder / "log").read_text())
        return time.monotonic()

    def wait(self, rows: int) -> float:
        """Return when every shard had come back, each with all its rows."""
        self._until(lambda: (now := self.ledger.counts(self.key)).ready + now.out == 0, every_s=2 * LOOK_EVERY_S)
        returned_at = time.monotonic()
        folder = f"nights/{self.key.night}/{self.key.order}/g{self.key.generation}/parts/"
        parts = [pa.BufferReader(self.store.read(name)) for name in self.store.keys(folder)]
        delivered = sum(pq.read_metadata(part).num_rows for part in parts)
        assert delivered == rows, f"{delivered} of {rows} rows were delivered"
        return returned_at

    def _until(self, so: Callable[[], bool], every_s: float = LOOK_EVERY_S) -> None:
        give_up_at = time.monotonic() + PATIENCE_S
        while not so():
            assert time.monotonic() < give_up_at, (self.parked.folder / "log").read_text()
            time.sleep(every_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class CarCost:
    """What one car cost, measured until its last row was delivered, and what the others cost meanwhile."""

    car: Cost
    first_s: float
    gateway_s: float
    postgres_s: float


def cost_of_a_car(source: Path, bundle: Path, options: Mapping[str, str], *, cores: int, rows: int) -> CarCost:
    """Have one car compute a folder's files, which make so many rows."""
    with TemporaryDirectory(prefix="fleetbatch-bench-") as folder, cell(Path(folder), source, bundle, options) as up:
        before, began = children_cpu_s(), time.monotonic()
        apart = cpu_s(up.gateway), cpu_s(up.postgres)
        car = up.start_car(cores)
        watch = Watch(car.pid)
        first_s = up.wait_for_first() - began
        took = up.wait(rows) - began
        gateway_s, postgres_s = cpu_s(up.gateway) - apart[0], cpu_s(up.postgres) - apart[1]
        car.terminate()
        car.wait()
        cost = Cost(cpu_s=children_cpu_s() - before, peak=watch.stop(), wall_s=took)
    return CarCost(car=cost, first_s=first_s, gateway_s=gateway_s, postgres_s=postgres_s)


@contextmanager
def cell(home: Path, source: Path, bundle: Path, options: Mapping[str, str]) -> Iterator[Running]:
    """Give a cell whose one car has been offered everything, and end it."""
    with ExitStack() as stack:
        family = stack.enter_context(children(home / "logs"))
        server = start_postgres(home, guard=family.guard)
        stack.callback(stop_postgres, server)
        settings = write_settings(home, server, free_ports(2))
        mine = settings.cells[0]
        migrate(mine.ledger_url)
        ledger = stack.enter_context(PostgresLedger.open(mine.ledger_url))
        [parked] = park(home, laptop_cars(1), now=datetime.now(UTC) - timedelta(minutes=1))
        enrol({mine.name: ledger}, [parked])
        _charge(parked)
        store = open_store(settings.store, deployment_key=settings.deployment_key, base_url=mine.gateway_url)
        order = _order(source, bundle, options)
        key = _cut(store, settings, ledger, mine, order)
        _offer(ledger, mine, key, parked)
        stack.callback(family.close)
        command = [sys.executable, "-m", "fleetbatch.gateway", "--settings", str(home / "settings.toml")]
        command += ["--cell", mine.name, "--port", mine.gateway_url.rpartition(":")[2]]
        gateway = family.spawn("gateway", command, os.environ)
        wait_ready(gateway, '"ready"')
        pid = int((server.data / "postmaster.pid").read_text().split()[0])
        yield Running(
            gateway_child=gateway,
            postgres=pid,
            ledger=ledger,
            store=store,
            key=key,
            url=mine.gateway_url,
            parked=parked,
        )


def _charge(parked: ParkedCar) -> None:
    """Leave the car at a plug that can spare the power, all the time."""
    told = json.loads(parked.signals_file.read_text())
    battery = "Vehicle.Powertrain.TractionBattery"
    told["signals"] |= {f"{battery}.StateOfCharge.Current": 80.0, f"{battery}.Charging.ChargeCurrent.Phase1": 0.0}
    parked.signals_file.write_text(json.dumps(told))


def _order(source: Path, bundle: Path, options: Mapping[str, str]) -> Order:
    return Order(
        name=OrderName("bench"),
        workload=open_bundle(bundle.read_bytes(), expected_sha256=None).manifest.workload,
        source=str(source),
        model=str(bundle),
        region="any",
        priority=1,
        deadline_hours=8.0,
        data_class="open",
        schedule="",
        timezone="UTC",
        cutting=Cutting(),
        auditing=Auditing(),
        options=tuple(sorted(options.items())),
    )


def _cut(store: Store, settings: Settings, ledger: PostgresLedger, mine: Cell, order: Order) -> OrderKey:
    key, now = settings.deployment_key, datetime.now(UTC)
    frozen = freeze_order(store, order, night=Night("2026-11-22"), force=False, now=now, deployment_key=key)
    assert isinstance(frozen, FrozenOrder)
    ledger.open_order(frozen)
    secret = unwrap_secret(frozen.secret_wrapped, key)
    ledger.register_shards(frozen.key, cut_order(store, frozen, secret=secret, shares={mine.name: 1.0}))
    return frozen.key


def _offer(ledger: PostgresLedger, mine: Cell, key: OrderKey, parked: ParkedCar) -> None:
    """Write a round in which the car gets every shard, one after the other."""
    rows = [
        {"car_id": parked.car_id, "seq": seq, "shard_id": row["shard_id"], "copy": 0, "rg_start": 0, "rg_end": 1}
        | {"start_s": 0.0, "end_s": 1.0, "p_finish": 1.0, "expected_units": 1.0, "speculative": False, "reason": 0}
        for seq, row in enumerate(ledger.open_shards().to_pylist())
        if row["order_key"] == str(key)
    ]
    lock = ledger.lock_planner(mine.name)
    assert lock is not None
    ledger.write_round(lock, conform(pa.Table.from_pylist(rows), "assignments"), {})
