"""A car that enrols in mid-night computes soon: from its key to a lease, through the gateway and the dispatcher."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_doors import KEY, Door, TestedCar, open_door, wait_until
from ledger_nights import digest
from msgspec.structs import replace
from signal_rows import PLUGGED

from fleetbatch.car.identity import car_id_of, make_key, open_identity, public_pem
from fleetbatch.dispatcher import Dials, Dispatcher
from fleetbatch.gateway.chores import flush
from fleetbatch.ledger.messages import LeaseState
from fleetbatch.settings import Settings
from fleetbatch.steps.admitting import enrol_cars
from fleetbatch.units import LeaseId, OwnerId

PARKED = {"signals": {PLUGGED: True, "Vehicle.Speed": 0.0}}


@dataclass(slots=True, kw_only=True)
class Night:
    """A gateway and a dispatcher over one ledger and one store, under one clock."""

    door: Door
    dispatcher: Dispatcher

    def enrol(self, owner: OwnerId) -> TestedCar:
        """Do what `fleetbatch car enrol` does, then what the owner does in the portal."""
        pem = make_key()
        settings = Settings(store=self.door.store.root.as_uri(), deployment_key=KEY, cells=(self.door.gate.cell,))
        assert enrol_cars(settings, "eu-1", [(car_id_of(pem), public_pem(pem))], owner) == 1
        car = TestedCar(door=self.door, identity=open_identity(pem), owner=owner)
        for purpose in ("compute", "telemetry"):
            said: dict[str, Any] = {"car_id": car.identity.name, "purpose": purpose, "granted": True}
            said |= {"notice_version": "1", "notice_sha256": digest("notice")}
            assert self.door.post("/v1/consent", said, self.door.owner_token(owner)).status_code == httpx.codes.OK
        return car

    def round(self) -> None:
        """Let the dispatcher run a round, and the gateway hear of it."""
        self.door.clock.now += timedelta(minutes=1)
        for ledger in (self.door.ledger, self.door.gate.ledger):
            ledger.turn_clock(self.door.clock.now)
        published = self.dispatcher.run_round(now=self.door.clock.now)
        if published is not None:
            assert wait_until(lambda: self.door.gate.book.round_id == published)

    def minute_ends(self) -> None:
        """Let the gateway write what it heard."""
        self.door.run(flush(self.door.gate, name="g"))


@pytest.fixture
def night(database_url: str, tmp_path: Path) -> Iterator[Night]:
    """A night that has begun: a first car computes one of three shards."""
    with open_door(database_url, tmp_path) as door:
        night = Night(door=door, dispatcher=Dispatcher(door.gate.cell.name, door.ledger, door.store, Dials()))
        door.open({11: (3, 3), 12: (3, 3), 13: (3, 3)})
        first = night.enrol(OwnerId(1))
        assert first.poll(**PARKED).lease is None
        night.minute_ends()
        night.round()
        assert first.poll(**PARKED).lease is not None
        yield night


def test_a_car_that_enrols_in_mid_night_has_a_lease_within_two_rounds(night: Night) -> None:
    """It comes at the worst moment: what it says lies in the gateway while the first round after it is planned."""
    car = night.enrol(OwnerId(2))
    assert car.poll(**PARKED).lease is None
    night.round()
    assert car.poll(**PARKED).lease is None, "nobody but the gateway knows that it is there"
    night.minute_ends()
    night.round()
    lease = car.poll(**PARKED).lease
    assert lease is not None
    row = night.door.ledger.lease(LeaseId(lease.lease_id))
    assert row is not None
    assert (row.state, row.car_id) == (LeaseState.GRANTED, car.id)
    assert car.deliver(car.part(lease, 0, 1, rows=3)).done_through == 1, "and its work counts"


def test_a_car_that_was_written_down_before_a_round_has_its_lease_after_that_one(night: Night) -> None:
    car = night.enrol(OwnerId(2))
    assert car.poll(**PARKED).lease is None
    night.minute_ends()
    night.round()
    assert car.poll(**PARKED).lease is not None


@pytest.mark.parametrize("said_s", [0.0, 1e12])
def test_what_one_car_says_of_its_time_stops_no_offers_to_others_of_its_class(night: Night, said_s: float) -> None:
    night.door.open(dict.fromkeys(range(11, 31), (3, 3)))
    cars = [night.enrol(OwnerId(n)) for n in range(1, 6)]
    for car in cars:
        assert car.poll(**PARKED).lease is None
    night.minute_ends()
    night.round()
    lease = cars[0].poll(**PARKED).lease
    assert lease is not None
    cars[0].deliver(replace(cars[0].part(lease, 0, 1, rows=3), busy_s=said_s))
    night.door.pass_time(minutes=16)
    for car in cars[1:]:
        car.poll(**PARKED)
    night.minute_ends()
    night.round()
    round_id = night.door.ledger.latest_round()
    assert round_id is not None
    assert {car.identity.car_id for car in cars} <= set(night.door.ledger.offers(round_id).car_id.tolist())
