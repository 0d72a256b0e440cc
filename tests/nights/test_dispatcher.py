"""A dispatcher turns what cars said into offers, tells why, and survives losing its lock and its database."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from dispatcher_scene import EU, Scene, explained, open_shards
from ledger_nights import frozen_order, judge, no, part
from planner_tables import NOW, POLICY, car, cars, shard, shards
from signal_rows import PLUGGED, said
from windows_story import live, past, serve_model

from fleetbatch import layout
from fleetbatch.contracts import conform, empty
from fleetbatch.dispatcher import Dials, Dispatcher, Seen, plan, remember
from fleetbatch.ledger.messages import FencedOff
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.planner import Policy, plan_round, write_energy


@pytest.fixture
def scene(database_url: str, tmp_path: Path) -> Iterator[Scene]:
    with PostgresLedger.open(database_url) as ledger:
        yield Scene(database_url, tmp_path, ledger)


def test_parked_cars_get_offers_and_the_others_a_reason(scene: Scene) -> None:
    open_shards(scene, 11, 12, 13)
    scene.cell.enrol(1, 2, 3)
    scene.say(said(1, scene.now), said(2, scene.now), said(3, scene.now, **{PLUGGED: False}))
    round_id = scene.round()
    assert sorted(shard_id for queue in scene.offers(round_id).values() for shard_id in queue) == [11, 12, 13]
    assert set(scene.offers(round_id)) == {1, 2}
    assert round_id is not None
    assert explained(scene, 3) == ("car 0000000000000003 was not planned for: unplugged",)
    assert "earns most" in explained(scene, 11)[0]


def test_a_round_without_news_is_not_published_again(scene: Scene) -> None:
    open_shards(scene, 11)
    scene.cell.enrol(1)
    scene.say(said(1, scene.now))
    assert scene.round() is not None
    assert scene.round() is None


def test_a_car_that_enrols_in_mid_night_is_in_the_next_round(scene: Scene) -> None:
    open_shards(scene, 11, 12)
    scene.cell.enrol(1)
    scene.say(said(1, scene.now))
    scene.round()
    scene.cell.enrol(2)
    scene.say(said(2, scene.now))
    assert set(scene.offers(scene.round())) == {1, 2}


def test_a_running_shard_is_offered_to_nobody_and_its_car_gets_the_next(scene: Scene) -> None:
    open_shards(scene, 11, 12)
    scene.cell.enrol(1)
    scene.say(said(1, scene.now))
    scene.round()
    scene.cell.take(1, 11)
    scene.say(said(1, scene.now))
    round_id = scene.round()
    assert scene.offers(round_id) == {1: [12]}
    assert round_id is not None
    assert explained(scene, 11)[0].endswith("the car holds the shard's lease and keeps it")


def test_a_car_that_leaves_while_the_ledger_is_read_costs_nobody_the_round(scene: Scene) -> None:
    open_shards(scene, 11, 12)
    scene.cell.enrol(1, 2)
    scene.say(said(1, scene.now), said(2, scene.now))
    lease, ledger = scene.cell.take(1, 11), scene.cell.ledger
    cars = ledger.cars()
    scene.cell.let_go(lease)
    seen = Seen(cars=cars, open_shards=ledger.open_shards(), rates=ledger.rates())
    memory = remember(scene.dispatcher.memory, scene.store, EU, now=scene.now)
    planned = plan(seen, memory, scene.dispatcher.dials, now=scene.now)
    assert planned.round.planner == "prices"
    assert set(planned.round.assignments["shard_id"].to_pylist()) == {11, 12}


def test_a_shard_that_is_given_away_is_told_with_the_lease_that_ends(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fleetbatch")
    scene.cell.open({11: (5000, 5000)}, replace(frozen_order(), deadline_at=scene.now + timedelta(minutes=40)))
    scene.cell.enrol(1, 2)
    lease = scene.cell.take(1, 11)
    leaves_at = scene.now + timedelta(seconds=10)
    scene.say(said(1, scene.now, departure_at=leaves_at), said(2, scene.now))
    assert scene.offers(scene.round()) == {2: [11]}
    [told] = [record.__dict__["facts"] for record in caplog.records if record.message == "shard given away"]
    assert (told["car"], told["shard"], told["lease"]) == (1, 11, lease.lease_id)
    assert not scene.cell.beat(lease).go_on


def test_consent_that_is_withdrawn_ends_the_offers(scene: Scene) -> None:
    open_shards(scene, 11)
    scene.cell.enrol(1)
    scene.say(said(1, scene.now))
    scene.round()
    scene.cell.ledger.set_consent(no(1))
    assert scene.offers(scene.round()) == {}


def test_rounds_see_the_rates_that_were_measured(scene: Scene) -> None:
    open_shards(scene, *range(11, 15))
    scene.cell.enrol(1, 2, 3)
    scene.say(said(1, scene.now), said(2, scene.now, hardware_class="thor"))
    leases = [scene.cell.take(1, 11), scene.cell.take(3, 12)]
    scene.cell.ledger.turn_clock(scene.now + timedelta(seconds=60))
    for lease in leases:
        scene.cell.deliver(part(lease, 0, 2, 100))  # 100 rows in 30 busy seconds
    scene.cell.ledger.turn_clock(None)
    scene.round()
    took = {row["car_id"]: row["end_s"] - row["start_s"] for row in scene.planned() if row["seq"] == 0}
    assert took[1] > 3 * took[2]


def test_of_equal_cars_the_one_whose_owner_got_less_has_its_turn(scene: Scene) -> None:
    yesterday = frozen_order(f"{scene.now - timedelta(days=1):%Y-%m-%d}", "earlier")
    frozen = replace(yesterday, deadline_at=scene.now + timedelta(hours=1))
    scene.cell.enrol(1, 2)
    scene.cell.open({10: (100,)}, frozen)
    scene.cell.deliver(part(scene.cell.take(1, 10), 0, 1, 100))
    [task] = scene.cell.ledger.to_audit(1)
    scene.cell.ledger.record_audit(judge(task))
    stood = [{"car_id": one, "plugged_in_at": scene.now - timedelta(hours=30), "timezone": "UTC",
              "unplugged_at": scene.now - timedelta(hours=20)} for one in (1, 2)]  # fmt: skip
    live(scene.store, EU, conform(pa.Table.from_pylist(stood, empty("stays").schema), "stays"), now=scene.now)
    open_shards(scene, 11)
    scene.say(said(1, scene.now), said(2, scene.now))
    assert scene.offers(scene.round()) == {2: [11]}
    assert scene.dispatcher.memory.owed.to_pydict() == {"car_id": [1, 2], "deficit_units": [0.0, 50.0]}


def test_a_car_that_lacks_the_model_is_given_the_time_to_load_it(scene: Scene) -> None:
    open_shards(scene, 11, 12)
    model = frozen_order().model_sha256
    scene.store.write(layout.bundle(model), bytes(6_000_000))
    scene.cell.enrol(1, 2)
    link = {"link_down_bytes_per_s": 1e5}
    scene.say(said(1, scene.now, cached_models=[model], **link), said(2, scene.now, **link))
    scene.round()
    took = {row["car_id"]: row["end_s"] - row["start_s"] for row in scene.planned()}
    assert took[2] - took[1] == pytest.approx(60.0, abs=0.1)


def test_only_one_of_two_dispatchers_plans_and_the_other_says_once_that_it_waits_and_takes_over(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    open_shards(scene, 11)
    scene.cell.enrol(1)
    scene.say(said(1, scene.now))
    with PostgresLedger.open(scene.url) as other:
        second = Dispatcher(EU, other, scene.store, Dials())
        assert scene.round() is not None
        for _ in range(3):
            assert second.run_round(now=scene.now) is None
        assert [record.getMessage() for record in caplog.records].count("waiting for the planner's lock") == 1
        scene.dispatcher.let_go()
        assert second.run_round(now=scene.now) is not None
        assert scene.round() is None


def test_a_dispatcher_that_lost_its_lock_in_mid_round_publishes_nothing(scene: Scene) -> None:
    scene.cell.enrol(1)
    lock = scene.cell.ledger.lock_planner(EU)
    assert lock is not None
    scene.cell.ledger.unlock_planner(lock)
    planned = plan_round(cars(car(1)), shards(shard(11)), NOW, POLICY)
    with pytest.raises(FencedOff):
        scene.cell.ledger.write_round(lock, planned.assignments, {})
    assert scene.cell.ledger.latest_round() is None


def test_a_broken_telemetry_file_blinds_nobody(scene: Scene) -> None:
    open_shards(scene, 11)
    scene.cell.enrol(1)
    scene.say(said(1, scene.now))
    scene.store.write(layout.telemetry(EU, "bad", scene.now), b"not parquet")
    assert set(scene.offers(scene.round())) == {1}


def test_a_cells_energy_prices_weigh_in_its_rounds_and_the_grams_are_told(scene: Scene) -> None:
    open_shards(scene, 11, 12)
    scene.cell.enrol(1, 2)
    scene.say(said(1, scene.now), said(2, scene.now))
    hours = [scene.now + timedelta(hours=hour) for hour in range(3)]
    energy = {"zone": ["FR"] * 3, "from_at": hours, "price_per_kwh": [0.1] * 3, "carbon_g_per_kwh": [4e5, 40.0, 40.0]}
    write_energy(scene.store, EU, conform(pa.table(energy), "energy"))
    by_price = Policy(rates=(), power_w=())
    clean = replace(by_price, carbon_currency_per_g=80.0)
    for zone, policy, offered in (("FR", by_price, 2), ("FR", clean, 0), ("NO2", clean, 2), ("", clean, 2)):
        dispatcher = Dispatcher(EU, scene.cell.ledger, scene.store, Dials(policy=policy, energy_zone=zone))
        scene.dispatcher.let_go()
        scene.dispatcher = dispatcher
        round_id = scene.round()
        assert len(scene.offers(round_id)) == offered
        stats = scene.stats(round_id)
        assert stats["priced"] == (zone == "FR")
        assert ("carbon_g" in stats) == (zone == "FR" and offered > 0)


def test_a_broken_table_of_energy_prices_stops_no_round(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    open_shards(scene, 11)
    scene.cell.enrol(1)
    scene.say(said(1, scene.now))
    scene.store.write(layout.energy(EU), b"not a table")
    scene.dispatcher.dials = Dials(energy_zone="FR")
    assert scene.offers(scene.round()) == {1: [11]}
    assert [r.levelname for r in caplog.records if r.message == "energy skipped"] == ["ERROR"]


def test_a_dispatcher_survives_its_database_cutting_every_connection(scene: Scene) -> None:
    open_shards(scene, 11)
    scene.cell.enrol(1)
    scene.say(said(1, scene.now))
    with psycopg.connect(scene.url, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
        )
    assert scene.round() is not None


def test_the_model_of_the_day_forecasts_and_one_that_is_broken_gives_way_to_habits_and_says_why(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fleetbatch")
    open_shards(scene, 11)
    scene.cell.enrol(1)
    scene.say(said(1, scene.now))
    model = serve_model(scene.store, EU, now=scene.now)
    assert scene.forecast(scene.round())[0] == {"L2": 1}
    scene.store.write(model, scene.store.read(model)[:-100])
    assert scene.round() is None  # what is open stays open

    restarted = Dispatcher(EU, scene.cell.ledger, scene.store, Dials())
    by, reason = scene.forecast(restarted.run_round(now=scene.now))
    assert by == {"L1": 1}
    assert "not a bundle of a windows model" in reason
    [model_served, gave_way] = [r for r in caplog.records if r.message == "forecasts"]
    assert (model_served.levelname, gave_way.levelname) == ("INFO", "WARNING")
    assert vars(gave_way)["facts"]["reason"] == reason


def test_a_model_that_nobody_judged_for_a_week_steps_aside(scene: Scene) -> None:
    scene.cell.enrol(1)
    serve_model(scene.store, EU, now=scene.now)
    scene.now += timedelta(days=8)
    scene.say(said(1, scene.now))
    by, reason = scene.forecast(scene.round())
    assert by == {"L1": 1}
    assert "nobody has judged the model since" in reason


def test_a_past_that_was_read_serves_round_after_round_until_the_store_knows_more(scene: Scene) -> None:
    scene.cell.enrol(1)
    scene.say(said(1, scene.now))
    scene.round()
    read = scene.dispatcher.memory.serving
    scene.round()
    assert scene.dispatcher.memory.serving is read
    live(scene.store, EU, past(until=scene.now), now=scene.now)
    scene.round()
    assert len(scene.dispatcher.memory.serving.past.closed) > 300
