"""`fleetbatch status` against a deployment: as text, as JSON, and when nothing runs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from deployments import deployed
from gateway_doors import KEY, open_door
from ledger_nights import Cell

from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.local.postgres import Postgres
from fleetbatch.settings import load_settings


@pytest.fixture
def settings(tmp_path: Path, postgres: Postgres) -> Iterator[Path]:
    with deployed(tmp_path, postgres) as settings:
        yield settings


def run(settings: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from fleetbatch.cli import main; main()", "status", *words]
    env = {**os.environ, "FLEETBATCH_SETTINGS": str(settings), "COLUMNS": "160"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_it_shows_each_cell_with_its_shards_leases_and_cars(settings: Path) -> None:
    with PostgresLedger.open(load_settings(settings).cells[0].ledger_url) as ledger:
        cell = Cell(ledger)
        cell.enrol(1, 2)
        cell.open({1: (5,), 2: (5,), 3: (5,)})
        cell.take(1, 1)

    told = json.loads(run(settings, "--json").stdout)["cells"]
    assert told["eu-1"]["shards"] == {"ready": 2, "out": 1, "returned": 0, "valid": 0, "dead": 0}
    assert told["eu-1"]["open_leases"]["total"] == 1
    assert (told["eu-1"]["cars"]["computing"], told["eu-1"]["cars"]["idle"]) == (1, 1)
    assert told["eu-1"]["orders"][0]["left"] == 3
    assert told["us-1"]["orders"] == []
    assert {cell["gateway"] for cell in told.values()} == {"down"}
    text = run(settings).stdout
    assert "order 2026-11-22/signs/g1 is open: 3 of 3 shards left" in text


def test_it_asks_the_gateway_and_tells_the_newest_round_and_how_old_open_leases_are(
    tmp_path: Path, database_url: str
) -> None:
    with open_door(database_url, tmp_path) as door:
        cars = [door.car(number) for number in (1, 2, 3)]
        door.open({7: (3,), 8: (3,), 9: (3,)})
        door.offer(*((car.id, shard) for car, shard in zip(cars, (7, 8, 9), strict=True)))
        newest = door.offer(*((car.id, shard) for car, shard in zip(cars, (7, 8, 9), strict=True)))
        leases = [car.take() for car in cars]
        with psycopg.connect(database_url, autocommit=True) as owner:
            for lease, age in zip(leases, ("10 seconds", "7 minutes", "7 hours"), strict=True):
                words = (
                    "UPDATE fleetbatch.open_leases SET granted_at = fleetbatch.now() - %s::interval WHERE shard_id = %s"
                )
                owner.execute(words, [age, int(lease.shard_id, 16)])
            owner.execute("UPDATE fleetbatch.rounds SET at = fleetbatch.now() - interval '90 seconds'")
        (tmp_path / "deployment.key").write_text(KEY.hex())
        file = tmp_path / "settings.toml"
        file.write_text(
            f'store = "{(tmp_path / "store").as_uri()}"\ndeployment_key_file = "deployment.key"\nengine = "local"\n'
            f'[[cells]]\nname = "eu-1"\nregion = "eu"\nledger_url = "{database_url}"\n'
            f'gateway_ledger_url = "{database_url}"\ngateway_url = "{door.url}"\n'
        )
        [told] = json.loads(run(file, "--json").stdout)["cells"].values()
        text = run(file).stdout

    assert told["gateway"] == "up"
    assert told["open_leases"] == {
        "total": 3,
        "cloud": 0,
        "by_age": {"under 1 min": 1, "under 5 min": 0, "under 15 min": 1, "under 60 min": 0, "older": 1},
    }
    assert told["cars"]["computing"] == 3
    assert (told["last_round"]["round_id"], told["last_round"]["offers"]) == (newest, 3)
    assert told["last_round"]["age_s"] >= 90
    assert "1 under 1 min, 1 under 15 min, 1 older" in text
    assert f"{newest}, " in text
    assert " up " in text


def test_a_place_without_a_deployment_is_named_with_what_to_do(tmp_path: Path) -> None:
    refused = run(tmp_path / "settings.toml")
    assert refused.returncode == 2
    assert "there is no deployment at" in refused.stderr
    assert "FLEETBATCH_SETTINGS" in refused.stderr


def test_a_deployment_whose_databases_are_down_does_not_run(settings: Path) -> None:
    settings.write_text(
        settings.read_text().replace('ledger_url = "', 'ledger_url = "postgresql://nobody@127.0.0.1:1/')
    )
    stopped = run(settings)
    assert stopped.returncode == 75
    assert "nothing runs" in stopped.stderr
