"""Anyone can see that what an owner said is kept as it was said: from a statement alone, or from the ledger."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from deployments import deployed
from ledger_nights import EVENING, enrolment, no, yes

from fleetbatch.errors import RejectedError
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.local.postgres import Postgres
from fleetbatch.settings import Settings, load_settings
from fleetbatch.steps.consents import Verified, verify_ledgers, verify_statement
from fleetbatch.steps.credits import find_statement
from fleetbatch.units import CarId

CAR = f"{1:016x}"
WORDS = (yes(1), no(1), yes(1), yes(1, "telemetry"), yes(1, "data:personal"), no(1, "data:personal"), yes(2))
Told = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A deployment whose owners said all of WORDS, and the statement of the first car as a file."""

    file: Path
    settings: Settings
    saved: Path

    def told(self) -> Told:
        told: Told = json.loads(self.saved.read_text())
        return told

    def verify(self, told: Told, *receipts: str) -> tuple[str, ...]:
        self.saved.write_text(json.dumps(told))
        return verify_statement(self.saved, receipts).broken

    def forge(self, *changes: str) -> tuple[str, ...]:
        """Change the ledger as only the owner of the database can, and look."""
        with psycopg.connect(self.settings.cells[0].ledger_url) as owner:
            owner.execute("SET session_replication_role = replica")
            for change in changes:
                owner.execute(change.encode())
        return verify_ledgers(self.settings).broken


