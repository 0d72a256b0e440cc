"""The highest rate of durable grants that a cell holds: `ledger_limit.py [--cars 5000000] [--seconds 600]`.

So many cars are registered, and each has an offer. They ask for work over LINES connections, the next car as soon as
one is answered, for SECONDS: each grant is a poll over HTTP with its token, a committed lease, and two signed URLs.
The rate is told as the least and the median of the windows of ten seconds, so that a rate that is not held shows; the
windows end when the time is over, or when every car has asked once.
"""

import argparse
import asyncio
import time
from array import array
from collections import Counter
from functools import partial
from typing import Final

import msgspec
import numpy as np
import uvloop

from benchmarks.ledger_cell import BenchCell
from benchmarks.ledger_crowd import post
from benchmarks.ledger_load import memory_mib
from benchmarks.ledger_million import Size, a_cell
from benchmarks.ledger_poll import BODY
from benchmarks.ledger_wires import Answer, Wires
from benchmarks.run import tell
from fleetbatch.protocol import PollReply

WINDOW_S: Final = 10.0
HELD_WITHIN_S: Final = 30.0
_OK: Final = 200
_reply = msgspec.json.Decoder(PollReply).decode


class Askers:
    """Cars that ask for work one after the other, so many at a time."""

    def __init__(self, cell: BenchCell, *, cars: int, until_s: float) -> None:
        """Let them ask until then."""
        self.wires = Wires()
        self.granted_s, self.took_ms = array("d"), array("d")
        self.over = asyncio.Event()
        self.seen: Counter[str] = Counter()
        self._cell, self._until_s = cell, until_s
        self._next = iter(range(1, cars + 1))
        self._started = 0.0
        self.asked_for_s = until_s

    def start(self) -> None:
        """Begin to count."""
        self._started = time.monotonic()

    def ask(self) -> None:
        """Let the next car ask, if there is time and another car."""
        now = time.monotonic() - self._started
        car = next(self._next, None) if now < self._until_s else None
        if car is not None:
            self.wires.ask(post(b"/v1/poll", self._cell.token(car).encode(), BODY), partial(self._heard, now))
            return
        self.asked_for_s = min(self.asked_for_s, now)
        if not self.wires.open:
            self.over.set()

    def _heard(self, asked_s: float, answer: Answer) -> None:
        now = time.monotonic() - self._started
        if answer.status == _OK and _reply(answer.body).lease is not None:
            self.granted_s.append(now)
            self.took_ms.append((now - asked_s) * 1000)
        else:
            self.seen[f"{answer.status}"] += 1
        self.ask()


async def ask_all(askers: Askers, url: str, lines: int) -> None:
    """Keep so many calls under way until the time is over."""
    await askers.wires.connect(url, lines)
    askers.start()
    for _ in range(lines):
        askers.ask()
    await askers.over.wait()
    askers.wires.close()


def limit(size: Size) -> None:
    """Tell the rate."""
    with a_cell(size, shards=size.cars) as cell:
        numbers = np.arange(size.cars) + 1
        cell.offer(numbers, numbers)
        time.sleep(HELD_WITHIN_S)
        askers = Askers(cell, cars=size.cars, until_s=size.seconds)
        scale = cell.scale()
        scale.start()
        uvloop.run(ask_all(askers, cell.url, size.lines))
        found = scale.read()
        report(askers, cell, found)


def report(askers: Askers, cell: BenchCell, found: dict[str, float]) -> None:
    window_s = min(WINDOW_S, askers.asked_for_s)
    counts = Counter(int(at // window_s) for at in askers.granted_s)
    rates = [counts[window] / window_s for window in range(int(askers.asked_for_s // window_s))]
    tell("limit, asked for", askers.asked_for_s, "s")
    tell("limit, grants", len(askers.granted_s), "")
    tell("limit, grants per s held in every ten seconds", min(rates), "1/s")
    tell("limit, grants per s, median of ten seconds", float(np.median(rates)), "1/s")
    tell("limit, a grant, median", float(np.median(askers.took_ms)), "ms")
    tell("limit, a grant, p99", float(np.percentile(askers.took_ms, 99)), "ms")
    for name, count in sorted(askers.seen.items()):
        tell(f"limit, other answers: {name}", count, "")
    for name in ("gateway", "postgres", "driver"):
        tell(f"limit, CPU a grant of {name}", found[name] / len(askers.granted_s) * 1e6, "us")
    tell("limit, memory of a gateway", max(memory_mib(one.pid) for one in cell.gateways), "MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cars", type=int, default=5_000_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--gateways", type=int, default=2)
    parser.add_argument("--lines", type=int, default=256)
    limit(Size(computing=0, **vars(parser.parse_args())))
