"""A whole night under a clock turned by hand: the real steps, ledger, gateway, dispatcher, auditor and cars.

Only processes and sockets are missing, and nothing sleeps: an hour of cars takes part of a second.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from builders import colour_bundle
from deployments import deployed
from night_cars import App, InProcess, NightCar, Spoil, switched_on

from fleetbatch import fleet, layout
from fleetbatch.audit.desk import Desk, Door
from fleetbatch.audit.desk import Dials as DeskDials
from fleetbatch.audit.lane import Lane
from fleetbatch.car.identity import make_key, open_identity, public_pem
from fleetbatch.checks import Verdict
from fleetbatch.dispatcher import Dials as DispatcherDials
from fleetbatch.dispatcher import Dispatcher
from fleetbatch.engine import open_engine
from fleetbatch.gateway import chores
from fleetbatch.gateway.app import application
from fleetbatch.gateway.gate import Gate
from fleetbatch.ledger.messages import ConsentChange, Enrolment
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.local.charging import Charging
from fleetbatch.local.postgres import Postgres
from fleetbatch.merge import load_merged
from fleetbatch.nouns import Cell, FrozenOrder, Merged, OrderKey
from fleetbatch.runner.client import GatewayClient
from fleetbatch.settings import Settings, load_settings
from fleetbatch.steps import Progress, progress
from fleetbatch.steps.closing import merge_step, sum_stats
from fleetbatch.steps.doors import find_order, open_doors
from fleetbatch.steps.opening import accept_form, cut_and_register, order_step
from fleetbatch.store import Store, open_store
from fleetbatch.units import CellName, OwnerId, Sha256
from fleetbatch.units import Night as NightDate

EVENING = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)
TICK = timedelta(seconds=30)
EACH_MINUTE = 2
"""Ticks between audits and telemetry files."""
ROUND_TICKS = 6
"""Ticks between rounds, which cost most of a story's time."""


class Here(Executor):
    """Does the work at once, in this thread, or waits until an engine did it: the clock stands still meanwhile."""

    def __init__(self, engine: Executor | None = None) -> None:
        self.engine = engine

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            result = self.engine.submit(work, *args, **kwargs).result() if self.engine else work(*args, **kwargs)
            done.set_result(result)
        except Exception as error:  # noqa: BLE001 # as an executor does
            done.set_exception(error)
        return done


@dataclass(slots=True, kw_only=True)
class TrustedSide:
    """What runs for one cell."""

    ledger: PostgresLedger
    gate: Gate
    dispatcher: Dispatcher
    desk: Desk
    app: App


