"""A whole cell at work, and all its cars coming back at once: `ledger_million.py work|storm [options]`.

`work`: CARS registered cars, COMPUTING of them under leases of 15 minutes, GATEWAYS processes that share a port.
Every lease beats once a minute at first; leases end at COMPUTING / 900 s: the part is announced, uploaded (into the
folder, as with a store that serves its own URLs) and confirmed with its ES256 signature, then the car asks for its next
lease and is granted it; idle cars poll every IDLE_S at first. Cars keep the pace that the gateways tell them with every
answer; the first minute, in which they learn of it, is not counted. Calls come when they are due, whether or not the
ones before were answered, and a call's time counts from when it was due.

`storm`: after a minute of that work the cell's gateways are stopped, every instant in the ledger is moved back by 30
minutes (an outage, in no time), and the gateways start again. All cars come back within 60 s: those that computed have
finished, keep their part and deliver it, then ask for work; the others poll. A lease is lost when the ledger has
taken it from its car; a part that nobody took within the five minutes is late, and told apart. `storm_goodput` is the
parts acknowledged in the best of the five minutes after, by those of the minute before: it counts what was computed
during the outage. What holds on is told beside it: the share of cars that compute again.

PostgreSQL runs with the settings of a full cell (infra/README.md); each commit is on disk, as it comes. The store lies
in memory, where there is such a folder: a cell's objects are elsewhere, and do not wait for its database's disk.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import numpy as np
import psycopg
import uvloop

from benchmarks.ledger_cell import BenchCell, Serving, bench_cell, restarted_gateways
from benchmarks.ledger_crowd import BEAT_S, Crowd
from benchmarks.ledger_load import memory_mib
from benchmarks.run import tell
from fleetbatch.ledger.messages import Granted, GrantRequest
from fleetbatch.units import CarId, ShardId

LEASE: Final = timedelta(minutes=15)
IDLE_S: Final = 300.0
"""The pace that a gateway of so many cars sets (`poll_every`), so that most of its work is work."""
GRANT_BATCH: Final = 1000
OUTAGE: Final = "30 minutes"
WARM_UP_S: Final = 60.0
BEFORE_S: Final = 60.0
RECONNECT_S: Final = 60.0
WATCHED_MINUTES: Final = 5
TURNS: Final = 3
"""Shards that a computing car may hold after each other."""
FULL: Final = 0.9
_DIALS: Final = (
    *("--lease-s", str(LEASE.total_seconds())),
    *("--beat-every-s", str(BEAT_S)),
    *("--poll-every-s", str(IDLE_S)),
)
_DATABASE: Final = {
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "track_wal_io_timing": "on",
}
_MEMORY: Final = Path("/dev/shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the cell is, how it is served, and how long it is watched."""

    cars: int
    computing: int
    seconds: float
    gateways: int
    lines: int

    @property
    def leases_per_s(self) -> float:
        """Return how many leases end and begin in a second."""
        return self.computing / LEASE.total_seconds()

    def ending_within(self, seconds: float) -> range:
        """Return the cars whose first lease ends by then, in that order."""
        return range(1, 1 + min(self.computing, int(self.leases_per_s * seconds)))


def fill(cell: BenchCell, size: Size) -> None:
    """Give car n the shard n, through the ledger's own statement, as fast as one caller can; tell how fast."""
    scale = cell.scale()
    scale.start()
    numbers = range(1, size.computing + 1)
    for first in numbers[::GRANT_BATCH]:
        batch = [
            GrantRequest(
                car_id=CarId(n),
                shard_id=ShardId(n),
                lease_for=LEASE,
                hardware_class="standard",
                provider="CPUExecutionProvider",
                threads=4,
                power_w=65.0,
                runner_version="0.1.0",
            )
            for n in numbers[first - 1 : first - 1 + GRANT_BATCH]
        ]
        assert all(isinstance(answer, Granted) for answer in cell.ledger.grant(batch))
    found = scale.read()
    tell("grants_per_s", size.computing / found["wall"], "1/s")
    tell("grants, per CPU s", size.computing / (found["postgres"] + found["driver"]), "1/s")


