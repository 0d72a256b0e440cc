"""The laptop's fleet: eight processes that know a gateway and a key, and the sensors they look at.

Whatever plays the world (plugging in, unplugging, charging) happens here, outside the code that runs in a car.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from fleetbatch.car.identity import car_id_of, make_key, public_pem
from fleetbatch.errors import RejectedError
from fleetbatch.ledger.messages import PURPOSE_COMPUTE, ConsentChange, ConsentRefused, Enrolment
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.local.charging import Charging, vehicle_signals
from fleetbatch.local.laptop import CELLS, LaptopCar
from fleetbatch.local.processes import Child, Children
from fleetbatch.units import MIB, CarId, CellName, OwnerId, Sha256

NOTICE: Final = (
    "While your car charges, it may compute for others with power from the charger, never from its battery. "
    "You are paid for it, and can say no at any moment."
)
"""What the laptop's owners have read; a deployment has its own notice and version."""

SETTLE_S: Final = 5.0
"""How long a laptop's car keeps its mind; a real one 300 s (trust.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedCar:
    """A car of the laptop at its plug."""

    car: LaptopCar
    car_id: CarId
    folder: Path
    stay: Charging

    @property
    def key_file(self) -> Path:
        """The car's ES256 private key."""
        return self.folder / "car.pem"

    @property
    def signals_file(self) -> Path:
        """What its sensors say now."""
        return self.folder / "signals.json"


def park(home: Path, cars: Sequence[LaptopCar], *, now: datetime) -> list[ParkedCar]:
    """Give every car a folder and, the first time, a key; plug them all in."""
    return [_park_one(home / "cars" / car.name, car, now) for car in cars]


def enrol(ledgers: Mapping[CellName, PostgresLedger], parked: Sequence[ParkedCar]) -> None:
    """Make the cars known to their cells' ledgers and record their owners' consent."""
    for cell in {one.car.cell: one.car for one in parked}.values():
        ledger = ledgers[CellName(cell.cell)]
        mine = [one for one in parked if one.car.cell == cell.cell]
        ledger.enrol([_enrolment(one) for one in mine])
        for one in mine:
            for purpose in (PURPOSE_COMPUTE, "telemetry"):
                answer = ledger.set_consent(_yes(one.car_id, purpose))
                if isinstance(answer, ConsentRefused):
                    raise RejectedError(answer.reason)


def show_signals(parked: ParkedCar, *, now: datetime) -> None:
    """Replace what the car's sensors say; a reader sees the old file or the new one."""
    content = {"signals": vehicle_signals(parked.stay, now), "reserve_soc": 0.2, "departure_at": None}
    scratch = parked.signals_file.with_suffix(".new")
    scratch.write_text(json.dumps(content))
    scratch.replace(parked.signals_file)


def unplug(parked: ParkedCar, *, now: datetime) -> ParkedCar:
    """The owner pulls the cable, now."""
    gone = replace(parked, stay=replace(parked.stay, unplugged_at=now))
    show_signals(gone, now=now)
    return gone


def drive(children: Children, parked: ParkedCar, gateway_url: str, env: Mapping[str, str]) -> Child:
    """Start the car's runner."""
    hardware = parked.car.hardware
    command = [
        *(sys.executable, "-m", "fleetbatch.runner"),
        *("--gateway", gateway_url),
        *("--key", str(parked.key_file)),
        *("--signals", f"file:{parked.signals_file}"),
        *("--cache", str(parked.folder / "cache")),
        *("--hardware-class", hardware.name),
        *("--threads", str(hardware.threads)),
        *("--provider", hardware.provider),
        *("--precision", hardware.precision),
        *("--power-w", str(hardware.power_w)),
        *("--memory-mib", str(hardware.memory_bytes // MIB)),
        *("--settle-s", str(SETTLE_S)),
    ]
    return children.spawn(parked.car.name, command, env)


def _park_one(folder: Path, car: LaptopCar, now: datetime) -> ParkedCar:
    folder.mkdir(parents=True, exist_ok=True)
    key_file = folder / "car.pem"
    if not key_file.exists():
        descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(make_key())
    stay = Charging(plugged_in_at=now, soc_at_plug_in=car.soc_at_plug_in)
    parked = ParkedCar(car=car, car_id=car_id_of(key_file.read_bytes()), folder=folder, stay=stay)
    show_signals(parked, now=now)
    return parked


def _enrolment(one: ParkedCar) -> Enrolment:
    pem = public_pem(one.key_file.read_bytes())
    region = next(region for name, region, _ in CELLS if name == one.car.cell)
    return Enrolment(car_id=one.car_id, owner_id=OwnerId(one.car_id), public_key_pem=pem, region=region)


def _yes(car_id: CarId, purpose: str) -> ConsentChange:
    notice = Sha256(hashlib.sha256(NOTICE.encode()).hexdigest())
    return ConsentChange(car_id=car_id, purpose=purpose, granted=True, notice_version="1", notice_sha256=notice)
