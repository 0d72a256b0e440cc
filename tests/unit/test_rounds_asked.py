"""`fleetbatch why` and `fleetbatch simulate` at the command line: one clear message for whatever cannot be used."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from planner_tables import NOW, POLICY, car, cars, shard, shards

from fleetbatch import layout
from fleetbatch.cli import EXIT_REJECTED, run_command
from fleetbatch.cli.rounds import explain_everywhere
from fleetbatch.contracts import empty
from fleetbatch.errors import RejectedError
from fleetbatch.planner import keep, plan_round
from fleetbatch.planner.kept import FORGOTTEN_AT_ONCE
from fleetbatch.store import Store, open_store
from fleetbatch.units import CellName, RoundId, RoundName

SMALL = ("--cars", "12", "--shards", "6", "--hours", "0.5")

EU = CellName("eu-1")
COMMAND = (sys.executable, "-c", "import sys; from fleetbatch.cli import main; sys.exit(main())")


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Run a command that must be refused; return what it says, on one line."""
    assert run_command([str(word) for word in words]) == EXIT_REJECTED
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return " ".join(said.err.split())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--replan-min", "nan"), "--replan-min"),
        (("--replan-min", "inf"), "--replan-min"),
        (("--replan-min", "0"), "--replan-min"),
        (("--hours", "nan"), "--hours"),
        (("--hours", "0.0002"), "--hours"),
        (("--hours", "1e9"), "hours: 1000000000.0; expected more than 0 and at most 24"),
        (("--load", "inf"), "load: inf; expected more than 0"),
        (("--carbon", "nan"), "--carbon"),
        (("--carbon", "1e99"), "carbon_eur_per_tonne: 1e+99; expected at least 0"),
        (("--model-mb", "1e99"), "model_bytes:"),
        (("--seed", "-1"), "--seed"),
        (("--seed", "99999999999999999999"), "seed: 99999999999999999999; expected 0 to"),
        (("--cars", "100000000000000"), "cars: 100000000000000; expected 1 to 10,000,000"),
        (("--shards", "100000000000000"), "shards: 100000000000000; expected 1 to 100,000,000"),
        (("--stays", "absent.parquet"), "cannot read sessions from absent.parquet"),
        (("--report", "/dev/null/here"), "cannot write the report to /dev/null/here/night.html"),
    ],
)
def test_a_night_that_cannot_be_simulated_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], why: str
) -> None:
    assert why in refused(capsys, "simulate", *SMALL, *words)


def test_one_seed_gives_one_answer_in_every_process_and_nothing_but_json_on_the_output(tmp_path: Path) -> None:
    outputs = []
    for number in ("1", "2"):
        command = [*COMMAND, "simulate", *SMALL, "--json", "--report", str(tmp_path)]
        environment = os.environ | {"PYTHONHASHSEED": number}
        run = subprocess.run(command, capture_output=True, env=environment, check=True, cwd=tmp_path)
        assert run.stderr == b""
        outputs.append(run.stdout)
    assert outputs[0] == outputs[1]
    assert json.loads(outputs[0])["scenario"]["cars"] == 12


@pytest.mark.parametrize("wanted", ["", "zz", "-1", "1_0", "0x1f", " 1", "1 ", "ffffffffffffffffff", "\u0661"])
def test_what_is_no_id_is_refused_by_name(tmp_path: Path, wanted: str) -> None:
    with pytest.raises(RejectedError, match="is neither a shard nor a car"):
        explain_everywhere(tmp_path / "settings.toml", wanted)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Return the settings of a deployment with one cell."""
    (tmp_path / "deployment.key").write_text("ab" * 32)
    cell = [f'{name} = "x"' for name in ("region", "ledger_url", "gateway_ledger_url")]
    head = [
        f'store = "{(tmp_path / "store").as_uri()}"',
        'deployment_key_file = "deployment.key"',
        "[[cells]]",
        'name = "eu-1"',
        'gateway_url = "https://a.b"',
    ]
    written = tmp_path / "settings.toml"
    written.write_text("\n".join([*head, *cell]))
    return written


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return the deployment's store."""
    return open_store((tmp_path / "store").as_uri(), deployment_key=bytes(32))


def stored(store: Store) -> list[RoundName]:
    """Return the rounds that lie in a store, the oldest first."""
    return list(layout.by_round(EU, store.keys(layout.rounds(EU))))


