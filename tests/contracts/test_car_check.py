"""`fleetbatch car check` finds a whole car whole, and says of each broken thing what to do."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from parked_cars import ParkedCar, ParkedCell, parked_cell

from fleetbatch.car.conditions import SOC, VOLTAGE
from fleetbatch.local.postgres import Postgres, fresh_database
from fleetbatch.orders import model_file


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[ParkedCell]:
    with fresh_database(postgres) as url, parked_cell(tmp_path_factory.mktemp("cell"), url) as cell:
        cell.start_gateway(lease=6.0, beat_every=0.5, part_every=0.2, poll_every=0.3)
        yield cell


def check(car: ParkedCar, *flags: str, url: str = "") -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the command; return its exit code, and each finding by its check."""
    hardware = car.folder / "hardware.toml"
    hardware.write_text("threads = 1\nmemory_mib = 512\n")
    command = [sys.executable, "-c", "from fleetbatch.cli import main; main()", "car", "check", url or car.gateway_url]
    command += ["--key", str(car.folder / "car.pem"), "--signals", f"file:{car.folder / 'signals.json'}"]
    done = subprocess.run(
        [*command, "--hardware", str(hardware), "--json", *flags], capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] == (done.returncode == 0)
    findings = {finding["check"]: finding for finding in told["findings"]}
    assert all(finding["advice"] for finding in findings.values() if finding["outcome"] != "ok")
    return done.returncode, findings


def test_a_whole_car_is_found_whole_to_its_last_part(cell: ParkedCell) -> None:
    car = cell.park()
    key = cell.order("check", model=model_file("road_signs"), source="generator:road-signs?count=20&seed=7")
    cell.offer(key, car)
    code, findings = check(car, "--work", "30")
    assert code == 0, findings
    wanted = {"gateway reached", "transport", "clock", "identity", "protocol", "poll", "goldens", "speed", "stop"}
    wanted |= {"memory bound", "signed GET and PUT", "shutdown", "StateOfCharge.Current"}
    assert {name for name in wanted if findings[name]["outcome"] == "ok"} == wanted
    assert cell.done_through(key) != 0


def test_a_car_with_broken_things_is_told_each_and_what_to_do(cell: ParkedCell, tmp_path: Path) -> None:
    car = cell.park(enrolled=False)
    signals = json.loads((car.folder / "signals.json").read_text())
    signals["signals"] |= {VOLTAGE: 23.0, SOC: "full"}
    (car.folder / "signals.json").write_text(json.dumps(signals))
    spoiled = bytearray(model_file("road_signs").read_bytes())
    spoiled[len(spoiled) // 2] ^= 0xFF
    (tmp_path / "spoiled.zip").write_bytes(spoiled)
    code, findings = check(car, "--model", str(tmp_path / "spoiled.zip"))
    assert code == 1
    failed = {name for name, finding in findings.items() if finding["outcome"] == "failed"}
    assert {"identity", "ChargeVoltage.Phase1", "StateOfCharge.Current"} <= failed
    assert failed & {"goldens", "dry run"}
    assert f"{car.car_id:016x}" in findings["identity"]["advice"]
    assert "volts" in findings["ChargeVoltage.Phase1"]["advice"]


def test_a_gateway_that_is_not_there_is_found_and_the_car_is_checked_all_the_same(cell: ParkedCell) -> None:
    code, findings = check(cell.park(), url="http://127.0.0.1:9")
    assert code == 1
    assert [name for name, finding in findings.items() if finding["outcome"] == "failed"] == ["gateway reached"]
    assert "network" in findings["gateway reached"]["advice"]
    assert findings["goldens"]["outcome"] == "ok"
    assert "identity" not in findings
