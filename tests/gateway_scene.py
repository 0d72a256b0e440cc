"""A gateway in the middle of a night, for tests of who may do what: cars that hold leases, their owners, a stranger."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from gateway_doors import QUICK, Door, TestedCar, open_door
from gateway_words import beat, poll, release
from ledger_nights import digest

from fleetbatch.gateway.dials import Dials
from fleetbatch.gateway.endpoints import Endpoint
from fleetbatch.ledger.messages import LeaseState
from fleetbatch.protocol import Lease, PartRequest
from fleetbatch.units import LeaseId


@dataclass(frozen=True, slots=True, kw_only=True)
class Working:
    """A car in the middle of a lease, whose first part is uploaded and not yet confirmed."""

    car: TestedCar
    lease: Lease
    part: PartRequest

    def says(self, path: str) -> Any:
        """What the rightful caller would say there."""
        consent = {"car_id": self.car.identity.name, "purpose": "compute", "granted": False}
        return {
            "/v1/poll": poll(),
            "/v1/beat": beat(self.lease),
            "/v1/part": self.part,
            "/v1/part/confirm": self.part,
            "/v1/release": release(self.lease),
            "/v1/consent": {**consent, "notice_version": "1", "notice_sha256": digest("notice")},
        }[path]


@dataclass(slots=True, kw_only=True)
class Scene:
    """A car at work, and a stranger with a car of its own."""

    door: Door
    at_work: Working
    others: list[Working]
    """Cars of other owners, each with a lease of its own."""
    stranger: TestedCar

    @property
    def car(self) -> TestedCar:
        return self.at_work.car

    @property
    def lease(self) -> Lease:
        return self.at_work.lease

    @property
    def part(self) -> PartRequest:
        return self.at_work.part

    def call(self, endpoint: Endpoint, token: str, *, about: Working | None = None) -> httpx.Response:
        """Say what the rightful caller would say, with that token."""
        about = about or self.at_work
        if endpoint.method == "POST":
            return self.door.post(endpoint.path, about.says(endpoint.path), token)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return self.door.http.get(f"{self.door.url}{endpoint.path}?car={about.car.identity.name}", headers=headers)

    def rightful(self, endpoint: Endpoint, *, car: TestedCar | None = None) -> str:
        """A good token of that kind, of the car or its owner."""
        car, expires = car or self.car, self.door.clock.now + timedelta(hours=1)
        if endpoint.caller == "owner":
            return self.door.gate.owner_tokens.token(car.owner, expires_at=expires)
        return self.door.gate.car_tokens.token(car.id, expires_at=expires)

    def state(self, about: Working) -> tuple[LeaseState, int]:
        """How far a lease got, and how it ended."""
        row = self.door.ledger.lease(LeaseId(about.lease.lease_id))
        assert row is not None
        assert row.car_id == about.car.id
        return row.state, row.done_through

    def untouched(self) -> None:
        """Nobody changed the lease, its shard, or the owner's decision."""
        assert self.state(self.at_work) == (LeaseState.GRANTED, 0)
        assert all(record.change.granted for record in self.door.ledger.consents(self.car.id))


def put_to_work(door: Door, *cars: TestedCar, shards: tuple[int, ...]) -> list[Working]:
    """Give each car a lease of a shard of 3, 3 and 2 rows, and let it upload its first part."""
    door.open(dict.fromkeys(shards, (3, 3, 2)))
    door.offer(*((car.id, shard) for car, shard in zip(cars, shards, strict=False)))
    found = []
    for car in cars:
        lease = car.take()
        part = car.part(lease, 0, 1, rows=3)
        assert car.upload(part).status_code == httpx.codes.OK
        found.append(Working(car=car, lease=lease, part=part))
    return found


@contextmanager
def open_scene(database_url: str, folder: Path, *, others: int = 0, dials: Dials = QUICK) -> Iterator[Scene]:
    """Run a gateway with a car at work on shard 7, others on shards from 9 on; shard 8 is free."""
    with open_door(database_url, folder, dials=dials) as door:
        car, stranger, *more = [door.car(number) for number in range(1, 3 + others)]
        at_work, *rest = put_to_work(door, car, *more, shards=(7, *range(9, 9 + others), 8))
        yield Scene(door=door, at_work=at_work, others=rest, stranger=stranger)
