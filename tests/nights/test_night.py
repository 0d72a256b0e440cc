"""Stories of a night under a clock turned by hand."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ledger_nights import no
from night import Night, night_in

from fleetbatch.local.postgres import Postgres, restart_postgres
from fleetbatch.nouns import Merged
from fleetbatch.orders import stored_order
from fleetbatch.steps.closing import check_step, publish_step, report_step
from fleetbatch.steps.keeping import forget_step, keep_tables_step


@pytest.fixture
def night(tmp_path: Path, postgres: Postgres) -> Iterator[Night]:
    with night_in(tmp_path, postgres) as night:
        yield night


def whole(merged: Merged, rows: int) -> bool:
    return (merged.rows_in, merged.rows_out, merged.dead_letter_rows, merged.missing_rows) == (rows, rows, 0, 0)


def finished_by_two(night: Night, first: str, second: str) -> bool:
    """One car's parts of some shard end where the other's begin."""
    parts = night.parts()
    return any((a[0], a[2], a[3]) == (b[0], b[1], first) and b[3] == second for a in parts for b in parts)


def test_an_owner_who_unplugs_costs_no_row_and_another_car_goes_on_where_it_stopped(night: Night) -> None:
    first = night.park("car-1")
    night.begin(rows=8)
    night.wait_until(lambda: first.lease)
    night.pass_time(minutes=2)

    first.unplug()
    night.park("car-2")

    assert whole(night.merge(), 8)
    assert finished_by_two(night, "car-1", "car-2")
    assert (night.stats()["released"], night.stats()["resumed_shards"]) == (1, 1)


def test_a_killed_car_loses_its_shard_after_a_lease_and_another_goes_on_where_it_stopped(night: Night) -> None:
    first = night.park("car-1")
    night.begin(rows=8)
    night.wait_until(lambda: first.lease)
    night.pass_time(minutes=2)
    killed_at = night.now

    first.kill()
    second = night.park("car-2")
    night.wait_until(lambda: second.lease)

    assert 9 <= (night.now - killed_at).total_seconds() / 60 <= 16
    assert whole(night.merge(), 8)
    assert finished_by_two(night, "car-1", "car-2")
    assert night.stats()["expired"] == 1


def test_what_a_car_brings_after_its_lease_was_given_away_is_not_counted(night: Night) -> None:
    first = night.park("car-1")
    night.begin(rows=8)
    night.wait_until(lambda: first.lease)
    night.pass_time(minutes=1)

    first.wire.cut = True
    second = night.park("car-2")
    night.wait_until(lambda: second.lease)  # the lease of the car that is cut off ran out
    assert first.lease is not None  # it keeps what it has
    first.wire.cut = False
    merged = night.merge()

    assert whole(merged, 8)
    assert len({row["item_id"] for row in night.results(merged)}) == 8
    assert first.lease is None
    assert "car-2" in {who for *_, who in night.parts()}


def test_a_part_that_arrives_twice_counts_once(night: Night) -> None:
    first = night.park("car-1")
    night.begin(rows=8)
    night.wait_until(lambda: first.lease)

    first.wire.answers_lost = True
    night.pass_time(minutes=3)
    first.wire.answers_lost = False
    merged = night.merge()

    assert whole(merged, 8)
    assert len({row["item_id"] for row in night.results(merged)}) == 8
    assert night.stats()["leases"] == 1


def test_a_car_that_answers_wrong_is_found_out_and_another_computes_the_shard_anew(night: Night) -> None:
    def wrong(answers: pa.Table) -> pa.Table:
        scores = [[1.0, 0.0, 0.0]] * answers.num_rows
        column = pa.array(scores, answers.schema.field("scores").type)
        best = pa.array([1.0] * answers.num_rows, answers.schema.field("score").type)
        place = answers.schema.get_field_index
        return answers.set_column(place("scores"), "scores", column).set_column(place("score"), "score", best)

    bad = night.park("car-1", spoil=wrong)
    night.begin(rows=8)
    night.wait_until(lambda: night.stats()["disagreements"])
    bad.unplug()
    night.park("car-2")
    merged = night.merge()

    assert whole(merged, 8)
    assert {who for *_, who in night.parts()} == {"car-2"}
    assert all(row["score"] < 1.0 for row in night.results(merged))


def test_a_car_without_consent_gets_nothing_and_one_that_withdraws_stops(night: Night) -> None:
    night.park("car-1", consent=False)
    second = night.park("car-2")
    night.begin(rows=8)
    night.wait_until(lambda: second.lease)
    night.pass_time(minutes=2)

    night.cells["eu-1"].ledger.set_consent(no(second.identity.car_id))
    night.pass_time(minutes=2)

    assert second.lease is None
    assert night.stats()["revoked"] == 1
    night.pass_time(minutes=30)
    assert night.stats()["leases"] == 1


def test_a_car_works_without_its_owners_consent_to_telemetry(night: Night) -> None:
    quiet, other = night.park("car-1"), night.park("car-2")
    night.cells["eu-1"].ledger.set_consent(no(quiet.identity.car_id, "telemetry"))
    night.begin(rows=24)
    night.wait_until(lambda: quiet.lease and other.lease)
    assert whole(night.merge(), 24)
    assert {who for *_, who in night.parts()} == {"car-1", "car-2"}


def test_when_all_cars_are_gone_trusted_machines_finish_the_night_in_time(night: Night) -> None:
    for name in ("car-1", "car-2"):
        night.park(name)
    night.begin(rows=24, deadline_hours=1.0)
    night.wait_until(lambda: len(night.parts()) > 0 or any(car.lease for car in night.cars.values()))
    for car in night.cars.values():
        car.unplug()

    merged = night.merge()

    assert whole(merged, 24)
    assert "cloud" in {who for *_, who in night.parts()}
    assert night.now < night.progress().deadline_at


def test_one_car_for_the_work_of_many_does_what_it_can_and_the_rest_is_done_for_it(night: Night) -> None:
    night.park("car-1")
    night.begin(rows=64, deadline_hours=0.5)

    merged = night.merge()

    assert whole(merged, 64)
    who = Counter(who for *_, who in night.parts())
    assert who["car-1"] >= 20
    assert who["cloud"] > 0


def test_a_gateway_that_is_replaced_in_mid_night_loses_nothing(night: Night) -> None:
    car = night.park("car-1")
    night.begin(rows=8)
    night.wait_until(lambda: car.lease)
    night.pass_time(minutes=2)

    night.restart_gateway()

    assert whole(night.merge(), 8)
    assert night.stats()["leases"] == 1


def test_a_database_that_crashes_in_mid_night_loses_nothing(night: Night, postgres: Postgres) -> None:
    car = night.park("car-1")
    night.begin(rows=16)
    night.wait_until(lambda: car.lease)
    night.pass_time(minutes=2)

    restart_postgres(postgres)

    assert whole(night.merge(), 16)


def test_work_for_any_region_is_split_and_work_for_one_region_stays_there(tmp_path: Path, postgres: Postgres) -> None:
    with night_in(tmp_path, postgres, cells=2) as night:
        night.park("car-1", cell="eu-1")
        night.park("car-2", cell="us-1")
        night.begin(rows=32)
        assert whole(night.merge(), 32)
        assert {who for *_, who in night.parts()} == {"car-1", "car-2"}

        night.begin(rows=16, region="us", name="american")
        assert whole(night.merge(), 16)
        assert {who for *_, who in night.parts()} == {"car-2"}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Night]:
    """A night that was checked and published."""
    with night_in(tmp_path_factory.mktemp("published"), postgres) as night:
        night.park("car-1")
        night.park("car-2")
        night.begin(rows=24)
        night.merge()
        assert check_step(night.settings, night.key).passed
        publish_step(night.settings, night.key, now=night.now)
        yield night


def test_a_night_is_published_once_with_every_row(published: Night) -> None:
    night = published
    summary = report_step(night.settings, night.key, task_instances=7, now=night.now)

    again = publish_step(night.settings, night.key, now=night.now)

    assert again.again
    assert again.version == summary["table_version"]
    assert (summary["rows_in"], summary["rows_out"], summary["missing_rows"]) == (24, 24, 0)
    assert summary["shards"] == 3
    assert summary["audited_rows"] == 24
    assert night.progress().counts.done == 3


def test_a_forgotten_night_keeps_its_table_and_loses_its_inputs_and_its_key(published: Night) -> None:
    night, files = published, publish_step(published.settings, published.key, now=published.now)

    assert forget_step(night.settings, now=night.now + timedelta(days=29)) == 0
    assert forget_step(night.settings, now=night.now + timedelta(days=31)) == 1
    assert forget_step(night.settings, now=night.now + timedelta(days=31)) == 0
    assert keep_tables_step(night.settings) == 0

    left = set(night.store.keys(f"nights/{night.key.night}/"))
    assert not any("/shards/" in key or "/parts/" in key or "/staging/" in key for key in left)
    assert stored_order(night.store, night.key).secret_wrapped == b""
    assert sum(pq.read_table(f"{files.table}/{file}").num_rows for file in files.files) == 24
