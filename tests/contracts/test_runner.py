"""A runner's process keeps its side of the protocol against the real gateway, ledger and store."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from model_bundles import Shape, colour_model, content
from parked_cars import ParkedCar, ParkedCell, alive, parked_cell, until
from PIL import Image

from fleetbatch import layout
from fleetbatch.bundle import build_bundle
from fleetbatch.errors import RejectedError
from fleetbatch.local.postgres import Postgres, fresh_database
from fleetbatch.orders import model_file

SIGNS = model_file("road_signs")
TIMES = {"lease": 6.0, "beat_every": 0.5, "part_every": 0.2, "poll_every": 0.3, "sweep_every": 0.5}


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[ParkedCell]:
    with fresh_database(postgres) as url, parked_cell(tmp_path_factory.mktemp("cell"), url) as cell:
        cell.start_gateway(**TIMES)
        yield cell


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that needs more than a tenth of a second for a row group."""
    path = tmp_path_factory.mktemp("slow") / "slow.zip"
    path.write_bytes(build_bundle(content(Shape(slowness=4))))
    return path


@pytest.fixture
def car(cell: ParkedCell) -> Iterator[ParkedCar]:
    car = cell.park()
    yield car
    if car.process is not None and car.process.poll() is None:
        car.process.kill()
        car.process.wait()


def test_a_parked_car_computes_a_shard_and_every_row_arrives_once(cell: ParkedCell, car: ParkedCar) -> None:
    key = cell.order("whole", model=SIGNS, source="generator:road-signs?count=60&seed=7&broken=4")
    cell.offer(key, car)
    car.start("--threads=2")
    until(lambda: cell.ledger.counts(key).returned == 1, what="the shard's return")
    assert len(car.workers()) == 2
    answers = cell.answers(key)
    assert len(answers) == len({row["item_id"] for row in answers}) == 60
    assert sum(row["error"] is not None for row in answers) == 4
    assert all(len(row["labels"]) == 5 for row in answers if row["error"] is None)
    assert [row["row_group"] for row in answers] == [number for number in range(15) for _ in range(4)]
    stats = cell.ledger.night_stats(key)
    assert stats.leases == 1
    assert stats.energy_wh == pytest.approx(60.0 * stats.busy_s / 3600, rel=0.01)
    [bundle] = (car.folder / f"bundles-{car.car_id:016x}").iterdir()
    assert sorted(path.name for path in car.folder.iterdir()) == ["bundles-" + f"{car.car_id:016x}", "car.pem", "log",
                                                                 "signals.json"]  # fmt: skip
    assert bundle.suffix == ".zip"  # nothing of the shard, and no key of it, was ever written down
    assert car.stop() == 0


def test_a_car_with_more_cores_than_its_shard_has_row_groups_uses_them_all(cell: ParkedCell, car: ParkedCar) -> None:
    key = cell.order("single", model=SIGNS, source="generator:road-signs?count=4&seed=7")
    cell.offer(key, car)
    car.start("--threads=2")
    until(lambda: cell.ledger.counts(key).returned == 1, what="the shard's return")
    assert {row["row_group"] for row in cell.answers(key)} == {0}
    assert len(cell.answers(key)) == 4
    assert len(car.workers()) == 2


def test_an_unplugged_car_stops_within_a_second_and_another_goes_on_where_it_stopped(
    cell: ParkedCell, car: ParkedCar, slow: Path
) -> None:
    key = cell.order("unplugged", model=slow)
    cell.offer(key, car)
    car.start("--threads=1")
    until(lambda: cell.done_through(key) >= 2, what="two row groups")
    [worker] = car.workers()
    car.signals(IsChargingCableConnected=False)
    began = time.monotonic()
    until(lambda: not alive(worker.pid), what="the end of the worker")
    assert time.monotonic() - began < 1.0
    until(lambda: cell.ledger.counts(key).out == 0, what="the release")
    stopped_at = cell.done_through(key)
    assert 2 <= stopped_at < 12
    other = cell.park()
    cell.offer(key, other)
    other.start("--threads=2")
    until(lambda: cell.done_through(key) == -1, what="the shard's return", seconds=30)
    [began_at] = [line["row_group"] for line in other.events("work starts")]
    assert began_at == stopped_at
    answers = cell.answers(key)
    assert len(answers) == len({row["item_id"] for row in answers}) == 48
    stats = cell.ledger.night_stats(key)
    assert (stats.released, stats.resumed_shards) == (1, 1)
    assert stats.energy_wh >= stats.wasted_wh > 0
    assert other.stop() == 0