@contextmanager
def a_cell(size: Size, *, shards: int) -> Iterator[BenchCell]:
    with (
        tempfile.TemporaryDirectory(prefix="fleetbatch-bench-") as home,
        tempfile.TemporaryDirectory(prefix="fleetbatch-bench-", dir=_MEMORY if _MEMORY.is_dir() else None) as store,
        bench_cell(
            Path(home),
            cars=size.cars,
            shards=shards,
            serving=Serving(gateways=size.gateways, dials=_DIALS, database=_DATABASE, store=Path(store)),
        ) as cell,
    ):
        yield cell


@contextmanager
def full_cell(size: Size, counted_from_s: float = 0.0) -> Iterator[tuple[BenchCell, Crowd]]:
    """Give a cell with all its leases out, and an offer for each of their cars."""
    with a_cell(size, shards=TURNS * size.computing) as cell:
        fill(cell, size)
        crowd = Crowd(cell, computing=size.computing, counted_from_s=counted_from_s)
        offer_next(cell, crowd, size)
        yield cell, crowd


def offer_next(cell: BenchCell, crowd: Crowd, size: Size) -> None:
    """Write a round in which each computing car has the shard after its own, and wait until it is held."""
    cars = range(1, size.computing + 1)
    cell.offer(np.array(cars), np.array([crowd.shard_of(car) + size.computing for car in cars]))
    time.sleep(6)


def plan_work(crowd: Crowd, size: Size, seconds: float) -> None:
    """Let the cars act for so long as if they had always done so."""
    chance = np.random.default_rng(1)
    for number, car in enumerate(size.ending_within(seconds)):
        crowd.plan(crowd.deliver, car, number / size.leases_per_s)
    for car, at_s in enumerate(chance.uniform(0, BEAT_S, size.computing).tolist(), start=1):
        crowd.plan(crowd.beat, car, at_s)
    for car, at_s in enumerate(chance.uniform(0, IDLE_S, size.cars - size.computing).tolist(), size.computing + 1):
        if at_s < seconds:
            crowd.plan(crowd.poll, car, at_s)


async def act(crowd: Crowd, size: Size, url: str, seconds: float) -> None:
    await crowd.wires.connect(url, size.lines)
    await crowd.run(seconds)


def work(size: Size) -> None:
    """Tell how fast grants are answered while the cell is at work."""
    until_s = WARM_UP_S + size.seconds
    with full_cell(size, WARM_UP_S) as (cell, crowd):
        crowd.equip(size.cars, size.ending_within(until_s))
        plan_work(crowd, size, until_s)
        scale = cell.scale()
        before = flushes(cell)
        crowd.plan(lambda *_: scale.start(), 0, WARM_UP_S)
        uvloop.run(act(crowd, size, cell.url, until_s))
        count, waited_ms = (after - then for after, then in zip(flushes(cell), before, strict=True))
        tell("flushes of the log, per s", count / until_s, "1/s")
        tell("a flush of the log", waited_ms / max(1, count), "ms")
        report(cell, crowd, scale.read(), size.seconds)


def flushes(cell: BenchCell) -> tuple[float, float]:
    """Return how often PostgreSQL flushed its log, and how many milliseconds it waited for that, since its start."""
    with psycopg.connect(cell.ledger_url) as owner:
        found = owner.execute("SELECT sum(fsyncs), sum(fsync_time) FROM pg_stat_io WHERE object = 'wal'").fetchone()
    assert found is not None
    return float(found[0]), float(found[1])


def report(cell: BenchCell, crowd: Crowd, found: dict[str, float], seconds: float) -> None:
    for name, times in crowd.took_ms.items():
        metric = "grant_p99_ms" if name == "grant" else f"{name}, p99"
        tell(metric, float(np.percentile(times, 99)), "ms")
        tell(f"{name}, median", float(np.median(times)), "ms")
        tell(f"{name}s, per s", len(times) / seconds, "1/s")
    for name, count in sorted(crowd.seen.items()):
        tell(f"other answers: {name}", count, "")
    tell("unanswered", crowd.wires.open, "")
    tell("connections lost", crowd.wires.lost, "")
    for name in ("gateway", "postgres", "driver"):
        tell(f"cores of {name}", found[name] / found["wall"], "cores")
    tell("driver late, p99", float(np.percentile(crowd.late_s, 99)) * 1000, "ms")
    tell("memory of a gateway", max(memory_mib(one.pid) for one in cell.gateways), "MiB")