@dataclass(slots=True, kw_only=True)
class Night:
    """One night of one order."""

    home: Path
    settings: Settings
    store: Store
    loop: asyncio.AbstractEventLoop
    trusted: Executor = field(default_factory=Here)
    now: datetime = EVENING
    cells: dict[str, TrustedSide] = field(default_factory=dict)
    cars: dict[str, NightCar] = field(default_factory=dict)
    key: OrderKey = field(init=False)
    ticks: int = 0

    def begin(self, *, rows: int = 24, **changed: Any) -> None:
        """Freeze and cut an order: shards of eight pictures in four row groups."""
        form = {
            "source": f"generator:road-signs?count={rows}&seed=1",
            "model": "colours.zip",
            "deadline_hours": 8.0,
            "cutting": {"shard_rows": 8, "row_group_rows": 2},
            "auditing": {"rows_min": 8, "attempts_max": 2},
            **changed,
        }
        order = accept_form(self.settings, form, base=self.home)
        self._turn_database_clocks()
        frozen = order_step(self.settings, order, night=NightDate("2026-11-22"), force=False, now=self.now)
        assert isinstance(frozen, FrozenOrder)
        self.key = frozen.key
        with open_doors(self.settings) as doors:
            cut_and_register(doors, self.key, engine=self.trusted)

    def park(
        self, name: str, *, cell: str = "eu-1", spoil: Spoil | None = None, consent: bool = True, soc: float = 0.5
    ) -> NightCar:
        """Enrol a car and put it at its plug, an hour ago."""
        side, pem = self.cells[cell], make_key()
        identity = open_identity(pem)
        owner = OwnerId(len(self.cars) + 1)
        enrolment = Enrolment(
            car_id=identity.car_id, owner_id=owner, public_key_pem=public_pem(pem), region=cell.partition("-")[0]
        )
        side.ledger.enrol([enrolment])
        change = ConsentChange(
            car_id=identity.car_id,
            purpose="compute",
            granted=consent,
            notice_version="1",
            notice_sha256=Sha256("0" * 64),
        )
        side.ledger.set_consent(change)
        side.ledger.set_consent(replace(change, purpose="telemetry", granted=True))
        wire = InProcess(lambda: side.app, self.loop)
        http = httpx.Client(transport=wire)
        client = GatewayClient(side.gate.cell.gateway_url, identity, http, clock=lambda: self.now)
        self.cars[name] = NightCar(
            identity=identity,
            wire=wire,
            http=http,
            client=client,
            stay=Charging(plugged_in_at=self.now - timedelta(hours=1), soc_at_plug_in=soc),
            agent=switched_on(self.now),
            spoil=spoil,
            now=self.now,
        )
        return self.cars[name]

    def pass_time(self, **span: float) -> None:
        """Let everybody live for so long."""
        until = self.now + timedelta(**span)
        while self.now < until:
            self._tick()

    def wait_until(self, true: Callable[[], object], *, hours: float = 2.0) -> None:
        """Let everybody live until something is so."""
        limit = self.now + timedelta(hours=hours)
        while not true():
            assert self.now < limit, f"not within {hours} hours; {self.progress().line()}"
            self._tick()

    def progress(self) -> Progress:
        return progress(self.settings, self.key, now=self.now)

    def parts(self) -> list[tuple[int, int, int, str]]:
        """Shard, first row group, end, and who computed it, of every part that counts."""
        names = {car.identity.car_id: name for name, car in self.cars.items()}
        return [
            (row["shard_id"], row["row_group_start"], row["row_group_stop"], names.get(row["car_id"], "cloud"))
            for ledger in self._ledgers()
            for row in ledger.valid_parts(self.key).to_pylist()
        ]

    def stats(self) -> dict[str, float]:
        """What the ledgers say of the night, summed."""
        return sum_stats([ledger.night_stats(self.key) for ledger in self._ledgers()])

    def results(self, merged: Merged) -> list[dict[str, Any]]:
        """Every row of the merged files."""
        return [
            row
            for file in merged.files
            for row in pq.read_table(pa.BufferReader(self.store.read(file.key))).to_pylist()
        ]

    def restart_gateway(self, cell: str = "eu-1") -> None:
        """Put a gateway in the old one's place that knows nothing of it."""
        side = self.cells[cell]
        side.gate = _gate(self, side.gate.cell, side.ledger)
        side.app = application(side.gate)

    def merge(self) -> Merged:
        """Wait until the night is over, as its DAG does, and merge."""
        self.wait_until(lambda: self.progress().over, hours=9)
        self._turn_database_clocks()
        return merge_step(self.settings, self.key, now=self.now)

    def pass_checks(self) -> None:
        """Keep the word of checks that found nothing, for stories of what comes after them."""
        merged = load_merged(self.store, self.key)
        verdict = Verdict(key=str(self.key), token=merged.token, passed=True, checks=(), failing_shards=())
        self.store.write(layout.verdict(self.key), msgspec.json.encode(verdict))

    def _ledgers(self) -> tuple[PostgresLedger, ...]:
        return find_order({CellName(name): side.ledger for name, side in self.cells.items()}, self.key).ledgers

    def _tick(self) -> None:
        self.now += TICK
        self.ticks += 1
        for side in self.cells.values():
            side.ledger.turn_clock(self.now)
            self.loop.run_until_complete(chores._sweep_once(side.gate))
        for car in self.cars.values():
            car.tick(self.now)
        if self.ticks % EACH_MINUTE == 0:
            for side in self.cells.values():
                self.loop.run_until_complete(chores.flush(side.gate, name="night"))
                side.desk.tick(now=self.now)
        if self.ticks % ROUND_TICKS == 0:
            for side in self.cells.values():
                side.dispatcher.run_round(now=self.now)
                self.loop.run_until_complete(chores.take_round(side.gate))

    def _turn_database_clocks(self) -> None:
        """Turn the clock of connections that are made from here on: steps open their own."""
        for side in self.cells.values():
            with psycopg.connect(side.gate.cell.ledger_url, autocommit=True) as connection:
                name = connection.info.dbname
                connection.execute(f"ALTER DATABASE {name} SET fleetbatch.now = '{self.now.isoformat()}'".encode())


@contextmanager
def night_in(home: Path, postgres: Postgres, *, cells: int = 1, engine: str = "") -> Iterator[Night]:
    """Give a deployment at eight in the evening; without an engine its trusted work is done in this process."""
    (home / "colours.zip").write_bytes(colour_bundle())
    with ExitStack() as stack:
        settings = load_settings(stack.enter_context(deployed(home, postgres, cells=cells, engine=engine or "local")))
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
        store = open_store(settings.store, deployment_key=settings.deployment_key)
        trusted = Here(stack.enter_context(open_engine(engine)) if engine else None)
        night = Night(home=home, settings=settings, store=store, loop=loop, trusted=trusted)
        for cell in settings.cells:
            ledger = stack.enter_context(PostgresLedger.open(cell.ledger_url))
            ledger.turn_clock(night.now)
            night.cells[cell.name] = _trusted_side(night, cell, ledger)
        yield night


def _trusted_side(night: Night, cell: Cell, ledger: PostgresLedger) -> TrustedSide:
    gate, key = _gate(night, cell, ledger), night.settings.deployment_key
    dials = DispatcherDials(snapshot=fleet.Dials(silent_after_s=300.0))  # parked cars poll every 30 s
    lane = Lane(margin=timedelta(minutes=10))  # the auditor looks once a minute here, not once a second
    door = Door(ledger=ledger, store=gate.store, pool=night.trusted, deployment_key=key)
    desk = Desk(door, DeskDials(workers=8, lane=lane))
    return TrustedSide(
        ledger=ledger,
        gate=gate,
        dispatcher=Dispatcher(cell.name, ledger, gate.store, dials),
        desk=desk,
        app=application(gate),
    )


def _gate(night: Night, cell: Cell, ledger: PostgresLedger) -> Gate:
    key = night.settings.deployment_key
    return Gate(
        cell=cell,
        deployment_key=key,
        store=open_store(night.settings.store, deployment_key=key, base_url=cell.gateway_url),
        ledger=ledger,
        executor=Here(),
        clock=lambda: night.now,
        chance=lambda: 0.5,
    )