def test_a_runner_asked_to_end_lets_go_of_its_lease_within_two_seconds(
    cell: ParkedCell, car: ParkedCar, slow: Path
) -> None:
    key = cell.order("shutdown", model=slow)
    cell.offer(key, car)
    car.start("--threads=1")
    until(lambda: cell.done_through(key) >= 1, what="a row group")
    [worker] = car.workers()
    began = time.monotonic()
    assert car.stop() == 0
    assert time.monotonic() - began < 2.0
    assert not alive(worker.pid)
    assert cell.ledger.counts(key).out == 0
    assert [line["reason"] for line in car.events("lease released")] == ["shutdown"]


def test_a_killed_runner_takes_its_worker_along_and_its_lease_runs_out(
    cell: ParkedCell, car: ParkedCar, slow: Path
) -> None:
    key = cell.order("killed", model=slow)
    cell.offer(key, car)
    car.start("--threads=1")
    until(lambda: cell.done_through(key) >= 1, what="a row group")
    [worker] = car.workers()
    assert car.process is not None
    car.process.kill()
    until(lambda: not alive(worker.pid), what="the end of the worker", seconds=2)
    assert cell.ledger.counts(key).out == 1
    until(lambda: cell.ledger.counts(key).out == 0, what="the expiry", seconds=20)
    assert cell.ledger.night_stats(key).expired == 1


def test_a_killed_worker_is_replaced_and_goes_on_after_what_was_finished(
    cell: ParkedCell, car: ParkedCar, slow: Path
) -> None:
    key = cell.order("worker", model=slow)
    cell.offer(key, car)
    car.start("--threads=1")
    until(lambda: cell.done_through(key) >= 2, what="two row groups")
    [worker] = car.workers()
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: cell.done_through(key) == -1, what="the shard's return", seconds=30)
    assert [line["row_group"] >= 2 for line in car.events("work starts")] == [False, True]
    assert len({row["item_id"] for row in cell.answers(key)}) == len(cell.answers(key)) == 48
    assert cell.ledger.night_stats(key).leases == 1
    assert car.stop() == 0


def test_a_car_computes_through_a_gateway_that_was_killed_and_came_back(
    cell: ParkedCell, car: ParkedCar, slow: Path
) -> None:
    cell.stop_gateway()
    cell.start_gateway(**TIMES | {"lease": 60.0})  # longer than any machine needs to start a gateway
    key = cell.order("restart", rows=24, model=slow)
    cell.offer(key, car)
    car.start("--threads=1")
    until(lambda: cell.done_through(key) >= 1, what="a row group")
    cell.stop_gateway()
    until(lambda: car.events("not reached"), what="a call that finds nobody")
    cell.start_gateway(**TIMES)
    until(lambda: cell.done_through(key) == -1, what="the shard's return", seconds=30)
    assert len({row["item_id"] for row in cell.answers(key)}) == len(cell.answers(key)) == 24
    assert cell.ledger.night_stats(key).leases == 1
    assert car.stop() == 0


def test_a_withdrawn_consent_stops_the_car_at_its_next_beat(cell: ParkedCell, car: ParkedCar, slow: Path) -> None:
    key = cell.order("consent", model=slow)
    cell.offer(key, car)
    car.start("--threads=1")
    until(lambda: cell.done_through(key) >= 1, what="a row group")
    [worker] = car.workers()
    cell.consent(car, granted=False)
    until(lambda: not alive(worker.pid), what="the end of the worker", seconds=3)
    done = cell.done_through(key)
    assert cell.ledger.counts(key).out == 0
    time.sleep(0.5)
    assert cell.done_through(key) == done
    assert car.stop() == 0


def test_a_bundle_that_does_not_reproduce_its_goldens_is_not_used(cell: ParkedCell, car: ParkedCar) -> None:
    wrong = cell.home / "wrong.zip"
    half = colour_model(Shape(kind="softmax"))  # softmax twice: the labels are right, the scores are not
    wrong.write_bytes(build_bundle(replace(content(), variants={"fp16": half})))
    key = cell.order("goldens", rows=8, model=wrong)
    cell.offer(key, car)
    car.start("--precision", "fp16")
    until(lambda: cell.ledger.night_stats(key).released == 1, what="the release")
    assert cell.answers(key) == []
    until(lambda: car.events("lease released"), what="the car's own word of it")  # it hears later than the ledger
    assert "does not reproduce its goldens" in car.events("work failed")[0]["detail"]
    assert car.events("lease released")[0]["reason"] == "refused"
    assert car.stop() == 0


