"""A car's process: its parts are put together from its flags, and run until SIGTERM."""

import queue
import signal
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from fleetbatch.car import nouns as n
from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.logs import log_to_stderr, say
from fleetbatch.runner.calls import Calls
from fleetbatch.runner.client import GatewayClient, open_http
from fleetbatch.runner.energy import Account, open_meter
from fleetbatch.runner.life import Heard, Runner
from fleetbatch.runner.setup import Setup, parser, read_setup

EXIT_AGAIN: Final = 1
"""Start it again; the one line on stderr says what was lost."""
EXIT_REFUSED: Final = 2
"""A person must act; the one line on stderr says how."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a car; return 0 after a stop, 2 when its key, its flags or the gateway's answer need a person, else 1."""
    told = parser().parse_args(arguments)
    try:
        _run(read_setup(told))
    except (RejectedError, TransientError) as error:
        print(f"fleetbatch.runner: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201 (for a person)
        return EXIT_REFUSED if isinstance(error, RejectedError) else EXIT_AGAIN
    return 0


def _run(setup: Setup) -> None:
    log_to_stderr("runner", car=setup.identity.name)
    heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
    client = GatewayClient(setup.gateway, setup.identity, open_http())
    meter = open_meter(setup.hardware.power_w, signal=bool(setup.power_signal))
    runner = Runner(
        source=setup.source,
        hardware=setup.hardware,
        worker=setup.worker,
        calls=Calls(client, setup.identity, heard.put),
        account=Account(meter=meter),
        power_signal=setup.power_signal,
        heard=heard,
        limits=setup.limits,
    )
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: heard.put(n.Stop()))
    say("started", gateway=setup.gateway, meter=type(meter).__name__, **msgspec.to_builtins(setup.hardware))
    runner.run()
    say("stopped")
