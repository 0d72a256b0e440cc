"""All checks of a car, in the order in which a person would repair what they find."""

from collections.abc import Iterator
from pathlib import Path

from fleetbatch.bundle import read_model_file
from fleetbatch.runner.check.dry_run import MODEL
from fleetbatch.runner.check.findings import Finding
from fleetbatch.runner.check.machine import check_machine
from fleetbatch.runner.check.network import check_network
from fleetbatch.runner.check.round_trip import check_round_trip
from fleetbatch.runner.check.vehicle import check_vehicle
from fleetbatch.runner.client import open_http
from fleetbatch.runner.setup import parser, read_setup


def check_car(flags: list[str], *, model: Path | None = None, work_s: float = 0.0) -> Iterator[Finding]:
    """Yield each finding as it is made; `flags` are the runner's own.

    Raises RejectedError when the flags, the key or the hardware file cannot be used at all.
    """
    setup = read_setup(parser().parse_args(flags))
    data = read_model_file(model or MODEL)
    with open_http() as http:
        yield from check_network(setup.gateway, setup.identity, setup.hardware, http)
    yield from check_vehicle(setup.source.current(), setup.limits)
    yield from check_machine(setup.worker, setup.hardware.memory_bytes, data)
    yield from check_round_trip(flags, work_s)