def test_a_shard_with_a_changed_bit_is_refused(cell: ParkedCell, car: ParkedCar) -> None:
    key = cell.order("bit", model=SIGNS)
    [row] = [row for row in cell.ledger.open_shards().to_pylist() if row["order_key"] == str(key)]
    name = layout.shard(key, row["shard_id"])
    damaged = bytearray(cell.store.read(name))
    damaged[len(damaged) // 3] ^= 1
    cell.store.write(name, bytes(damaged))
    cell.offer(key, car)
    car.start("--threads=1")
    until(lambda: cell.ledger.night_stats(key).released >= 1, what="the release")
    assert "cannot be unsealed" in car.events("work failed")[0]["detail"]
    assert car.stop() == 0


def test_a_row_that_hangs_becomes_a_dead_letter_and_all_others_are_answered(
    cell: ParkedCell, car: ParkedCar, tmp_path: Path
) -> None:
    (tmp_path / "hangs.zip").write_bytes(build_bundle(content(Shape(hangs=True))))
    key = cell.order("hangs", rows=12, model=tmp_path / "hangs.zip")  # the first picture is the greenest
    cell.offer(key, car)
    car.start("--threads=2", "--row-limit-s=4")
    until(lambda: cell.done_through(key) == -1, what="the shard's return", seconds=90)
    errors = [row["error"] for row in cell.answers(key)]
    assert errors == ["given up: this row took more than 4 s"] + [None] * 11
    assert cell.ledger.night_stats(key).leases == 1
    assert len(car.events("work starts")) == 1
    assert car.stop() == 0


def test_answers_say_when_an_order_traded_exactness_for_speed(cell: ParkedCell, car: ParkedCar) -> None:
    pictures = cell.home / "large"
    pictures.mkdir()
    for number in range(4):
        Image.new("RGB", (800, 600), (200, number, 0)).save(pictures / f"{number}.jpg")
    (pictures / "torn.jpg").write_bytes((pictures / "0.jpg").read_bytes()[:900])
    key = cell.order("reduced", model=SIGNS, source=str(pictures), options={"decode": "reduced"})
    cell.offer(key, car)
    car.start("--threads=1", "--precision=fp16")
    until(lambda: cell.done_through(key) == -1, what="the shard's return")
    said = [(row["precision"], row["decode"]) for row in cell.answers(key)]
    assert said == [("fp16", "reduced")] * 4 + [(None, None)]
    assert car.stop() == 0
    with pytest.raises(RejectedError, match="has no such variant"):
        cell.order("int8", model=SIGNS, rows=4, options={"precision": "int8"})


def test_the_energy_of_parts_and_what_was_wasted_is_what_the_leases_drew(
    cell: ParkedCell, car: ParkedCar, slow: Path
) -> None:
    key = cell.order("energy", rows=24, model=slow)
    cell.offer(key, car)
    car.start("--threads=2", "--power-w=120")
    until(lambda: cell.done_through(key) >= 1, what="a row group")
    car.signals(IsChargingCableConnected=False)
    until(lambda: cell.ledger.counts(key).out == 0, what="the release")
    other = cell.park()
    cell.offer(key, other)
    other.start("--threads=1", "--power-w=40")
    until(lambda: cell.done_through(key) == -1, what="the shard's return", seconds=90)
    delivered = sum(part["energy_wh"] for part in cell.parts(key))
    stats = cell.ledger.night_stats(key)
    assert {part["energy_source"] for part in cell.parts(key)} == {"estimated"}
    assert stats.wasted_wh > 0
    assert delivered + stats.wasted_wh == pytest.approx(stats.energy_wh)
    assert delivered > 0
    assert other.stop() == car.stop() == 0


def test_an_unwilling_car_gets_no_work_and_says_why(cell: ParkedCell, car: ParkedCar) -> None:
    key = cell.order("unwilling", rows=8, model=SIGNS)
    cell.offer(key, car)
    car.signals(Current=10.0)
    car.start("--threads=1")
    time.sleep(1.5)
    assert cell.ledger.counts(key).ready == 1
    car.signals()
    until(lambda: cell.ledger.counts(key).returned == 1, what="the shard's return")
    assert car.stop() == 0


def test_a_key_that_nobody_enrolled_is_one_clear_line_and_exit_2(cell: ParkedCell) -> None:
    car = cell.park(enrolled=False)
    car.start("--threads=1")
    assert car.process is not None
    assert car.process.wait(timeout=10) == 2
    [line] = [line for line in (car.folder / "log").read_text().splitlines() if not line.startswith("{")]
    assert f"does not know the key of car {car.car_id:016x}" in line
