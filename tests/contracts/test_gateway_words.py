"""What a gateway does with what a car says: which versions it understands, what it keeps, and what it believes once."""

import logging
from datetime import timedelta
from typing import Any

import httpx
import psycopg
import pyarrow.parquet as pq
import pytest
from gateway_doors import Door, TestedCar
from gateway_words import beat, poll, release
from ledger_nights import no

from fleetbatch import layout
from fleetbatch.car.identity import token_assertion
from fleetbatch.gateway.addresses import NOWHERE
from fleetbatch.gateway.chores import flush, take_voided
from fleetbatch.gateway.driving import driven
from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.tokens import token
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.protocol import PROTOCOL, SERVED
from fleetbatch.units import CellName

codes = httpx.codes
CHARGING = "Vehicle.Powertrain.TractionBattery.Charging.IsCharging"
PLANS = {"departure_at": "2026-11-23T07:00:00+01:00", "next_trip_at": "2026-11-23T08:00:00+01:00"}


@pytest.fixture
def car(door: Door) -> TestedCar:
    """A car that is offered two shards, in that order."""
    car = door.car(1)
    door.open({7: (3, 3, 2), 8: (3,)})
    door.offer((car.id, 7), (car.id, 8))
    return car


def heard(door: Door) -> list[dict[str, Any]]:
    """Every row of telemetry so far."""
    door.clock.now += timedelta(milliseconds=1)  # a file of its own
    door.run(flush(door.gate, name="here"))
    keys = sorted(door.store.keys(layout.telemetry_day(CellName("eu-1"), "2026-11-22")))
    return [row for key in keys for row in pq.read_table(door.store.path(key)).to_pylist()]


# -- versions


def as_said_in_version(version: int) -> dict[str, Any]:
    """A poll as a car of that version sends it, word for word: version 1 knows no trips and no list of workloads."""
    if version == 1:
        return poll(protocol=1)
    said = poll(protocol=version, **PLANS)
    said["hardware"]["workloads"] = ["video"]
    return said


@pytest.mark.parametrize("version", sorted(SERVED))
def test_a_car_of_this_version_and_of_the_one_before_lives_a_whole_lease(car: TestedCar, version: int) -> None:
    answer = car.say("/v1/poll", as_said_in_version(version))
    assert answer.status_code == codes.OK, answer.text
    lease = car.take()  # the same lease again
    assert answer.json()["lease"]["lease_id"] == lease.lease_id
    assert car.say("/v1/beat", beat(lease)).json()["go_on"]
    for start, rows in enumerate((3, 3, 2)):
        told = car.deliver(car.part(lease, start, start + 1, rows=rows))
    assert told.complete


@pytest.mark.parametrize("version", [min(SERVED) - 1, PROTOCOL + 1])
def test_a_car_of_any_other_version_is_told_which_are_served(car: TestedCar, version: int) -> None:
    answer = car.say("/v1/poll", poll(protocol=version))
    assert answer.status_code == codes.UNPROCESSABLE_ENTITY
    assert answer.json()["type"] == "urn:fleetbatch:protocol-not-served"
    assert answer.json()["detail"] == f"this gateway speaks protocol 1 and 2, not {version}"


# -- what is kept


def test_nothing_of_a_vehicle_is_kept_without_its_owners_consent(door: Door, car: TestedCar) -> None:
    door.ledger.set_consent(no(car.id, "telemetry"))
    door.run(take_voided(door.gate))  # or the token that the car buys now might be void in a moment
    said = {CHARGING: True}
    lease = car.say("/v1/poll", poll(signals=said, **PLANS)).json()["lease"]
    assert lease is not None, "work does not hang on telemetry"
    car.say("/v1/beat", beat(car.take(), signals=said))
    rows = heard(door)
    assert len(rows) >= 2
    assert {row["car_id"] for row in rows} == {car.id}
    assert {row["hardware_class"] for row in rows} == {"orin"}
    for name in (*(name for name in rows[0] if name.startswith("Vehicle.")), *PLANS):
        assert {row[name] for row in rows} == {None}, name


