"""Publishing is stopped exactly between two of its steps, and killed: the next publishes the night once, and whole.

Nothing of the product waits for a test. Between closing and commit it reads the verdict, which is a pipe here that
nobody writes to; between commit and mark it updates shards, whose table somebody holds.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from deltalake import DeltaTable
from night import Night, night_in
from parked_cars import until

from fleetbatch import layout
from fleetbatch.cli.status import deployment_status, status_lines
from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.ledger.messages import OrderState
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.local.postgres import Postgres
from fleetbatch.merge import load_merged
from fleetbatch.publish import Published
from fleetbatch.steps.closing import close_order, publish_step
from fleetbatch.steps.operating import operate_order

ROWS = 24


@pytest.fixture
def night(tmp_path: Path, postgres: Postgres) -> Iterator[Night]:
    """A night that is merged and passed its checks."""
    with night_in(tmp_path, postgres) as night:
        night.park("car-1")
        night.begin(rows=ROWS)
        assert night.merge().rows_out == ROWS
        night.pass_checks()
        yield night


@contextmanager
def publishing(night: Night) -> Iterator[Callable[[], None]]:
    """Run the publish task as its DAG does, and give what kills it."""
    words = {"settings": str(night.home / "settings.toml"), "now": night.now.isoformat(), "key": str(night.key)}
    command = [sys.executable, "-m", "fleetbatch.steps", "publish", json.dumps(words), str(night.home / "answer.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:

        def kill() -> None:
            child.kill()
            child.wait()
            assert not (night.home / "answer.json").exists()

        try:
            yield kill
        finally:
            child.kill()


def kill_between_closing_and_commit(night: Night) -> None:
    """Kill the task as it begins to read the verdict: the order is closed, nothing is committed."""
    verdict = night.home / "store" / layout.verdict(night.key)
    kept = verdict.with_name("kept")
    verdict.rename(kept)
    os.mkfifo(verdict)
    with publishing(night) as kill:
        until(lambda: is_closed(night), seconds=60, what="the closing")
        kill()
    kept.replace(verdict)


def kill_between_commit_and_mark(night: Night) -> None:
    """Kill the task as it marks the shards: the table is committed, the ledger does not know it."""
    url = night.settings.cells[0].ledger_url
    with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as other:
        holder.execute("LOCK TABLE fleetbatch.shards IN SHARE MODE")
        with publishing(night) as kill:
            marks = until(lambda: commits(night) and waiting(other), seconds=60, what="the mark after the commit")
            kill()
        for pid in marks:  # or the server would go on with what a dead process had asked for
            assert other.execute("SELECT pg_terminate_backend(%s, 10000)", [pid]).fetchone() == (True,)


def waiting(other: psycopg.Connection[Any]) -> list[int]:
    """Return who waits for a lock in this database."""
    found = other.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return [int(pid) for (pid,) in found]


def is_closed(night: Night) -> bool:
    row = night.cells["eu-1"].ledger.order(night.key)
    return row is not None and row.state is OrderState.CLOSED and row.published_at is None


def commits(night: Night) -> list[str]:
    """Return the commits of the order's table that have this merge of the night."""
    token = load_merged(night.store, night.key).token
    logs = [key for key in night.store.keys(f"{layout.table(night.key.order)}/_delta_log/") if key.endswith(".json")]
    return [key for key in logs if token in night.store.read(key).decode()]


def published_rows(night: Night) -> int:
    """Return how many rows readers see."""
    return int(DeltaTable(night.store.uri(layout.table(night.key.order))).to_pyarrow_dataset().count_rows())


def told(night: Night) -> tuple[list[str], str]:
    """Return what `fleetbatch status` says of orders that are being published, as JSON and to people."""
    status = deployment_status(night.home / "settings.toml")
    cell: dict[str, Any] = status["cells"]["eu-1"]
    return cell["publishing"], "\n".join(status_lines(cell))


def publish(night: Night) -> Published:
    return publish_step(night.settings, night.key, now=night.now)


def recall(night: Night) -> None:
    operate_order(night.settings, "recall", night.key.order, night.key.night, reason="bad labels")


@pytest.mark.parametrize(
    ("stop", "committed"), [(kill_between_closing_and_commit, 0), (kill_between_commit_and_mark, 1)]
)
def test_a_publishing_that_was_killed_is_seen_and_is_done_once_by_the_next_and_recalled_by_nobody(
    night: Night, stop: Callable[[Night], None], committed: int
) -> None:
    stop(night)
    assert (is_closed(night), len(commits(night))) == (True, committed)
    keys, said = told(night)
    assert keys == [str(night.key)]
    assert f"order {night.key} is being published" in said
    assert "run its publish task again" in said
    with pytest.raises(RejectedError, match=r"is being published, for good.*run its publish task again"):
        recall(night)
    assert night.progress().counts.valid == 3, "nothing is lost by the recall"
    first, second = publish(night), publish(night)
    assert (first.again, second.again, first.version) == (bool(committed), True, second.version)
    assert (len(commits(night)), published_rows(night)) == (1, ROWS)
    assert night.progress().counts.done == 3
    assert told(night)[0] == []


class RecalledMeanwhile(PostgresLedger):
    """A cell that hears of a recall while the cell before it is being closed."""

    def close_order(self, key: Any, version: str) -> bool:
        self.recall(key, "bad labels")
        return super().close_order(key, version)


def test_a_recall_that_comes_between_the_closing_of_two_cells_leaves_an_order_that_is_merged_again(
    tmp_path: Path, postgres: Postgres
) -> None:
    with night_in(tmp_path, postgres, cells=2) as night:
        for name in night.cells:
            night.park(f"car of {name}", cell=name)
        night.pass_time(minutes=5)
        night.begin(rows=ROWS)
        first, second = night.cells["eu-1"].ledger, night.settings.cells[1].ledger_url
        first.cancel(night.key, "too hot")  # it has nothing to take back: its recall changes no token
        merged = night.merge()
        assert 0 < merged.rows_out < ROWS
        night.pass_checks()
        first.recall(night.key, "bad labels")  # goes from cell to cell in the order in which they are closed
        with (
            RecalledMeanwhile.open(second) as late,
            pytest.raises(TransientError, match="something is done to"),
        ):
            close_order((first, late), night.key, merged.token)
        assert (is_closed(night), commits(night), told(night)[0]) == (True, [], [str(night.key)])
        with pytest.raises(RejectedError, match="is not what was merged any more, a recall took back what it had made"):
            publish(night)
        assert night.merge().missing_rows == ROWS
        night.pass_checks()
        assert not publish(night).again
        assert (len(commits(night)), is_closed(night)) == (1, False)
