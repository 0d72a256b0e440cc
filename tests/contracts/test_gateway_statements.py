"""An owner's statement over HTTP: one at a time, archived nights told, and what cannot be read named."""

from pathlib import Path

import httpx
import msgspec
import pytest
from gateway_doors import Door, TestedCar, open_door
from ledger_nights import EVENING, judge, publish

from fleetbatch import layout
from fleetbatch.protocol import StatementReply
from fleetbatch.steps.archiving import archive_night


def told(door: Door, car: TestedCar) -> StatementReply:
    bearer = {"authorization": f"Bearer {door.owner_token(car.owner)}"}
    answer = door.http.get(f"{door.url}/v1/statement", params={"car": car.identity.name}, headers=bearer)
    assert answer.status_code == httpx.codes.OK, answer.text
    return msgspec.json.decode(answer.content, type=StatementReply)


def test_a_gateway_reads_one_statement_at_a_time_and_answers_cars_meanwhile(database_url: str, tmp_path: Path) -> None:
    with open_door(database_url, tmp_path) as door:
        car = door.car()
        door.run(door.gate.statements.acquire())
        bearer = {"authorization": f"Bearer {door.owner_token(car.owner)}"}
        with pytest.raises(httpx.ReadTimeout):
            door.http.get(f"{door.url}/v1/statement?car={car.identity.name}", headers=bearer, timeout=0.3)
        assert car.poll().lease is None
        door.loop.call_soon_threadsafe(door.gate.statements.release)
        assert told(door, car).car_id == car.identity.name


def test_a_gateway_tells_an_owner_of_archived_nights_too(database_url: str, tmp_path: Path) -> None:
    with open_door(database_url, tmp_path) as door:
        car = door.car()
        key = door.open({7: (3,)})
        door.offer((car.id, 7))
        car.deliver(car.part(car.take(), 0, 1, rows=3))
        [task] = door.ledger.to_audit(1)
        door.ledger.record_audit(judge(task))
        publish(door.ledger, key)
        before = told(door, car)
        archive_night(door.store, door.gate.cell.name, door.ledger, EVENING.date())
        assert door.ledger.counts(key).total == 0
        assert told(door, car) == before
        assert before.nights[0].paid_micro == before.owner_paid_micro > 0
        [file] = door.store.keys(layout.archives(door.gate.cell.name, "leases"))
        door.store.write(file, door.store.read(file)[:-1])
        lacking = told(door, car)
        assert (lacking.nights, lacking.unreadable_nights) == ([], [str(EVENING.date())])
        assert lacking.owner_paid_micro == before.owner_paid_micro, "what was paid lacks nothing"
        assert 'events_total{event="archives_unreadable"} 1' in door.http.get(f"{door.url}/metrics").text