@pytest.mark.parametrize("consents", [True, False])
def test_what_a_car_tells_of_its_vehicle_in_words_is_kept_with_its_owners_consent_only(
    door: Door, car: TestedCar, caplog: pytest.LogCaptureFixture, *, consents: bool
) -> None:
    """As the runner says it: how fast it drives, how full its battery is; what a refusal says is about the work."""
    caplog.set_level(logging.INFO)
    if not consents:
        door.ledger.set_consent(no(car.id, "telemetry"))
        door.run(take_voided(door.gate))
    leases = [car.take()]
    car.say("/v1/release", release(leases[0], "driving") | {"detail": "43.2 km/h"})
    leases.append(car.take())
    car.say("/v1/release", release(leases[1], "refused") | {"detail": "no such model"})
    car.poll(willing=False, unwilling_reason="battery_low: charge 34.5 %, wanted 40.0 %")
    with psycopg.connect(door.gate.cell.ledger_url) as ledger:
        details = ledger.execute("SELECT detail FROM fleetbatch.leases ORDER BY granted_at, detail").fetchall()
    assert sorted(details) == [("43.2 km/h" if consents else "",), ("no such model",)]
    reasons = {row["unwilling_reason"] for row in heard(door)} - {None}
    assert reasons == ({"battery_low: charge 34.5 %, wanted 40.0 %"} if consents else set())
    logged = [str(vars(record)) for record in caplog.records if record.message == "released"]
    assert ["43.2 km/h" in line for line in logged] == [consents, False]


def test_a_withdrawal_of_telemetry_silences_a_car_that_holds_a_token(door: Door, car: TestedCar) -> None:
    car.poll(signals={CHARGING: True})
    assert [row[CHARGING] for row in heard(door)] == [True]
    door.ledger.set_consent(no(car.id, "telemetry"))
    door.run(take_voided(door.gate))
    assert car.say("/v1/poll", poll(signals={CHARGING: True})).status_code == codes.UNAUTHORIZED
    car.token = ""
    car.poll(signals={CHARGING: True})
    assert [row[CHARGING] for row in heard(door)] == [True, None]


# -- what is believed once


def test_a_shard_that_a_car_refused_is_not_offered_to_it_again_in_this_round(door: Door, car: TestedCar) -> None:
    lease = car.take()
    assert car.release(lease, "refused").status_code == codes.OK
    assert car.take().shard_id != lease.shard_id
    other = door.car(2)
    door.offer((other.id, 7))
    assert other.take().shard_id == lease.shard_id


@pytest.mark.parametrize("number", [5e-324, 2.2e-311, 1e-40, 1e12])
def test_numbers_at_the_ends_of_what_a_message_may_say_are_kept(car: TestedCar, number: float) -> None:
    said = poll()
    said["hardware"]["power_w"] = number
    answer = car.say("/v1/poll", said)
    assert answer.status_code == codes.OK, answer.text
    lease = car.take()
    assert car.say("/v1/beat", beat(lease, energy_wh=number, busy_s=number)).status_code == codes.OK
    gone = release(lease) | {"energy_wh": number, "busy_s": number}
    assert car.say("/v1/release", gone).status_code == codes.OK


def test_a_car_that_left_may_come_back_to_its_shard(car: TestedCar) -> None:
    lease = car.take()
    assert car.release(lease, "unplugged").status_code == codes.OK
    assert car.take().shard_id == lease.shard_id


def test_an_assertion_that_bought_a_token_buys_none_at_another_gateway(door: Door, car: TestedCar) -> None:
    """A second gateway process of the cell shares nothing with the first but the ledger."""
    assertion = token_assertion(car.identity, audience=f"{door.url}/v1/token", now=door.clock.now)
    assert car.buy_token(assertion).status_code == codes.OK
    form = str(httpx.QueryParams(car.form(assertion))).encode()
    with PostgresLedger.open(door.gate.cell.gateway_ledger_url) as ledger:
        ledger.turn_clock(door.clock.now)
        other = Gate(
            cell=door.gate.cell,
            deployment_key=door.gate.deployment_key,
            store=door.store,
            ledger=ledger,
            executor=door.gate.executor,
            clock=lambda: door.clock.now,
        )
        with pytest.raises(Exception, match="used before"):
            door.run(driven(token(other, NOWHERE, form)))
