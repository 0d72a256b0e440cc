"""What one lease costs from grant to complete, over HTTP and durable: `ledger_lifecycles.py folder|direct|pgbench`.

A lifecycle is five calls of one car: poll (granted, two signed GETs), beat, part (a signed PUT), the upload, confirm
(size, sha256 and ES256 signature checked; the part completes the shard). Commits are on disk (fsync and
synchronous_commit as PostgreSQL comes). `folder`: the store is the local folder and our gateway serves the upload.
`direct`: the upload lies in the folder without passing through the gateway, as with a store that serves its own URLs.
"""

import asyncio
import hashlib
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import numpy as np
import uvloop

from benchmarks.ledger_cell import SHARD_ROWS, BenchCell, bench_cell
from benchmarks.ledger_load import Line, line_to, request, side_by_side
from benchmarks.ledger_poll import BODY
from benchmarks.run import tell
from fleetbatch.car.identity import sign
from fleetbatch.protocol import (
    BeatReply,
    BeatRequest,
    ConfirmReply,
    Lease,
    PartReply,
    PartRequest,
    PollReply,
    part_claim,
)

LIFECYCLES = 20_000
WARM_UP = 2_000
LINES = 256
"""Cars in a call at one time: what waits for the same statement goes with it."""
PART = b"answers of a thousand rows " * 400
"""About 11 KB, as a part of a thousand rows has."""
PART_SHA = hashlib.sha256(PART).hexdigest()
_OK = 200


@dataclass(frozen=True, slots=True)
class Driver:
    """Plays the cars."""

    cell: BenchCell
    direct: bool

    async def live(self, line: Line, car: int) -> None:
        """Take a car through one lease."""
        poll = msgspec.json.decode(await self.call(line, "/v1/poll", BODY, car), type=PollReply)
        assert poll.lease is not None, car
        lease = poll.lease
        beat = BeatRequest(lease_id=lease.lease_id, fence=lease.fence, row_groups_done=0, energy_wh=1.0, busy_s=60.0)
        going = msgspec.json.decode(await self.call(line, "/v1/beat", msgspec.json.encode(beat), car), type=BeatReply)
        assert going.go_on, going.reason
        await self.deliver(line, car, lease)

    async def deliver(self, line: Line, car: int, lease: Lease) -> None:
        """Announce, upload and confirm all of a lease."""
        part = msgspec.json.encode(self.part_of(car, lease))
        place = msgspec.json.decode(await self.call(line, "/v1/part", part, car), type=PartReply)
        await self.upload(line, place)
        done = msgspec.json.decode(await self.call(line, "/v1/part/confirm", part, car), type=ConfirmReply)
        assert done.complete, car

    async def call(self, line: Line, path: str, body: bytes, car: int) -> bytes:
        """Ask one thing as a car."""
        bearer = f"content-type: application/json\r\nauthorization: Bearer {self.cell.token(car)}\r\n"
        status, answer = await line.ask(request("POST", path, body, headers=bearer))
        assert status == _OK, (path, status, answer)
        return answer

    def part_of(self, car: int, lease: Lease) -> PartRequest:
        """Return the signed announcement of all row groups."""
        unsigned = PartRequest(
            lease_id=lease.lease_id,
            fence=lease.fence,
            shard_id=lease.shard_id,
            start=0,
            stop=lease.row_groups,
            rows=SHARD_ROWS * lease.row_groups,
            bytes=len(PART),
            sha256=PART_SHA,
            energy_wh=2.0,
            energy_source="estimated",
            busy_s=60.0,
            signature="",
        )
        return msgspec.structs.replace(unsigned, signature=sign(self.cell.key(car), part_claim(unsigned)))

    async def upload(self, line: Line, place: PartReply) -> None:
        """Send the part, or lay it into the folder."""
        if self.direct:
            self.lay(place)
            return
        parts = urlsplit(place.url)
        status, body = await line.ask(request("PUT", f"{parts.path}?{parts.query}", PART))
        assert status == _OK, body

    def lay(self, place: PartReply) -> None:
        """Lay the part into the folder, as a store that serves its own URLs would."""
        path = self.cell.store / urlsplit(place.url).path.removeprefix("/store/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PART)


async def drive(driver: Driver, cars: Iterator[int]) -> None:
    """Take the cars through a lease each, LINES at a time."""

    async def one(_: int) -> None:
        line = await line_to(driver.cell.url)
        for car in cars:
            await driver.live(line, car)
        line.close()

    await side_by_side(LINES, one)


def ours(*, direct: bool) -> None:
    count = LIFECYCLES + WARM_UP
    with (
        tempfile.TemporaryDirectory(prefix="fleetbatch-bench-") as home,
        bench_cell(Path(home), cars=count, shards=count) as cell,
    ):
        numbers = np.arange(count) + 1
        cell.offer(numbers, numbers)
        time.sleep(1)
        driver, cars = Driver(cell, direct), iter(range(1, count + 1))
        uvloop.run(drive(driver, itertools.islice(cars, WARM_UP)))
        scale = cell.scale()
        scale.start()
        uvloop.run(drive(driver, cars))
        found = scale.read()
        cpu = sum(found[name] for name in scale.groups)
        tell("lifecycles_per_core_s", LIFECYCLES / cpu, "1/s")
        for name in (*scale.groups, "driver"):
            tell(f"lifecycle, CPU of {name}", found[name] / LIFECYCLES * 1e6, "us")
        tell("lifecycles held meanwhile", LIFECYCLES / found["wall"], "1/s")


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    ours(direct=sys.argv[1] == "direct")