def planned(car_id: int) -> dict[str, pa.Table]:
    """Return the tables of a round in which that car gets shard 11, and shard 12 fits nowhere."""
    fleet, work = cars(car(car_id), car(2, consent=0)), shards(shard(11), shard(12, mem_B=1 << 40))
    found = plan_round(fleet, work, NOW + timedelta(minutes=1), POLICY)
    tables = {"cars": fleet, "excluded": empty("excluded"), "car_plan": found.car_plan}
    return tables | {"assignments": found.assignments, "unassigned": found.unassigned}


def test_an_id_that_no_stored_round_knows_is_said_and_one_that_it_knows_is_answered(
    settings: Path, store: Store
) -> None:
    with pytest.raises(RejectedError, match="no stored round knows 000000000000000b"):
        explain_everywhere(settings, "000000000000000b")
    keep(store, EU, layout.round_name(NOW, RoundId(7)), planned(1), rounds_kept=10)
    [line] = explain_everywhere(settings, "B")
    assert line.startswith("cell eu-1, round 7: shard 000000000000000b: row groups 0 to 10 go to car 0000000000000001")
    assert "waits" in explain_everywhere(settings, "c")[0]
    assert "car 0000000000000002 has nothing" in explain_everywhere(settings, "0000000000000002")[0]
    with pytest.raises(RejectedError, match="no stored round knows 0fffffffffffffff"):
        explain_everywhere(settings, "0fffffffffffffff")


def test_a_new_ledger_counts_from_1_again_and_its_rounds_are_the_newest(settings: Path, store: Store) -> None:
    keep(store, EU, RoundName("0000000900"), planned(5), rounds_kept=3)  # stored before names began with the time
    keep(store, EU, layout.round_name(NOW - timedelta(days=1), RoundId(7)), planned(4), rounds_kept=3)
    keep(store, EU, layout.round_name(NOW, RoundId(1)), planned(1), rounds_kept=3)
    [line] = explain_everywhere(settings, "b")
    assert line.startswith("cell eu-1, round 1: shard 000000000000000b: row groups 0 to 10 go to car 0000000000000001")
    [older] = explain_everywhere(settings, "0000000000000004")
    assert older.startswith("cell eu-1, round 7: car 0000000000000004")


def test_the_oldest_rounds_are_forgotten_whatever_their_numbers_and_tonights_stay(store: Store) -> None:
    last_night = NOW - timedelta(days=1)
    for number in range(1, 31):
        name = layout.round_name(last_night + timedelta(minutes=number), RoundId(number))
        keep(store, EU, name, {"cars": empty("cars")}, rounds_kept=30)
    tonight = [layout.round_name(NOW + timedelta(minutes=number), RoundId(number)) for number in (1, 2, 3, 4)]
    left = []
    for name in tonight:
        keep(store, EU, name, {"cars": empty("cars")}, rounds_kept=2)
        left.append(len(stored(store)))
    assert left == [31 - FORGOTTEN_AT_ONCE, 32 - 2 * FORGOTTEN_AT_ONCE, 33 - 3 * FORGOTTEN_AT_ONCE, 2]
    assert stored(store) == tonight[2:]


def test_of_work_that_runs_it_is_said_too_why_it_went_to_its_car(settings: Path, store: Store) -> None:
    keep(store, EU, layout.round_name(NOW, RoundId(6)), planned(5), rounds_kept=10)
    keep(store, EU, layout.round_name(NOW + timedelta(minutes=15), RoundId(7)), planned(1), rounds_kept=10)
    for minutes, number in ((30, 8), (45, 9)):
        keep(
            store, EU, layout.round_name(NOW + timedelta(minutes=minutes), RoundId(number)), running(1), rounds_kept=10
        )
    for wanted in ("b", "1"):
        newest, began = explain_everywhere(settings, wanted)
        assert newest.startswith("cell eu-1, round 9")
        assert newest.endswith("the car holds the shard's lease and keeps it")
        assert began.startswith(
            "cell eu-1, round 7: shard 000000000000000b: row groups 0 to 10 go to car 0000000000000001"
        )
        assert began.endswith("the most urgent open shard went to the free car that will stay longest")


def running(car_id: int) -> dict[str, pa.Table]:
    """Return the tables of a round in which that car has had shard 11 for a while."""
    fleet = cars(car(car_id, running_shard=11, running_row_group=2))
    work = shards(shard(11, rg_next=2, held_by=[1000 + car_id]))
    found = plan_round(fleet, work, NOW, POLICY)
    tables = {"cars": fleet, "excluded": empty("excluded"), "car_plan": found.car_plan}
    return tables | {"assignments": found.assignments, "unassigned": found.unassigned}