def storm(size: Size) -> None:
    """Tell what is lost and how soon the cell is back after an outage."""
    with full_cell(size) as (cell, working):
        working.equip(size.cars, size.ending_within(BEFORE_S))
        plan_work(working, size, BEFORE_S)
        uvloop.run(act(working, size, cell.url, BEFORE_S))
        before = len(working.delivered_s)
        outage(cell)
        crowd = working.after_outage()
        offer_next(cell, crowd, size)
        crowd.equip(size.cars, range(1, size.computing + 1))
        plan_return(crowd, size)
        with restarted_gateways(cell, _DIALS):
            scale = cell.scale()
            scale.start()
            uvloop.run(act(crowd, size, cell.url, WATCHED_MINUTES * 60.0))
            found = scale.read()
            report_storm(crowd, size, before)
            tell("storm, leases lost", lost_leases(cell), "")
            report(cell, crowd, found, WATCHED_MINUTES * 60.0)


def outage(cell: BenchCell) -> None:
    """Stop the gateways and let 30 minutes pass, by the ledger's books."""
    for gateway in cell.gateways:
        gateway.terminate()
    for gateway in cell.gateways:
        gateway.wait(60)
    with psycopg.connect(cell.ledger_url) as owner:
        owner.execute(
            f"UPDATE fleetbatch.open_leases SET granted_at = granted_at - interval '{OUTAGE}',"
            f" expires_at = expires_at - interval '{OUTAGE}', beat_at = beat_at - interval '{OUTAGE}'"
        )
        owner.execute(
            f"UPDATE fleetbatch.service SET served_at = served_at - interval '{OUTAGE}',"
            f" resumed_at = resumed_at - interval '{OUTAGE}'"
        )


def lost_leases(cell: BenchCell) -> int:
    """Return how many leases ended otherwise than with all their work delivered."""
    with psycopg.connect(cell.ledger_url) as owner:
        found = owner.execute("SELECT count(*) FROM fleetbatch.leases WHERE state <> 'done'").fetchone()
    assert found is not None
    return int(found[0])


def plan_return(crowd: Crowd, size: Size) -> None:
    """Let every car come at a random instant of a minute: with its part, or for work."""
    at_s = np.random.default_rng(2).uniform(0, RECONNECT_S, size.cars).tolist()
    for car, at in enumerate(at_s, start=1):
        crowd.plan(crowd.announce if car <= size.computing else crowd.poll, car, at)


def report_storm(crowd: Crowd, size: Size, before: int) -> None:
    minutes = Counter(int(at // 60) for at in crowd.delivered_s)
    tell("storm, parts in the minute before", before, "1/min")
    for minute in range(WATCHED_MINUTES):
        tell(f"storm, parts in minute {minute + 1}", minutes[minute], "1/min")
    tell("storm_goodput", max(minutes[m] for m in range(WATCHED_MINUTES)) / before, "of the minute before")
    tell("storm, parts not yet delivered", size.computing - len(crowd.delivered_s), "")
    tell("storm, until the last part was delivered", max(crowd.delivered_s), "s")
    for minute in range(WATCHED_MINUTES):
        computing = sum(at < (minute + 1) * 60 for at in crowd.granted_s) / size.computing
        tell(f"storm, computing again after minute {minute + 1}", computing, "of those before")
    tell("storm, until 90 % computed again", back_at_s(crowd.granted_s, FULL * size.computing), "s")


def back_at_s(granted_s: Sequence[float], wanted: float) -> float:
    """Return when so many cars had a lease again; infinity when they had not."""
    return sorted(granted_s)[int(wanted) - 1] if len(granted_s) >= wanted else float("inf")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("work", "storm"))
    parser.add_argument("--cars", type=int, default=1_000_000)
    parser.add_argument("--computing", type=int, default=400_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--gateways", type=int, default=2)
    parser.add_argument("--lines", type=int, default=1000, help="connections; gateways shed nothing of 2,000 each")
    told = vars(parser.parse_args())
    {"work": work, "storm": storm}[told.pop("what")](Size(**told))
