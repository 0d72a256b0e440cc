"""What a gateway writes down, how it paces its cars, and what it tells those who watch it."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import psycopg
import pyarrow.parquet as pq
import pytest
from gateway_doors import QUICK, Door, TestedCar, open_door, wait_until
from gateway_lines import with_token
from gateway_words import beat, poll
from ledger_nights import frozen_order

from fleetbatch import layout
from fleetbatch.contracts import conform
from fleetbatch.errors import RejectedError
from fleetbatch.gateway.chores import flush
from fleetbatch.units import CellName

codes = httpx.codes


# -- telemetry, pace, outage


def test_what_cars_say_is_one_file_that_keeps_its_contract(door: Door, car: TestedCar) -> None:
    lease = car.take()
    said = {
        "Vehicle.Speed": "fast",
        "Vehicle.Powertrain.TractionBattery.Charging.IsCharging": True,
        "Vehicle.Powertrain.TractionBattery.Charging.IsChargingCableConnected": 1.0,
        "Vehicle.Powertrain.TractionBattery.StateOfCharge.Current": 61.5,
        "Vehicle.Powertrain.TractionBattery.CurrentPower": True,
        "Vehicle.Cabin.Unknown": 3.0,
    }
    car.say("/v1/beat", beat(lease, signals=said))
    car.poll(departure_at="2026-11-23T07:00:00+01:00", cached_models=["a" * 64])
    car.poll(departure_at="tomorrow", willing=False, unwilling_reason="too_hot")
    door.run(flush(door.gate, name="here"))
    [key] = door.store.keys(layout.telemetry_day(CellName("eu-1"), "2026-11-22"))
    table = pq.read_table(door.store.path(key))
    assert conform(table, "signals").equals(table)
    rows = table.to_pylist()
    assert [row["car_id"] for row in rows] == [car.id] * 4
    heard = {name: rows[1][name] for name in said if name in rows[1]}
    wrong = ("Vehicle.Speed", "Vehicle.Powertrain.TractionBattery.CurrentPower")
    assert all(heard[name] is None for name in wrong)
    assert heard["Vehicle.Powertrain.TractionBattery.Charging.IsCharging"] is True
    assert heard["Vehicle.Powertrain.TractionBattery.Charging.IsChargingCableConnected"] is None
    assert heard["Vehicle.Powertrain.TractionBattery.StateOfCharge.Current"] == 61.5
    assert [row["departure_at"] is None for row in rows] == [True, True, False, True]
    assert rows[3]["unwilling_reason"] == "too_hot"


def test_two_files_of_one_minute_are_two_files(door: Door, car: TestedCar) -> None:
    for _ in range(2):
        car.poll(willing=False)
        door.run(flush(door.gate, name="here"))
        door.clock.now += timedelta(milliseconds=1)
    assert len(list(door.store.keys("cells/eu-1/telemetry/"))) == 2


def test_what_could_not_be_written_is_kept_whatever_the_reason(door: Door, car: TestedCar) -> None:
    car.poll(willing=False)
    now = door.clock.now
    in_the_way = door.store.path(layout.telemetry(CellName("eu-1"), f"{now:%S%f}-here", now))
    in_the_way.mkdir(parents=True)
    with pytest.raises(RejectedError):
        door.run(flush(door.gate, name="here"))
    in_the_way.rmdir()
    door.run(flush(door.gate, name="here"))
    assert pq.read_table(in_the_way).num_rows == 1


def test_a_stop_waits_for_the_file_that_is_being_written(door: Door, car: TestedCar) -> None:
    car.poll(willing=False)

    async def stopped_while_writing() -> None:
        writing = asyncio.create_task(flush(door.gate, name="here"))
        await asyncio.sleep(0)
        assert not len(door.gate.telemetry)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await flush(door.gate, name="here")

    door.run(stopped_while_writing())
    [key] = door.store.keys("cells/eu-1/telemetry/")
    assert pq.read_table(door.store.path(key)).num_rows == 1


def test_a_car_that_asks_too_often_is_told_so(database_url: str, tmp_path: Path) -> None:
    with open_door(database_url, tmp_path, dials=replace(QUICK, requests_per_window=3)) as door:
        car = door.car()
        answers = [car.say("/v1/poll", poll()) for _ in range(4)]
        assert [a.status_code for a in answers] == [200, 200, 200, codes.TOO_MANY_REQUESTS]
        assert int(answers[-1].headers["retry-after"]) >= 1
        door.clock.now += timedelta(seconds=10)
        assert car.say("/v1/poll", poll()).status_code == codes.OK


def test_a_gateway_that_is_behind_sheds_polls_and_hears_beats(database_url: str, tmp_path: Path) -> None:
    with open_door(database_url, tmp_path, dials=replace(QUICK, in_flight_max=0)) as door:
        car = with_token(door, door.car())
        answer = car.say("/v1/poll", poll())
        assert (answer.status_code, int(answer.headers["retry-after"])) == (codes.SERVICE_UNAVAILABLE, 1)
        lost = {"lease_id": "x", "fence": 1, "row_groups_done": 0, "energy_wh": 0.0, "busy_s": 0.0}
        assert car.say("/v1/beat", lost).status_code == codes.OK


def test_a_car_that_is_shed_while_there_are_offers_comes_back_sooner_than_an_idle_one(
    database_url: str, tmp_path: Path
) -> None:
    hour = timedelta(hours=1)
    with open_door(database_url, tmp_path, dials=replace(QUICK, in_flight_max=0, poll_every=hour)) as door:
        car = with_token(door, door.car())
        door.gate.chance = lambda: 0.25
        idle_s = int(car.say("/v1/poll", poll()).headers["retry-after"])
        door.open({8: (3,)})
        door.offer((car.id, 8))
        assert (idle_s, int(car.say("/v1/poll", poll()).headers["retry-after"])) == (3240, 900)


def test_without_its_database_a_gateway_says_when_to_come_back_and_recovers_alone(
    door: Door, car: TestedCar, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    lease = car.take()
    idle = door.car(2)
    assert idle.poll().lease is None
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    server = database_url.replace(str(name), "postgres")
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        for later_s in (0, 0, 1):
            door.clock.now += timedelta(seconds=later_s)
            answer = car.say("/v1/beat", beat(lease))
            assert (answer.status_code, "retry-after" in answer.headers) == (codes.SERVICE_UNAVAILABLE, True)
        told = [record.__dict__["facts"]["calls"] for record in caplog.records if record.message == "away"]
        assert told == [1, 3], "a line a second, however many are sent away"
        assert idle.poll().lease is None  # an empty poll needs no database
        assert wait_until(lambda: door.http.get(f"{door.url}/healthz").json()["ledger"] == "away")
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
    assert wait_until(lambda: car.say("/v1/beat", beat(lease)).status_code == codes.OK)
    assert wait_until(lambda: door.http.get(f"{door.url}/healthz").json()["ledger"] == "up")
    assert car.deliver(car.part(lease, 0, 1, rows=3)).done_through == 1
    door.open({8: (3,)}, frozen_order(name="more"))
    door.offer((idle.id, 8))
    assert idle.take().shard_id == f"{8:016x}"


def test_the_metrics_count_what_happened(door: Door, car: TestedCar) -> None:
    car.take()
    text = door.http.get(f"{door.url}/metrics").text
    assert 'fleetbatch_gateway_answers_total{endpoint="/v1/poll",status="200"} 1' in text
    assert 'fleetbatch_gateway_events_total{event="granted"} 1' in text
    assert "fleetbatch_gateway_offers_held 1" in text
    assert 'fleetbatch_gateway_batch_seconds_bucket{batch="grants",le="+Inf"} 1' in text
    assert 'fleetbatch_gateway_batch_seconds_count{batch="grants"} 1' in text
    assert 'fleetbatch_gateway_batch_seconds_count{batch="announcements"} 0' in text
    assert "fleetbatch_gateway_loop_late_seconds_count " in text


def test_the_metrics_tell_of_the_whole_cell_and_ask_the_ledger_once_in_ten_seconds(door: Door, car: TestedCar) -> None:
    def scrape() -> str:
        return door.http.get(f"{door.url}/metrics").text

    before = scrape()
    assert 'fleetbatch_shards{state="ready"} 1' in before
    assert 'fleetbatch_cars{state="computing"} 0' in before
    car.take()
    assert 'fleetbatch_shards{state="ready"} 1' in scrape()
    door.clock.now += timedelta(seconds=10)
    after = scrape()
    assert 'fleetbatch_shards{state="out"} 1' in after
    assert 'fleetbatch_cars{state="computing"} 1' in after
    assert 'fleetbatch_open_leases{age_s="60"} 1' in after
    assert "fleetbatch_round_offers 1" in after
