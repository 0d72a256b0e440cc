"""`python -m fleetbatch.runner --gateway URL --key FILE --signals file:PATH`: a car, until SIGTERM."""

import argparse
import queue
import signal
import sys
import tomllib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psutil

from fleetbatch import __version__
from fleetbatch.bundle import PRECISIONS
from fleetbatch.car import nouns as n
from fleetbatch.car.conditions import Limits
from fleetbatch.car.identity import open_identity
from fleetbatch.errors import RejectedError
from fleetbatch.logs import log_to_stderr, say
from fleetbatch.protocol import Hardware
from fleetbatch.runner.calls import Calls
from fleetbatch.runner.client import GatewayClient, open_http
from fleetbatch.runner.crew import WorkerSettings
from fleetbatch.runner.energy import Account, open_meter
from fleetbatch.runner.life import Heard, Runner
from fleetbatch.runner.memory import share
from fleetbatch.runner.signals import open_signals
from fleetbatch.units import MIB
from fleetbatch.workloads import usable_workloads

EXIT_REFUSED: Final = 2
"""A person must act; the one line on stderr says how."""
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a car; return 0 after a stop, 2 when its key, its flags or the gateway's answer need a person."""
    told = _parser().parse_args(arguments)
    try:
        _run(told)
    except RejectedError as error:
        print(f"fleetbatch.runner: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201 (for a person)
        return EXIT_REFUSED
    return 0


def _run(told: argparse.Namespace) -> None:
    identity = open_identity(_read(told.key))
    log_to_stderr("runner", car=identity.name)
    hardware = _hardware(told)
    heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
    client = GatewayClient(told.gateway, identity, open_http())
    memory_bytes = min(hardware["memory_mib"] * MIB, psutil.virtual_memory().total)
    shared = share(memory_bytes, _cores(hardware))
    meter = open_meter(hardware["power_w"], signal=bool(hardware["power_signal"]))
    runner = Runner(
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
        calls=Calls(client, identity, heard.put),
        account=Account(meter=meter),
        power_signal=hardware["power_signal"],
        heard=heard,
        limits=_limits(told, hardware["power_w"]),
    )
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: heard.put(n.Stop()))
    say("started", gateway=told.gateway, workers=shared.workers, meter=type(meter).__name__, **hardware)
    runner.run()
    say("stopped")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fleetbatch.runner", description="The car's process: computes while parked, stops when told."
    )
    parser.add_argument("--gateway", required=True, help="the cell's gateway, such as https://gateway.example")
    parser.add_argument("--key", required=True, type=Path, help="PEM file of the car's ES256 private key")
    parser.add_argument("--signals", required=True, help="where vehicle signals come from: file:PATH")
    parser.add_argument("--cache", type=Path, help="folder for model bundles; default: beside the key")
    parser.add_argument("--hardware", type=Path, help="TOML file with any of the values below")
    parser.add_argument("--hardware-class", help=f"default {HARDWARE['hardware_class']}")
    parser.add_argument("--threads", type=int, help="cores that compute; default all that memory allows")
    parser.add_argument("--provider", help="onnxruntime's execution provider; default CPUExecutionProvider")
    parser.add_argument("--precision", choices=_PRECISIONS, help="take this variant of a model where it has one")
    parser.add_argument("--power-w", type=float, help="draw while computing, from the data sheet; default 60")
    parser.add_argument("--memory-mib", type=int, help="what the runner may use; default 1024")
    parser.add_argument("--power-signal", help="VSS signal of what the computer draws, in watts")
    parser.add_argument("--row-limit-s", type=float, default=120, help="a row that takes longer is given up (120)")
    parser.add_argument("--settle-s", type=float, default=300, help="seconds between changes of mind; default 300")
    return parser


def _hardware(told: argparse.Namespace) -> dict[str, Any]:
    """Return the class: defaults, the file's values, the flags, each over the one before."""
    file = _toml(told.hardware) if told.hardware else {}
    flags = {name: getattr(told, name) for name in HARDWARE if getattr(told, name) is not None}
    merged = HARDWARE | file | flags
    problems = [f"`{name}` is not known; known are {', '.join(HARDWARE)}" for name in file if name not in HARDWARE]
    for name, default in HARDWARE.items():
        if isinstance(default, str) != isinstance(merged[name], str) or isinstance(merged[name], bool):
            problems.append(f"`{name}` is {merged[name]!r}; expected something like {default!r}")
        elif not isinstance(default, str) and not merged[name] > (-1 if name == "threads" else 0):
            problems.append(f"`{name}` is {merged[name]!r}; it must be above zero")
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


if __name__ == "__main__":
    sys.exit(main())
