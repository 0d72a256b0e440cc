import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from fleetbatch.errors import RejectedError
from fleetbatch.local.charging import Charging, vehicle_signals
from fleetbatch.local.incidents import in_mid_shard
from fleetbatch.local.laptop import CELLS, laptop_cars, write_settings
from fleetbatch.local.outcome import begun_order
from fleetbatch.local.postgres import Postgres
from fleetbatch.local.preflight import refuse_another
from fleetbatch.local.processes import children, wait_ready
from fleetbatch.local.reaper import DATA_PREFIX, forget_data
from fleetbatch.local.request import NightRequest, check_request
from fleetbatch.nouns import FrozenOrder
from fleetbatch.orders import freeze_order
from fleetbatch.orders.parse import parse_order
from fleetbatch.steps.examining import known_in
from fleetbatch.store import open_store
from fleetbatch.units import CarId, Night

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
PLUGGED = "Vehicle.Powertrain.TractionBattery.Charging.IsChargingCableConnected"
SOC = "Vehicle.Powertrain.TractionBattery.StateOfCharge.Current"
SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def _gone(pid: int) -> bool:
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_children_end_with_their_block(tmp_path: Path) -> None:
    with children(tmp_path) as family:
        child = family.spawn("sleeper", SLEEP, os.environ)
        wait_ready(child, "up")
    assert not child.alive()


def test_a_child_that_ends_while_starting_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with children(tmp_path) as family:
        child = family.spawn("failing", [sys.executable, "-c", "print('port taken'); raise SystemExit(2)"], os.environ)
        with pytest.raises(RejectedError, match="port taken"):
            wait_ready(child, "never said")


def test_children_of_a_killed_parent_are_ended_by_the_reaper(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\nfrom pathlib import Path\nfrom fleetbatch.local.processes import Children\n"
        f"family = Children.start(Path({str(tmp_path)!r}))\n"
        f"print(family.spawn('sleeper', {SLEEP!r}, os.environ).process.pid, flush=True)\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert _gone(pid)


def test_a_car_charges_to_its_target_and_its_cable_goes_when_the_owner_goes() -> None:
    stay = Charging(plugged_in_at=NOON, soc_at_plug_in=0.5, unplugged_at=NOON + timedelta(hours=6))
    assert vehicle_signals(stay, NOON)[SOC] == pytest.approx(50)
    assert vehicle_signals(stay, NOON + timedelta(hours=5))[SOC] == pytest.approx(80)
    assert vehicle_signals(stay, NOON + timedelta(hours=5))[PLUGGED] is True
    assert vehicle_signals(stay, NOON + timedelta(hours=6))[PLUGGED] is False


def test_a_full_car_does_not_lose_charge_at_the_plug() -> None:
    stay = Charging(plugged_in_at=NOON, soc_at_plug_in=0.95)
    assert vehicle_signals(stay, NOON + timedelta(hours=1))[SOC] == pytest.approx(95)


def test_the_car_with_the_most_left_to_do_is_taken_away() -> None:
    shards = pa.table(
        {
            "shard_id": [1, 2, 3, 4, 5],
            "row_groups": [6, 6, 9, 6, 6],
            "done_through": [0, 1, 1, 5, 2],
            "held_by_car": pa.array([11, 12, 13, 14, None], pa.uint64()),
        }
    )
    found = in_mid_shard(shards)
    assert found is not None
    assert found.car_id == 13
    spared = in_mid_shard(shards, spare=frozenset({CarId(13)}))
    assert spared is not None
    assert spared.car_id == 12
    assert in_mid_shard(shards, spare=frozenset({CarId(12), CarId(13)})) is None


def test_eight_cars_stand_in_two_cells_with_three_classes() -> None:
    cars = laptop_cars(8)
    assert {car.cell for car in cars} == {"eu-1", "us-1"}
    assert len({car.hardware.name for car in cars}) == 3
    for cell in ("eu-1", "us-1"):
        assert len({car.hardware.name for car in cars if car.cell == cell}) == 3


def test_a_request_is_refused_with_everything_that_is_wrong(tmp_path: Path) -> None:
    request = NightRequest(home=tmp_path, night="tonight", images=tmp_path / "absent", cars=-1)
    with pytest.raises(RejectedError) as caught:
        check_request(request)
    text = str(caught.value)
    for word in ("go together", "absent", "YYYY-MM-DD", "negative"):
        assert word in text


def test_a_night_that_was_begun_with_another_folder_of_that_name_is_not_taken_for_this_one(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri(), deployment_key=b"k" * 32)
    raw = {"name": "pictures", "source": str(tmp_path), "model": "road-signs"}
    mine = parse_order(raw, known_in(frozenset()), base=tmp_path, where="here")
    for order in (replace(mine, source="/elsewhere/pictures"), mine):
        frozen = freeze_order(store, order, night=Night("2026-11-22"), force=True, now=NOON, deployment_key=b"k" * 32)
        assert isinstance(frozen, FrozenOrder)
    begun = begun_order(tmp_path, mine.name, "2026-11-22")
    assert begun is not None
    assert begun.key.generation == 2
    assert begun_order(tmp_path, mine.name, "2026-11-23") is None
    refuse_another(begun, mine, begun.model_sha256)
    other = replace(mine, source="/elsewhere/pictures", options=(("seed", "1"),))
    with pytest.raises(RejectedError, match="was begun with something else; --force") as refused:
        refuse_another(begun, other, "f" * 64)
    assert [problem.partition(":")[0] for problem in refused.value.problems] == ["source", "model", "options"]


def test_only_a_folder_made_for_one_server_goes_with_its_data(tmp_path: Path) -> None:
    for name, kept in (("somebodys-folder", True), (f"{DATA_PREFIX}x", False)):
        data = tmp_path / name / "data"
        data.mkdir(parents=True)
        forget_data(data)
        assert data.exists() is kept


def test_the_settings_name_the_clock_that_each_cells_cars_live_by(postgres: Postgres, tmp_path: Path) -> None:
    settings = write_settings(tmp_path, postgres, [1, 2])
    assert {cell.name: cell.timezone for cell in settings.cells} == {name: zone for name, _, zone in CELLS}
