"""After any story of leases and audits the books sum to zero, nobody is paid twice, and the leases say the same."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest
from deployments import deployed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_nights import EVENING, Cell, judge, open_cell, part, publish
from ledger_sound import assert_sound, wipe

from fleetbatch.contracts import conform
from fleetbatch.ledger.book import Step
from fleetbatch.ledger.messages import AuditTask, Granted
from fleetbatch.local.postgres import Postgres
from fleetbatch.settings import Settings, load_settings
from fleetbatch.steps.archiving import archive_step
from fleetbatch.steps.credits import recompute_credits
from fleetbatch.units import CarId

CARS, SHARDS, ROWS = (1, 2, 3), (11, 12, 13), (3, 4)
NUMBER = st.integers(0, 2)
ACTIONS = st.one_of(
    st.tuples(st.just("work"), NUMBER, NUMBER),
    st.tuples(st.just("claim"), NUMBER, NUMBER),
    st.tuples(st.just("judge"), NUMBER, NUMBER),
    st.tuples(st.just("judge again"), NUMBER, NUMBER),
    st.tuples(st.just("tariff"), NUMBER, NUMBER),
    st.tuples(st.just("terms"), NUMBER, NUMBER),
    st.tuples(st.just("wait"), NUMBER, NUMBER),
    st.tuples(st.just("end"), NUMBER, st.just(0)),
)
STORY = settings(derandomize=True, max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def deployment(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with deployed(tmp_path_factory.mktemp("credits"), postgres, cells=1) as file:
        yield load_settings(file)


class Story:
    """A cell in which cars work, let go, deliver wrong energies, and auditors come once, twice or never."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        cell.enrol(*CARS)
        self.key = cell.open(dict.fromkeys(SHARDS, ROWS))
        self.tasks: list[AuditTask] = []
        self.judged: list[AuditTask] = []

    def tell(self, action: str, one: int, other: int) -> None:  # noqa: C901 # one case an action
        """Let something happen; what is not possible now does not."""
        ledger = self.cell.ledger
        match action:
            case "work":
                self.work(CARS[one], SHARDS[other], parts=1 + (one + other) % 2)
            case "claim":
                self.tasks += ledger.to_audit(1 + one)
            case "judge" if self.tasks:
                task = self.tasks.pop()
                self.judged.append(task)
                ledger.record_audit(judge(task, wrong=frozenset({CARS[one]} if other == 0 else set())))
            case "judge again" if self.judged:
                ledger.record_audit(judge(self.judged[-1], wrong=frozenset({CARS[one]} if other else set())))
            case "tariff":
                ledger.set_tariff(CarId(CARS[one]), 333_333.3 * other)
            case "terms":
                newest = ledger.terms()[-1]
                ledger.add_terms(replace(newest, from_at=self.cell.now, micro_per_unit=77.7 * (one + 1)))
            case "wait":
                self.cell.serve(minutes=11)
            case "end" if one == 2:
                ledger.give_up(self.key, "the deadline")

    def work(self, car: int, shard: int, *, parts: int) -> None:
        lease = self.cell.ask(car, shard)
        if not isinstance(lease, Granted):
            return
        for start in range(lease.start, min(lease.start + parts, lease.row_groups)):
            delivery = part(lease, start, start + 1, ROWS[start])
            self.cell.deliver(replace(delivery, energy_wh=0.1 * car**9))
        self.cell.let_go(lease)


def check(cell: Cell, deployment: Settings) -> None:
    balances = cell.ledger.balances()
    assert sum(balances.values()) == 0
    settled = [one.lease for one in cell.ledger.night_book(EVENING.date())[1] if one.step is Step.SETTLE]
    assert len(settled) == len(set(settled))
    [book] = recompute_credits(deployment).values()
    assert book.differences == ()
    assert dict(book.balances) == balances


@STORY
@given(story=st.lists(ACTIONS, max_size=40))
def test_books_sum_to_zero_pay_nobody_twice_and_follow_from_the_leases_after_any_story(
    deployment: Settings, story: list[tuple[str, int, int]]
) -> None:
    url = deployment.cells[0].ledger_url
    wipe(url)
    with open_cell(url) as cell:
        told = Story(cell)
        for action in story:
            told.tell(*action)
        check(cell, deployment)
    assert_sound(url)


