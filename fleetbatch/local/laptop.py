"""A deployment on one laptop: its folders, its cells, its eight cars, its ports."""

import json
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetbatch.local.postgres import Postgres, make_database
from fleetbatch.settings import KEY_BYTES, Settings, load_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareClass:
    """What a class of cars computes with."""

    name: str
    threads: int
    provider: str
    precision: str
    power_w: float
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaptopCar:
    """One car of the laptop's fleet; `site` names where it stays, `owner` whose it is."""

    number: int
    cell: str
    hardware: HardwareClass
    soc_at_plug_in: float

    @property
    def name(self) -> str:
        """The car's name in logs and progress."""
        return f"car-{self.number}"


COMPACT: Final = HardwareClass(
    name="compact", threads=1, provider="CPUExecutionProvider", precision="fp32", power_w=40.0, memory_bytes=1 << 30
)
STANDARD: Final = HardwareClass(
    name="standard", threads=1, provider="CPUExecutionProvider", precision="fp16", power_w=65.0, memory_bytes=2 << 30
)
PREMIUM: Final = HardwareClass(
    name="premium", threads=2, provider="CPUExecutionProvider", precision="fp32", power_w=140.0, memory_bytes=4 << 30
)
CELLS: Final = (("eu-1", "eu", "Europe/Berlin"), ("us-1", "us", "America/Los_Angeles"))
"""Name, region, and the time zone in which the cell's cars live."""
CLASSES: Final = (COMPACT, STANDARD, PREMIUM)


def laptop_cars(count: int) -> list[LaptopCar]:
    """Return the fleet: cells in turn, classes in turn, charge between 35 and 70 %."""
    return [
        LaptopCar(
            number=number,
            cell=CELLS[number % len(CELLS)][0],
            hardware=CLASSES[(number // len(CELLS)) % len(CLASSES)],
            soc_at_plug_in=0.35 + 0.05 * (number % 8),
        )
        for number in range(count)
    ]


def write_settings(home: Path, server: Postgres, ports: Sequence[int]) -> Settings:
    """Write the laptop's settings and key (kept from night to night), make its databases, and read it all back."""
    key = home / "deployment.key"
    if not key.exists():
        descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_bytes(KEY_BYTES).hex())
    lines = [f"store = {json.dumps((home / 'store').resolve().as_uri())}", 'deployment_key_file = "deployment.key"', ""]
    for (name, region, timezone), port in zip(CELLS, ports, strict=True):
        database = f"cell_{name.replace('-', '_')}"
        make_database(server, database)
        lines += [
            "[[cells]]",
            f'name = "{name}"',
            f'region = "{region}"',
            f'timezone = "{timezone}"',
            f'ledger_url = "{server.database_url(database)}"',
            f'gateway_ledger_url = "{server.database_url(database, role="fleetbatch_gateway")}"',
            f'gateway_url = "http://127.0.0.1:{port}"',
            "",
        ]
    path = home / "settings.toml"
    path.write_text("\n".join(lines))
    return load_settings(path)


def free_ports(count: int) -> list[int]:
    """Return loopback ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
