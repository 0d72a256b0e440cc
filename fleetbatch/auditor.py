"""Audits for a cell, and its cloud lane: what needs a machine that is trusted.

`python -m fleetbatch.auditor --settings FILE --cell NAME`. As many as needed may run: each claims other shards, and a
verdict counts once. Rooms are imported inside `main`, because every worker of the engine imports this module.
"""

import argparse
import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.logs import log_to_stderr, say

if TYPE_CHECKING:
    from fleetbatch.audit.desk import Desk, Dials
    from fleetbatch.ledger.dials import LedgerDials
    from fleetbatch.settings import Settings

EXIT_REJECTED: Final = 2
_RETRY_S: Final = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit until SIGTERM or SIGINT; return 0 for a planned end, 2 when a person must act."""
    parser = argparse.ArgumentParser(prog="python -m fleetbatch.auditor", description=__doc__)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--cell", required=True)
    parser.add_argument("--every-s", type=float, default=1.0, help="how often the ledger is asked for work")
    parser.add_argument("--workers", type=int, default=2, help="processes that compute")
    parser.add_argument("--part-s", type=float, default=60.0, help="seconds of work in a part of the cloud lane")
    parser.add_argument("--power-w", type=float, default=65.0, help="draw of this machine while one worker computes")
    parser.add_argument("--lane-margin-s", type=float, default=30.0, help="the cloud lane begins so much earlier")
    parser.add_argument("--lane-last-h", type=float, default=None, help="only in so many last hours; default: any time")
    parser.add_argument("--claim-s", type=float, default=600.0, help="a shard is given out again after so long")
    told = parser.parse_args(arguments)
    log_to_stderr("auditor", cell=told.cell)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    from fleetbatch.audit.desk import Dials
    from fleetbatch.audit.lane import Lane
    from fleetbatch.ledger.dials import LedgerDials
    from fleetbatch.settings import load_settings

    last = timedelta.max if told.lane_last_h is None else timedelta(hours=told.lane_last_h)
    lane = Lane(margin=timedelta(seconds=told.lane_margin_s), last=last)
    dials = Dials(workers=told.workers, part_s=told.part_s, power_w=told.power_w, lane=lane)
    keeping = LedgerDials(audit_claim=timedelta(seconds=told.claim_s))
    try:
        _audit(load_settings(told.settings), told.cell, (dials, keeping), told.every_s, stop)
    except RejectedError as error:
        say("refused", level=logging.CRITICAL, detail=str(error))
        return EXIT_REJECTED
    return 0


def _audit(
    settings: "Settings", cell_name: str, turned: "tuple[Dials, LedgerDials]", every_s: float, stop: threading.Event
) -> None:
    """Work until asked to stop, with a new engine whenever one loses a worker."""
    from fleetbatch.audit.desk import Desk, Door
    from fleetbatch.engine import open_engine
    from fleetbatch.ledger.postgres import PostgresLedger
    from fleetbatch.settings import cell_named
    from fleetbatch.store import open_store

    cell = cell_named(settings, cell_name)
    store = open_store(settings.store, deployment_key=settings.deployment_key, base_url=cell.gateway_url)
    desk, (dials, keeping) = None, turned
    with PostgresLedger.open(cell.ledger_url, dials=keeping) as ledger:
        while not stop.is_set():
            try:
                with open_engine(settings.engine, workers=dials.workers) as pool:
                    if desk is None:
                        door = Door(ledger=ledger, store=store, pool=pool, deployment_key=settings.deployment_key)
                        desk = Desk(door, dials)
                    else:
                        desk.hire(pool)
                    _run_desk(desk, every_s, stop)
            except TransientError as error:
                _not_reached(error, stop)
        if desk is not None:
            _let_go(desk)


def _run_desk(desk: "Desk", every_s: float, stop: threading.Event) -> None:
    say("auditing")
    try:
        while not stop.is_set() and not desk.broken:
            try:
                desk.tick(now=datetime.now(UTC))
            except TransientError as error:
                _not_reached(error, stop)
            if desk.running:
                wait(desk.running, timeout=every_s, return_when=FIRST_COMPLETED)
            else:
                stop.wait(every_s)
    finally:
        for child in multiprocessing.active_children():
            child.kill()  # what they compute is given out again; the engine would wait for it


def _not_reached(error: TransientError, stop: threading.Event) -> None:
    """Say that the ledger or the engine is out of reach, and wait a little."""
    say("not reached", level=logging.WARNING, detail=str(error))
    stop.wait(_RETRY_S)


def _let_go(desk: "Desk") -> None:
    try:
        desk.let_go()
    except TransientError as error:
        say("leases are left to run out", level=logging.WARNING, detail=str(error))


if __name__ == "__main__":
    sys.exit(main())