def finished(deployment: Settings) -> None:
    """A night in which two cars earned and one did not."""
    wipe(deployment.cells[0].ledger_url)
    with open_cell(deployment.cells[0].ledger_url) as cell:
        story = Story(cell)
        for car, shard in zip(CARS, SHARDS, strict=True):
            story.work(car, shard, parts=2)
        for task in cell.ledger.to_audit(3):
            cell.ledger.record_audit(judge(task, wrong=frozenset({3} & {part.car_id for part in task.parts})))
        cell.ledger.give_up(story.key, "the deadline")
        publish(cell.ledger, story.key)


def test_an_archived_night_is_recomputed_from_its_files(deployment: Settings) -> None:
    finished(deployment)
    [before] = recompute_credits(deployment).values()
    assert archive_step(deployment, now=EVENING + timedelta(days=60))
    [after] = recompute_credits(deployment).values()
    assert after == before
    assert (after.leases, after.entries, after.differences) == (3, 6, ())


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from fleetbatch.cli import main; main()", *words]
    env = {**os.environ, "FLEETBATCH_SETTINGS": str(home), "COLUMNS": "160"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_commands_show_what_a_car_earned_and_find_a_forged_entry(tmp_path: Path, postgres: Postgres) -> None:
    with deployed(tmp_path, postgres, cells=1) as file:
        deployment = load_settings(file)
        finished(deployment)

        told = json.loads(run(file, "owner", "statement", f"{1:016x}", "--json").stdout)
        assert [night["paid_micro"] for night in told["nights"]] == [told["owner_paid_micro"]]
        assert told["owner_paid_micro"] > 0
        assert [record["purpose"] for record in told["consents"]] == ["compute"]
        assert "signs (open)" in run(file, "owner", "statement", f"{1:016x}").stdout
        assert "no cell knows the car" in run(file, "owner", "statement", "f").stderr
        assert "sixteen hex digits" in run(file, "owner", "statement", "mine").stderr

        page = tmp_path / "statement.html"
        assert run(file, "owner", "statement", f"{1:016x}", "--page", str(page)).returncode == 0
        assert f"{told['owner_paid_micro'] / 1e6:.6f}" in page.read_text()
        assert "signs" in page.read_text()
        table = tmp_path / "statement.parquet"
        assert run(file, "owner", "statement", f"{1:016x}", "--parquet", str(table)).returncode == 0
        rows = conform(pq.read_table(table), "statement").to_pylist()
        assert rows == [{"car_id": f"{1:016x}", **night} for night in told["nights"]]
        nowhere = run(file, "owner", "statement", f"{1:016x}", "--parquet", str(tmp_path / "no" / "folder"))
        assert (nowhere.returncode, "cannot write" in nowhere.stderr) == (2, True)

        right = run(file, "credits", "recompute")
        assert (right.returncode, "0 differences" in right.stdout) == (0, True)

        with psycopg.connect(deployment.cells[0].ledger_url) as owner:
            owner.execute("SET session_replication_role = replica")
            owner.execute("UPDATE fleetbatch.book SET work_micro = work_micro + 1 WHERE step = 'settle' AND car_id = 1")

        assert "0.250000 credits for a kWh" in run(file, "owner", "tariff", f"{1:016x}", "0.25").stdout
        assert "no cell knows the car" in run(file, "owner", "tariff", "f", "0.25").stderr
        [before] = json.loads(run(file, "credits", "terms", "--json").stdout).values()
        [after] = json.loads(run(file, "credits", "terms", "--per-unit", "0.5", "--json").stdout).values()
        changed = {name: value for name, value in after.items() if value != before[name]}
        assert (changed.pop("from_at") > before["from_at"], changed) == (True, {"micro_per_unit": 500_000.0})

        wrong = run(file, "credits", "recompute")
        assert wrong.returncode == 2
        assert "the book says work 701" in wrong.stderr
