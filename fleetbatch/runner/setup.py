"""What a runner is told: flags, a key, a hardware file; and what follows from them, before anything is started."""

import argparse
import math
import tomllib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psutil

from fleetbatch import __version__
from fleetbatch.bundle import PRECISIONS
from fleetbatch.car.conditions import Limits
from fleetbatch.car.identity import Identity, open_identity
from fleetbatch.errors import RejectedError
from fleetbatch.protocol import Hardware
from fleetbatch.runner.memory import share
from fleetbatch.runner.signals import SignalSource, open_signals
from fleetbatch.runner.worker import WorkerSettings
from fleetbatch.units import MIB
from fleetbatch.workloads import usable_workloads

HARDWARE: Final[dict[str, Any]] = {
    "hardware_class": "standard",
    "threads": 0,
    "provider": "CPUExecutionProvider",
    "precision": "",
    "power_w": 60.0,
    "power_signal": "",
    "memory_mib": 1024,
}
"""What a hardware class says, and what it is when nothing is said; a hardware file (TOML) has the same names.

`threads` are cores that compute, a worker process each; 0 is all that the car has and `memory_mib` allows.
`power_signal` is the VSS signal, in watts, of a vehicle that measures what its computer draws.
"""
_PRECISIONS: Final = tuple(name for name in PRECISIONS if name != "int8")
"""What a hardware class may choose; int8 changes answers, so only an order can ask for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A car that could be started."""

    gateway: str
    identity: Identity
    source: SignalSource
    hardware: Hardware
    worker: WorkerSettings
    limits: Limits
    power_signal: str


def read_setup(told: argparse.Namespace) -> Setup:
    """Return what the flags say; raise RejectedError for what cannot be."""
    identity, hardware = open_identity(_read(told.key)), _hardware(told)
    memory_bytes = min(hardware["memory_mib"] * MIB, psutil.virtual_memory().total)
    shared = share(memory_bytes, _cores(hardware))
    return Setup(
        gateway=told.gateway,
        identity=identity,
        source=open_signals(told.signals),
        hardware=Hardware(
            hardware_class=hardware["hardware_class"],
            provider=hardware["provider"],
            threads=shared.workers,
            memory_bytes=memory_bytes,
            runner_version=__version__,
            power_w=hardware["power_w"],
            workloads=list(usable_workloads()),
        ),
        worker=WorkerSettings(
            workers=shared.workers,
            memory_bytes=shared.worker_bytes,
            provider=hardware["provider"],
            precision=hardware["precision"],
            cache=told.cache or told.key.parent / f"bundles-{identity.name}",
            row_limit_s=told.row_limit_s,
        ),
        limits=_limits(told, hardware["power_w"]),
        power_signal=hardware["power_signal"],
    )


def parser() -> argparse.ArgumentParser:
    """Return what the flags are."""
    flags = argparse.ArgumentParser(
        prog="python -m fleetbatch.runner", description="The car's process: computes while parked, stops when told."
    )
    flags.add_argument("--gateway", required=True, help="the cell's gateway, such as https://gateway.example")
    flags.add_argument("--key", required=True, type=Path, help="PEM file of the car's ES256 private key")
    flags.add_argument("--signals", required=True, help="where vehicle signals come from: file:PATH")
    flags.add_argument("--cache", type=Path, help="folder for model bundles; default: beside the key")
    flags.add_argument("--hardware", type=Path, help="TOML file with any of the values below")
    flags.add_argument("--hardware-class", help=f"default {HARDWARE['hardware_class']}")
    flags.add_argument("--threads", type=int, help="cores that compute; default all that memory allows")
    flags.add_argument("--provider", help="onnxruntime's execution provider; default CPUExecutionProvider")
    flags.add_argument("--precision", choices=_PRECISIONS, help="take this variant of a model where it has one")
    flags.add_argument("--power-w", type=float, help="draw while computing, from the data sheet; default 60")
    flags.add_argument("--memory-mib", type=int, help="what the runner may use; default 1024")
    flags.add_argument("--power-signal", help="VSS signal of what the computer draws, in watts")
    flags.add_argument("--row-limit-s", type=float, default=120, help="a row that takes longer is given up (120)")
    flags.add_argument("--settle-s", type=float, default=300, help="seconds between changes of mind; default 300")
    return flags


def _hardware(told: argparse.Namespace) -> dict[str, Any]:
    """Return the class: defaults, the file's values, the flags, each over the one before."""
    file = _toml(told.hardware) if told.hardware else {}
    flags = {name: getattr(told, name) for name in HARDWARE if getattr(told, name) is not None}
    merged = HARDWARE | file | flags
    problems = [f"`{name}` is not known; known are {', '.join(HARDWARE)}" for name in file if name not in HARDWARE]
    for name, default in HARDWARE.items():
        if isinstance(default, str) != isinstance(merged[name], str) or isinstance(merged[name], bool):
            problems.append(f"`{name}` is {merged[name]!r}; expected something like {default!r}")
        elif isinstance(default, int) and not isinstance(merged[name], int):
            problems.append(f"`{name}` is {merged[name]!r}; it must be a whole number")
        elif not isinstance(default, str) and not (-1 if name == "threads" else 0) < merged[name] < math.inf:
            problems.append(f"`{name}` is {merged[name]!r}; it must be above zero, and finite")
    if merged["precision"] not in ("", *_PRECISIONS):  # a list in its place is in no set
        known = f"known are {', '.join(_PRECISIONS)}; int8 is for an order to ask for"
        problems.append(f"`precision` is {merged['precision']!r}; {known}")
    if not 0 < told.row_limit_s < math.inf:
        problems.append(f"--row-limit-s is {told.row_limit_s}; it must be above zero, and finite")
    if problems:
        summary = "the hardware class cannot be used"
        raise RejectedError(summary, problems)
    return merged


def _cores(hardware: dict[str, Any]) -> int:
    """Return how many workers may compute side by side: an accelerator is one."""
    if hardware["provider"] != "CPUExecutionProvider":
        return 1
    return int(hardware["threads"]) or len(psutil.Process().cpu_affinity() or [0])


def _limits(told: argparse.Namespace, power_w: float) -> Limits:
    return Limits(power_w=power_w, settle=timedelta(seconds=told.settle_s))


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(path).decode())
    except ValueError as error:  # also what is not UTF-8
        summary = f"{path} is not TOML: {error}"
        raise RejectedError(summary) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        summary = f"cannot read {path}: {error.strerror}"
        raise RejectedError(summary) from error
