"""A round of a million offers: written by the dispatcher's side, read and held by a gateway's.

Both sides are weighed in one process of their own, PostgreSQL beside them; every commit is on disk. Time is from the
first byte written to the last offer held, which the CPU seconds of all stay under.
"""

import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from benchmarks.ledger_cell import CELL, bench_cell, offers_table
from benchmarks.ledger_load import memory_mib
from benchmarks.run import tell
from fleetbatch.gateway.rounds import OfferBook
from fleetbatch.units import CarId

OFFERS = 1_000_000
LOOKS = 100_000
LOOK_S = 0.02


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="fleetbatch-bench-") as home,
        bench_cell(Path(home), cars=10, shards=1) as cell,
    ):
        numbers = np.random.default_rng(1).permutation(OFFERS) + 1
        table = offers_table(numbers, numbers)
        lock = cell.ledger.lock_planner(CELL)
        assert lock is not None
        gateway = cell.gateways[0].pid
        before = memory_mib(gateway)
        scale = cell.scale()
        scale.start()
        started = time.monotonic()
        round_id = cell.ledger.write_round(lock, table, {})
        tell("offers_1m, of that written", time.monotonic() - started, "s")
        while f'"round":{round_id}' not in httpx.get(f"{cell.url}/healthz").text:
            time.sleep(LOOK_S)
        tell("offers_1m_s", time.monotonic() - started, "s")
        found = scale.read()
        tell("offers_1m, CPU of writer, gateway and postgres", sum(found[n] for n in (*scale.groups, "driver")), "s")
        tell("offers_1m_mb", memory_mib(gateway) - before, "MB")
        book = OfferBook()
        book.turn(cell.ledger.offers(round_id))
        look(book)


def look(book: OfferBook) -> None:
    """Tell what one look-up costs."""
    cars = [CarId(int(car)) for car in np.random.default_rng(2).integers(1, OFFERS, LOOKS)]
    started = time.process_time()
    for car in cars:
        for _ in book.offers_for(car):
            break
    tell("look-up of a car's offers", (time.process_time() - started) / LOOKS * 1e6, "us")


if __name__ == "__main__":
    main()
