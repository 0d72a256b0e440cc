"""`python -m fleetbatch.gateway --settings FILE --cell NAME --port N`: one gateway of one cell until SIGTERM."""

import argparse
import asyncio
import contextlib
import dataclasses
import errno
import gc
import hashlib
import json
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

import uvicorn

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.gateway.addresses import as_seen
from fleetbatch.gateway.app import application
from fleetbatch.gateway.chores import chores
from fleetbatch.gateway.connection import connections
from fleetbatch.gateway.dials import Dials
from fleetbatch.gateway.gate import Gate
from fleetbatch.ledger.dials import BY_KEY, LedgerDials
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.logs import gathered, log_to_stderr, say
from fleetbatch.nouns import Cell
from fleetbatch.settings import Settings, cell_named, load_settings
from fleetbatch.store import Store, open_store, refuse_lacking
from fleetbatch.units import Sha256

_THREADS: Final = 12
_CONNECTIONS: Final = 6
_BACKLOG: Final = 2048
_GRACE_S: Final = 1
_KEEP_S: Final = 15
"""Connections outlive a beat by this: a handshake costs more than ten calls."""
_EXIT_REFUSED: Final = 2
_EXIT_NOT_READY: Final = 75
"""EX_TEMPFAIL: whoever watches over the process starts it again."""
_COLLECT_AFTER: Final = (50_000, 20, 50)
"""Python's own thresholds would go through all that is kept of leases again and again; polls leave nothing to it."""
_TIMES: Final = ("lease", "beat_every", "part_every", "poll_every", "telemetry_every", "sweep_every")


class _Server(uvicorn.Server):
    """uvicorn, without its habit to end by the signal that stopped it: a stop that was asked for is exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `stop_on_signals`."""
        yield

    def stop_on_signals(self) -> None:
        """Stop on SIGTERM and SIGINT, from now on."""
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def main(arguments: list[str] | None = None) -> int:
    """Run a gateway; return 0 after a stop that was asked for, 2 when it cannot run as told, 75 when not yet."""
    given = _parser().parse_args(arguments)
    log_to_stderr("gateway", cell=given.cell)
    try:
        settings = load_settings(given.settings)
        cell = cell_named(settings, given.cell)
        listening = _listen(given.host, given.port, shared=given.share_port)
        with listening:
            _serve(settings, cell, listening, _dials(given), proxies=given.proxy)
    except RejectedError as error:
        sys.stderr.write(f"{error}\n")
        return _EXIT_REFUSED
    except TransientError as error:
        sys.stderr.write(f"{error}\n")
        return _EXIT_NOT_READY
    return 0


def _serve(settings: Settings, cell: Cell, listening: socket.socket, dials: Dials, *, proxies: list[str]) -> None:
    store = open_store(settings.store, deployment_key=settings.deployment_key, base_url=cell.gateway_url)
    tried = _try_out(store)
    _load_signing(store)
    ledger_dials = LedgerDials(connections=_CONNECTIONS, session=BY_KEY)
    with (
        PostgresLedger.open(cell.gateway_ledger_url, dials=ledger_dials) as ledger,
        ThreadPoolExecutor(_THREADS) as executor,
    ):
        _collect_rarely()
        ledger.latest_round()  # a database that is not there at the start is somebody's mistake: say so at once
        gate = Gate(
            cell=cell,
            deployment_key=settings.deployment_key,
            store=store,
            ledger=ledger,
            executor=executor,
            clock=partial(datetime.now, UTC),
            dials=dials,
        )
        with asyncio.Runner(loop_factory=_loop) as runner:
            runner.run(_live(gate, listening, proxies, store_tried=tried))


def _try_out(store: Store) -> bool:
    """Raise RejectedError that names what the store lacks; return False for one that is away, which is tried later."""
    try:
        refuse_lacking(store)
    except TransientError as error:
        say("store not tried", level=logging.WARNING, detail=str(error))
        return False
    return True


def _load_signing(store: Store) -> None:
    """Sign once before there are cars: an S3 library that loads at the first of them makes the others wait."""
    nothing = Sha256(hashlib.sha256().hexdigest())
    store.sign_put("probe/first", size=0, sha256=nothing, now=datetime.now(UTC), expires=timedelta(seconds=1))


def _collect_rarely() -> None:
    """Let the garbage collector look rarely: what is kept of leases and cars is much, and holds no cycles."""
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


async def _live(gate: Gate, listening: socket.socket, proxies: list[str], *, store_tried: bool) -> None:
    config = uvicorn.Config(
        application(gate),
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=bool(proxies),  # who calls is in the token; where from counts until there is one
        forwarded_allow_ips=[form for proxy in proxies for form in as_seen(proxy)],
        http=connections(gate),
        ws="none",
        backlog=_BACKLOG,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_keep_alive=int(gate.dials.beat_every.total_seconds()) + _KEEP_S,
    )
    server = _Server(config)
    server.stop_on_signals()
    with gathered():
        async with chores(gate, name=secrets.token_hex(4), store_tried=store_tried):
            await _serve_ready(gate, listening, server)
    say("stopped")


async def _serve_ready(gate: Gate, listening: socket.socket, server: uvicorn.Server) -> None:
    host, port = listening.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    ready = {"event": "ready", "cell": gate.cell.name, "url": url, "pid": os.getpid()}
    listening.listen(_BACKLOG)  # from here on connections wait instead of being refused
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    say("started", port=port)
    await server.serve(sockets=[listening])


def _loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's loop where it exists."""
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def _listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """Take the port, alone or with others that share it; raise RejectedError when it is not ours to take."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if shared else socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        why = "is taken by another process" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        summary = f"port {port} of {host} {why}; choose another with --port"
        raise RejectedError(summary) from error
    return listening


def _dials(given: argparse.Namespace) -> Dials:
    def span(name: str, default: timedelta) -> timedelta:
        seconds: float | None = getattr(given, f"{name}_s")
        return default if seconds is None else timedelta(seconds=seconds)

    usual = Dials()
    return dataclasses.replace(
        usual,
        lease_for=span("lease", usual.lease_for),
        beat_every=span("beat_every", usual.beat_every),
        part_every=span("part_every", usual.part_every),
        poll_every=span("poll_every", usual.poll_every),
        telemetry_every=span("telemetry_every", usual.telemetry_every),
        sweep_every=span("sweep_every", usual.sweep_every),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fleetbatch.gateway", description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="the deployment's TOML file")
    parser.add_argument("--cell", required=True, help="which of its cells to serve")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes any free port")
    shared = "other gateways of this user share the port: one process a core, and the kernel spreads the connections"
    parser.add_argument("--share-port", action="store_true", help=shared)
    proxy = "an address or network of proxies, whose X-Forwarded-For says where a call comes from; may be repeated"
    parser.add_argument("--proxy", action="append", default=[], type=_network, help=proxy)
    for name in _TIMES:
        parser.add_argument(f"--{name.replace('_', '-')}-s", type=float, help="seconds")
    return parser


def _network(text: str) -> str:
    """Return an address or network as it is written; raise ArgumentTypeError for anything else."""
    try:
        return str(ip_network(text)) if "/" in text else str(ip_address(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
