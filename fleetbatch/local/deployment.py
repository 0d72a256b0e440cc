"""A whole deployment as processes of one laptop, started in the order of their needs and ended in reverse."""

import fcntl
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fleetbatch.errors import RejectedError
from fleetbatch.ledger.postgres import PostgresLedger, migrate
from fleetbatch.local.cars import ParkedCar, drive, enrol, park, show_signals
from fleetbatch.local.history import write_history
from fleetbatch.local.laptop import free_ports, laptop_cars, write_settings
from fleetbatch.local.postgres import Postgres, start_postgres, stop_postgres
from fleetbatch.local.processes import Child, Children, children, wait_ready
from fleetbatch.local.progress import Progress
from fleetbatch.settings import KEY_BYTES, Settings
from fleetbatch.store import open_store
from fleetbatch.units import CellName

LEASE_S: Final = 10.0
"""Short, so that a killed car's shard is free again within a laptop's night (design: 600 s)."""
BEAT_S: Final = 2.0
ROUND_S: Final = 2.0
POLL_S: Final = 1.0
AUDIT_S: Final = 0.5
SILENT_S: Final = 8.0
"""A car polls every second and telemetry is written every two; who is not heard for so long gets no offer."""
TELEMETRY_S: Final = 2.0
_INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM)
READY: Final = '"ready"'
"""What a process logs when it can be used."""


@dataclass(slots=True)
class Deployment:
    """A running laptop."""

    home: Path
    settings: Settings
    server: Postgres
    ledgers: Mapping[CellName, PostgresLedger]
    family: Children
    env: Mapping[str, str]
    cars: dict[str, ParkedCar]
    services: list[Child] = field(default_factory=list)
    runners: dict[str, Child] = field(default_factory=dict)

    @property
    def settings_file(self) -> Path:
        """The deployment's settings, as its processes read them."""
        return self.home / "settings.toml"

    def turn_the_world(self, now: datetime) -> None:
        """Let time pass for every car's sensors."""
        for car in self.cars.values():
            show_signals(car, now=now)

    def fallen(self) -> list[Child]:
        """Return the services that stopped by themselves."""
        return [child for child in self.services if not child.alive()]


@contextmanager
def alone_in(home: Path) -> Iterator[int]:
    """Hold the folder and give the lock's descriptor.

    Raises RejectedError when another night runs in it, or when it or its store cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "lock").open("w")
    except OSError as error:
        summary = f"{home} cannot be written ({error.strerror}); choose another place with --home"
        raise RejectedError(summary) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            summary = f"another night is running in {home}; wait for its end, or choose another place with --home"
            raise RejectedError(summary) from error
        open_store((home.resolve() / "store").as_uri(), deployment_key=bytes(KEY_BYTES))  # refused now, not at midnight
        yield lock.fileno()


@contextmanager
def deployment(home: Path, *, lock: int, cars: int, progress: Progress) -> Iterator[Deployment]:
    """Start PostgreSQL, and for each cell a gateway, a dispatcher and an auditor, and the cars; end them all.

    `lock` is what `alone_in` gave: the folder stays held until the last process has ended, even if this one is killed.
    """
    with ExitStack() as stack:
        for number in _INTERRUPTS:
            stack.callback(signal.signal, number, signal.getsignal(number))
        family = stack.enter_context(children(home / "logs", lock=lock))
        progress.now("starting PostgreSQL")
        server = start_postgres(home, guard=family.guard)
        stack.callback(stop_postgres, server)
        # The stack ends in reverse: ledgers close, then children (again harmless), then the server.
        settings = write_settings(home, server, free_ports(2))
        ledgers = {}
        for cell in settings.cells:
            migrate(cell.ledger_url)
            ledgers[cell.name] = stack.enter_context(PostgresLedger.open(cell.ledger_url))
        parked = park(home, laptop_cars(cars), now=_now())
        enrol(ledgers, parked)
        store = open_store(settings.store, deployment_key=settings.deployment_key)
        write_history(store, parked, now=_now())
        running = Deployment(
            home=home,
            settings=settings,
            server=server,
            ledgers=ledgers,
            family=family,
            env={**os.environ, "FLEETBATCH_SETTINGS": str(home / "settings.toml"), "PYTHONUNBUFFERED": "1"},
            cars={one.car.name: one for one in parked},
        )
        stack.callback(_stop_all, running)
        for number in _INTERRUPTS:  # what is pushed last ends first: a second Ctrl-C does not cut the stopping short
            stack.callback(signal.signal, number, signal.SIG_IGN)
        _start_services(running, progress)
        _start_cars(running)
        yield running


def _start_services(running: Deployment, progress: Progress) -> None:
    ready = []
    dispatching = ["--round-every-s", str(ROUND_S), "--silent-after-s", str(SILENT_S)]
    for cell in running.settings.cells:
        port = cell.gateway_url.rpartition(":")[2]
        progress.now(f"starting cell {cell.name}")
        for name, options in (
            ("gateway", ["--port", port, *_gateway_dials()]),
            ("dispatcher", dispatching),
            ("auditor", ["--every-s", str(AUDIT_S), "--workers", "1"]),
        ):
            command = [sys.executable, "-m", f"fleetbatch.{name}", "--settings", str(running.settings_file)]
            command += ["--cell", cell.name, *options]
            child = running.family.spawn(f"{name}-{cell.name}", command, running.env)
            running.services.append(child)
            if name == "gateway":
                ready.append(child)
    for child in ready:
        wait_ready(child, READY)


def _gateway_dials() -> list[str]:
    dials = {"lease-s": LEASE_S, "beat-every-s": BEAT_S, "part-every-s": 0.0, "poll-every-s": POLL_S}
    dials["telemetry-every-s"] = TELEMETRY_S
    return [word for name, value in dials.items() for word in (f"--{name}", str(value))]


def _start_cars(running: Deployment) -> None:
    urls = {cell.name: cell.gateway_url for cell in running.settings.cells}
    # A car knows its gateway and its key: not the settings, and no credential of the store or the ledger.
    env = {name: value for name, value in running.env.items() if name != "FLEETBATCH_SETTINGS"}
    for name, parked in running.cars.items():
        running.runners[name] = drive(running.family, parked, urls[CellName(parked.car.cell)], env)


def _stop_all(running: Deployment) -> None:
    """Cars first, so that they can let go of their leases; the gateways last."""
    running.family.stop(list(running.runners.values()))
    running.family.stop(running.services[::-1])


def _now() -> datetime:
    return datetime.now(UTC)
