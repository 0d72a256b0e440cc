"""After an outage every car comes back at once: whoever holds a lease is heard, and everyone else a little later."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
from gateway_doors import QUICK, Door, TestedCar, open_door, wait_until
from gateway_scene import Working, put_to_work
from gateway_words import beat, poll
from ledger_nights import enrolment, yes
from proofs import Count

from fleetbatch.ledger.messages import LeaseState
from fleetbatch.units import CarId, LeaseId

COMPUTING = range(1, 41)
IDLE = range(1001, 1241)
OFFERED = range(2001, 2041)
"""Shards that wait for some of the idle cars."""
EVERY_S = 60
UNDER_WAY = 20
STORM = replace(QUICK, in_flight_max=UNDER_WAY, poll_every=timedelta(seconds=EVERY_S))
OUTAGE = timedelta(minutes=30)
codes = httpx.codes


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Calls that are made all at once, as by so many cars."""

    door: Door
    http: httpx.AsyncClient

    async def say(self, car: CarId, path: str, body: Any) -> httpx.Response:
        token = self.door.gate.car_tokens.token(car, expires_at=self.door.clock.now + timedelta(hours=1))
        headers = {"authorization": f"Bearer {token}"}
        return await self.http.post(self.door.url + path, content=msgspec.json.encode(body), headers=headers)

    async def poll(self, cars: Iterable[int]) -> list[httpx.Response]:
        return await asyncio.gather(*(self.say(CarId(car), "/v1/poll", poll()) for car in cars))

    async def until_under_way(self, calls: int) -> None:
        metrics = self.door.gate.metrics
        assert await asyncio.to_thread(wait_until, lambda: metrics.in_flight >= calls, within_s=20)


def put_all_to_work(door: Door) -> list[Working]:
    """Let many cars compute, and others be idle of whom some have an offer."""
    door.ledger.enrol([enrolment(car) for car in IDLE])
    for car in IDLE[: len(OFFERED)]:
        door.ledger.set_consent(yes(car))
    working = put_to_work(door, *(door.car(number) for number in COMPUTING), shards=(*COMPUTING, *OFFERED))
    door.offer(*zip(IDLE, OFFERED, strict=False))
    return working


async def come_back(door: Door, working: list[Working], database_url: str) -> tuple[Counter[str], list[int]]:
    """Return how calls were answered, and how long those were told to wait who were sent away.

    The database is not yet itself again when they come: what needs it stays under way, beyond the limit.
    """
    met: Counter[str] = Counter()
    async with httpx.AsyncClient(trust_env=False, timeout=30, limits=httpx.Limits(max_connections=None)) as http:
        crowd = Crowd(door=door, http=http)
        with psycopg.connect(database_url) as owner:
            owner.execute("LOCK TABLE fleetbatch.open_leases IN EXCLUSIVE MODE")
            calls = [crowd.say(one.car.id, "/v1/beat", beat(one.lease)) for one in working]
            calls += [crowd.say(one.car.id, "/v1/part/confirm", one.part) for one in working]
            held = asyncio.gather(*calls)
            await crowd.until_under_way(len(calls))
            shed = await crowd.poll(IDLE)
        met["shed"] = sum(answer.status_code == codes.SERVICE_UNAVAILABLE for answer in shed)
        met["heard"] = sum(answer.status_code == codes.OK for answer in await held)
        waits_s = [int(answer.headers["retry-after"]) for answer in shed]
        for second in range(EVERY_S + 1):
            again = [car for car, wait_s in zip(IDLE, waits_s, strict=True) if wait_s == second]
            answers = await crowd.poll(again)
            met["heard_later"] += sum(answer.status_code == codes.OK for answer in answers)
            met["granted"] += sum(answer.json().get("lease") is not None for answer in answers)
    return met, waits_s


def test_all_cars_that_come_back_at_once_after_an_outage_keep_their_leases_and_idle_ones_wait_apart(
    database_url: str, tmp_path: Path, count: Count
) -> None:
    with open_door(database_url, tmp_path, dials=STORM) as door:
        working = put_all_to_work(door)
        door.clock.now += OUTAGE
        for ledger in (door.ledger, door.gate.ledger):
            ledger.turn_clock(door.clock.now)
        assert door.gate.ledger.sweep().expired == (), "no time of service has passed"
        met, waits_s = asyncio.run(come_back(door, working, database_url))
        expired = door.gate.ledger.sweep().expired
        lost = [one for one in working if state(door, one.car, one.lease.lease_id) != (LeaseState.GRANTED, 1)]
        count(leases=len(working), leases_lost=len(lost), **met)
        assert (lost, expired) == ([], ())
        assert met == {"shed": len(IDLE), "heard": 2 * len(working), "heard_later": len(IDLE), "granted": len(OFFERED)}
        quarters = Counter(min(wait_s * 4 // EVERY_S, 3) for wait_s in waits_s)
        assert min(quarters[quarter] for quarter in range(4)) > len(IDLE) / 10, "they do not come back in one moment"


def state(door: Door, car: TestedCar, lease: str) -> tuple[LeaseState, int]:
    row = door.ledger.lease(LeaseId(lease))
    assert row is not None
    assert row.car_id == car.id
    return row.state, row.done_through