def command(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-c", "from fleetbatch.cli import main; main()", *words]
    env = {**os.environ, "FLEETBATCH_SETTINGS": str(file), "COLUMNS": "160"}
    return subprocess.run(run, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def said(tmp_path: Path, postgres: Postgres) -> Iterator[Said]:
    with deployed(tmp_path, postgres, cells=1) as file:
        settings = load_settings(file)
        with PostgresLedger.open(settings.cells[0].ledger_url) as ledger:
            ledger.enrol([enrolment(car) for car in (1, 2, 3)])
            ledger.turn_clock(EVENING)
            for word in WORDS:
                ledger.set_consent(word)
        saved = tmp_path / "statement.json"
        saved.write_bytes(msgspec.json.encode(find_statement(settings, CarId(1))))
        yield Said(file=file, settings=settings, saved=saved)


def test_what_a_statement_tells_is_all_that_its_hashes_are_made_of(said: Said) -> None:
    told = said.told()
    previous: dict[str, str] = {}
    for entry in told["consents"]:
        lines = ["fleetbatch-consent-1", entry["previous"], str(int(told["car_id"], 16)), entry["purpose"]]
        lines += [str(entry["number"]), "t" if entry["granted"] else "f"]
        lines += [entry["notice_version"], entry["notice_sha256"], entry["at"]]
        assert entry["previous"] == previous.get(entry["purpose"], "0" * 64)
        assert entry["sha256"] == hashlib.sha256("\n".join(lines).encode()).hexdigest()
        previous[entry["purpose"]] = entry["sha256"]
    assert [entry["number"] for entry in told["consents"]] == [1, 2, 3, 1, 2, 1]


def test_whole_chains_are_whole_in_a_statement_and_in_the_ledger(said: Said) -> None:
    receipts = [entry["sha256"] for entry in said.told()["consents"]]
    assert verify_statement(said.saved, receipts) == Verified(cars=1, decisions=6, broken_cars=0, broken=())
    assert verify_ledgers(said.settings) == Verified(cars=3, decisions=7, broken_cars=0, broken=())
    assert verify_ledgers(said.settings, CarId(2)) == Verified(cars=1, decisions=1, broken_cars=0, broken=())


@pytest.mark.parametrize(
    ("name", "value"),
    [("granted", True), ("notice_version", "2"), ("notice_sha256", "0" * 64), ("at", "2026-11-22T20:00:00.000001Z")],
)
def test_a_decision_that_says_something_else_is_the_first_to_be_named(said: Said, name: str, value: object) -> None:
    told = said.told()
    told["consents"][1][name] = value
    [line] = said.verify(told)
    assert line.startswith(f"car {CAR}: decision 2 on compute (2026-11-22T20:00:00.00000")
    assert line.endswith("was changed: its hash is not that of what it says")


def test_a_decision_that_is_taken_out_or_told_as_another_cars_is_named(said: Said) -> None:
    told = said.told()
    first = told["consents"].pop(0)
    [line] = said.verify(told)
    assert "decision 2 on compute" in line
    assert line.endswith("decision 1 is missing or told otherwise")
    told["consents"].insert(0, {**first, "number": 2})
    assert said.verify(told)
    told["consents"][0] = first
    assert said.verify(told) == ()
    assert "was changed" in said.verify({**told, "car_id": f"{2:016x}"})[0]


def test_a_chain_that_was_made_anew_does_not_hold_what_its_owner_kept(said: Said) -> None:
    told = said.told()
    receipt = told["consents"].pop(2)["sha256"]
    assert said.verify(told) == ()
    assert said.verify(told, receipt) == (f"car {CAR}: no decision has the hash {receipt}, which was kept",)


def test_the_ledger_is_found_out_whatever_its_owner_changed(said: Said) -> None:
    [line] = said.forge("UPDATE fleetbatch.consents SET granted = true WHERE number = 2 AND purpose = 'compute'")
    assert "decision 2 on compute" in line
    assert len(said.forge("UPDATE fleetbatch.cars SET consents = '{}' WHERE car_id = 2")) == 2
    said.forge("DELETE FROM fleetbatch.consents WHERE car_id = 1")
    assert verify_ledgers(said.settings).broken == (
        f"car {CAR} may be used for compute, telemetry; its decisions say nothing",
        f"car {2:016x} may be used for nothing; its decisions say compute",
    )


def test_a_broken_link_is_named_though_every_record_has_its_own_hash(said: Said) -> None:
    with psycopg.connect(said.settings.cells[0].ledger_url) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("SELECT set_config('search_path', 'fleetbatch, pg_catalog', false)")
        owner.execute("DELETE FROM consents WHERE car_id = 1 AND purpose = 'compute' AND number < 3")
        owner.execute("UPDATE consents SET number = 1 WHERE car_id = 1 AND purpose = 'compute'")
    [line] = verify_ledgers(said.settings).broken
    assert "decision 1 on compute" in line
    assert "does not follow the decision before it" in line


def test_the_command_says_what_it_found_by_words_json_and_exit_code(said: Said) -> None:
    assert command(said.file, "consent", "verify").stdout == "7 decisions of 3 cars: every chain is whole\n"
    alone = command(said.file.parent / "nowhere", "consent", "verify", "--statement", str(said.saved), "--json")
    assert (alone.returncode, json.loads(alone.stdout)["decisions"]) == (0, 6)

    assert said.forge("UPDATE fleetbatch.consents SET notice_version = '9' WHERE car_id = 2")
    wrong = command(said.file, "consent", "verify", "--json")
    assert wrong.returncode == 2
    assert json.loads(wrong.stdout)["broken_cars"] == 1
    assert "the consents of 1 of 3 cars" in wrong.stderr
    assert f"car {2:016x}: decision 1 on compute" in wrong.stderr
    assert command(said.file, "consent", "verify", CAR).returncode == 0


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", '{"car_id": "x", "consents": []}', '{"car_id": "1", "consents": [{}]}'),
        f'{{"car_id": "{"f" * 10_000}", "consents": []}}',
        f'{{"other": {"[" * 100_000}{"]" * 100_000}}}',
    ],
    ids=["nothing", "a list", "cut off", "a name", "no decision", "a long number", "deep"],
)
def test_a_file_that_is_no_statement_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "statement.json").write_text(text)
    with pytest.raises(RejectedError, match="is no statement of a car"):
        verify_statement(tmp_path / "statement.json")
    with pytest.raises(RejectedError, match="cannot read"):
        verify_statement(tmp_path)
