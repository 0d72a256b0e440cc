"""A whole cell at work, and all its cars coming back at once: `ledger_million.py work|storm [options]`.

`work`: CARS registered cars, COMPUTING of them under leases of 15 minutes. One gateway process. Every lease beats once
a minute; leases end and begin at COMPUTING / 900 s; the last part of each is announced, uploaded (into the folder, as
with a store that serves its own URLs) and confirmed with its ES256 signature; idle cars poll every IDLE_S. Calls come
when they are due, whether or not the ones before were answered, and a call's time counts from when it was due.

`storm`: the cell's gateway is stopped, every instant in the ledger is moved back by 30 minutes (an outage, in no time),
and the gateway starts again. All cars come back within 60 s: those that computed have finished, keep their part and
deliver it; then all poll. A lease is lost when its part is refused.
"""

import argparse
import asyncio
import itertools
import random
import tempfile
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import psycopg
import uvloop

from benchmarks.ledger_cell import BenchCell, bench_cell, start_gateway
from benchmarks.ledger_lifecycles import Driver
from benchmarks.ledger_load import Line, line_to
from benchmarks.ledger_poll import BODY
from benchmarks.run import tell
from fleetbatch.ledger.messages import Granted, GrantRequest
from fleetbatch.protocol import BeatRequest, Lease, PollReply
from fleetbatch.units import CarId, ShardId, shard_hex

LEASE: Final = timedelta(minutes=15)
BEAT_S: Final = 60.0
IDLE_S: Final = 300.0
"""The pace that a gateway of so many cars sets (`poll_every`), so that most of its work is work."""
LINES: Final = 200
GRANT_BATCH: Final = 1000
OUTAGE: Final = "30 minutes"
RECONNECT_S: Final = 60.0
BACK_WITHIN_S: Final = 300.0
_OK: Final = 200
_DIALS: Final = (
    *("--lease-s", str(LEASE.total_seconds())),
    *("--beat-every-s", str(BEAT_S)),
    *("--poll-every-s", str(IDLE_S)),
)


@dataclass(frozen=True, slots=True)
class Size:
    """How large the cell is and how long it is watched."""

    cars: int
    computing: int
    seconds: float

    @property
    def leases_per_s(self) -> float:
        """Return how many leases end and begin in a second."""
        return self.computing / LEASE.total_seconds()


@dataclass(slots=True)
class Cars:
    """The cars: who computes what, and who is idle; the car of an idle poll has no offer, a fresh car has one."""

    driver: Driver
    size: Size
    latency_ms: dict[str, list[float]] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    delivered_at: list[float] = field(default_factory=list)

    def lease_of(self, car: int) -> Lease:
        """Return the lease that a car was given when the cell was filled: shard and fence follow from its number."""
        night = str(self.driver.cell.order_key.night).replace("-", "")
        blank = dict.fromkeys(("order_key", "workload", "model_sha256", "model_url", "shard_url", "shard_sha256"), "")
        return msgspec.convert(
            {
                **blank,
                "lease_id": f"{night}-{shard_hex(ShardId(car))}-1",
                "fence": 1,
                "shard_id": shard_hex(ShardId(car)),
                "shard_key": "",
                "options": {},
                **dict.fromkeys(("model_bytes", "shard_bytes", "start"), 0),
                "row_groups": 1,
                **dict.fromkeys(("expires_in_s", "beat_every_s", "part_every_s"), 60.0),
            },
            Lease,
        )

    async def beat(self, line: Line, car: int) -> None:
        """Say that a car goes on; a lease that has ended meanwhile is no fault."""
        lease = self.lease_of(car)
        beat = BeatRequest(lease_id=lease.lease_id, fence=1, row_groups_done=0, energy_wh=1.0, busy_s=60.0)
        await self.driver.call(line, "/v1/beat", msgspec.json.encode(beat), car)

    async def poll(self, line: Line, car: int) -> None:
        """Ask for work."""
        answer = msgspec.json.decode(await self.driver.call(line, "/v1/poll", BODY, car), type=PollReply)
        self.done["granted" if answer.lease else "empty"] += 1

    async def deliver(self, line: Line, car: int) -> None:
        """Bring a lease to its end."""
        await self.driver.deliver(line, car, self.lease_of(car))
        self.done["delivered"] += 1
        self.delivered_at.append(time.monotonic())


Call = tuple[float, str, Callable[[Line, int], Awaitable[None]], int]


def every(rate: float, name: str, call: Callable[[Line, int], Awaitable[None]], cars: Iterator[int]) -> Iterator[Call]:
    """Give calls at a rate, evenly, from zero seconds on."""
    for number in itertools.count():
        yield number / rate, name, call, next(cars)


async def play(cars: Cars, calls: Iterator[Call]) -> None:
    """Make calls when they are due, over LINES connections; `calls` come in the order of their times and end."""
    url, due_calls, started = cars.driver.cell.urls[0], deque[Call](), time.monotonic()
    over, ready = asyncio.Event(), asyncio.Semaphore(0)

    async def lane() -> None:
        line = await line_to(url)
        while True:
            await ready.acquire()
            if not due_calls:
                break
            due, name, call, car = due_calls.popleft()
            await call(line, car)
            cars.latency_ms.setdefault(name, []).append((time.monotonic() - started - due) * 1000)
        line.close()

    lanes = [asyncio.create_task(lane()) for _ in range(LINES)]
    for one in calls:
        wait = one[0] - (time.monotonic() - started)
        if wait > 0:
            await asyncio.sleep(wait)
        due_calls.append(one)
        ready.release()
    over.set()
    for _ in lanes:
        ready.release()
    await asyncio.gather(*lanes)


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
def full_cell(size: Size) -> Iterator[Cars]:
    """Give a cell with all its leases out and offers for cars that are idle."""
    fresh = size.cars - size.computing
    with (
        tempfile.TemporaryDirectory(prefix="fleetbatch-bench-") as home,
        bench_cell(Path(home), cars=size.cars, shards=size.cars, dials=_DIALS) as cell,
    ):
        fill(cell, size)
        offered = np.arange(fresh) + size.computing + 1
        cell.offer(offered, offered)
        time.sleep(6)
        yield Cars(Driver(cell, direct=True), size)


def work(size: Size) -> None:
    """Tell how fast grants are answered while the cell is at work."""
    with full_cell(size) as cars:
        ending = iter(range(1, size.computing + 1))
        beating = itertools.cycle(range(size.computing, 0, -1))  # from the other end: those that end later
        fresh = iter(range(size.computing + 1, size.cars + 1))
        idle = itertools.cycle(range(1, size.cars))
        rates = {
            "beat": (size.computing / BEAT_S, cars.beat, beating),
            "complete": (size.leases_per_s, cars.deliver, ending),
            "grant": (size.leases_per_s, cars.poll, fresh),
            "idle poll": ((size.cars - size.computing) / IDLE_S, poll_without_offer(cars), idle),
        }
        merged = heap_merge([every(rate, name, call, who) for name, (rate, call, who) in rates.items()])
        calls = itertools.takewhile(lambda call: call[0] < size.seconds, merged)
        scale = cars.driver.cell.scale()
        scale.start()
        uvloop.run(play(cars, calls))
        found = scale.read()
        report_work(cars, found)


def report_work(cars: Cars, found: dict[str, float]) -> None:
    for name, times in cars.latency_ms.items():
        metric = "grant_p99_ms" if name == "grant" else f"{name}, p99"
        tell(metric, float(np.percentile(times, 99)), "ms")
        tell(f"{name}s, per s", len(times) / found["wall"], "1/s")
    for name in ("gateway", "postgres", "driver"):
        tell(f"cores of {name}", found[name] / found["wall"], "cores")


def poll_without_offer(cars: Cars) -> Callable[[Line, int], Awaitable[None]]:
    """Return a poll of cars that the round has nothing for."""
    other = 1 << 40

    async def poll(line: Line, car: int) -> None:
        await cars.poll(line, other + car)

    return poll


def heap_merge(flows: list[Iterator[Call]]) -> Iterator[Call]:
    """Give the calls of all flows by time."""
    import heapq

    return heapq.merge(*flows, key=lambda call: call[0])


def storm(size: Size) -> None:
    """Tell what is lost and how soon the cell is back after an outage."""
    with full_cell(size) as cars:
        before = size.leases_per_s * 60
        cell = cars.driver.cell
        cell.gateways[0].terminate()
        cell.gateways[0].wait(60)
        with psycopg.connect(cell.ledger_url) as owner:
            owner.execute(
                f"UPDATE fleetbatch.open_leases SET granted_at = granted_at - interval '{OUTAGE}',"
                f" expires_at = expires_at - interval '{OUTAGE}', beat_at = beat_at - interval '{OUTAGE}'"
            )
            owner.execute(
                f"UPDATE fleetbatch.service SET served_at = served_at - interval '{OUTAGE}',"
                f" resumed_at = resumed_at - interval '{OUTAGE}'"
            )
        with start_gateway(cell, _DIALS):
            started = time.monotonic()
            scale = cell.scale()
            scale.start()
            uvloop.run(play(cars, come_back(cars, size)))
            found = scale.read()
        lost = size.computing - cars.done["delivered"]
        minutes = Counter(int((at - started) // 60) for at in cars.delivered_at)
        goodput = max(minutes[minute] for minute in range(int(BACK_WITHIN_S // 60))) / before
        tell("storm_goodput", goodput, "of the rate before")
        tell("storm, leases lost", lost, "")
        tell("storm, until all had delivered", cars.delivered_at[-1] - started, "s")
        tell("storm, CPU of gateway and postgres", found["gateway"] + found["postgres"], "s")


def come_back(cars: Cars, size: Size) -> Iterator[Call]:
    """Give every car's first call, at random instants of a minute."""
    chance = random.Random(1)
    calls: list[Call] = [
        (chance.uniform(0, RECONNECT_S), "deliver", cars.deliver, car) for car in range(1, size.computing + 1)
    ]
    idle = poll_without_offer(cars)
    calls += [(chance.uniform(0, RECONNECT_S), "poll", idle, car) for car in range(size.computing + 1, size.cars + 1)]
    yield from sorted(calls, key=lambda call: call[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("work", "storm"))
    parser.add_argument("--cars", type=int, default=1_000_000)
    parser.add_argument("--computing", type=int, default=400_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    told = parser.parse_args()
    wanted = Size(cars=told.cars, computing=told.computing, seconds=told.seconds)
    work(wanted) if told.what == "work" else storm(wanted)
