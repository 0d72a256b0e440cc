"""`fleetbatch order pause|resume|cancel|recall` on a deployment with a night under way."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from deployments import deployed
from ledger_nights import Cell, frozen_order, open_cell, part

from fleetbatch.ledger.messages import Granted, ShardCounts
from fleetbatch.local.postgres import Postgres
from fleetbatch.settings import load_settings

NIGHT = "2026-11-22"


@dataclass(slots=True, kw_only=True)
class Scene:
    """A night of four shards: one valid, one held by car 1, two free."""

    file: Path
    cell: Cell
    lease: Granted

    def order(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from fleetbatch.cli import main; main()", "order", *words]
        env = {**os.environ, "FLEETBATCH_SETTINGS": str(self.file), "COLUMNS": "200"}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    def counts(self) -> ShardCounts:
        return self.cell.ledger.counts(frozen_order().key)


@pytest.fixture
def scene(tmp_path: Path, postgres: Postgres) -> Iterator[Scene]:
    with deployed(tmp_path, postgres, cells=1) as file, open_cell(load_settings(file).cells[0].ledger_url) as cell:
        cell.enrol(1, 2)
        cell.open({5: (10,), 6: (10, 10), 7: (10,), 8: (10,)})
        cell.deliver(part(cell.take(0, 5), 0, 1, 10))
        yield Scene(file=file, cell=cell, lease=cell.take(1, 6))


def test_a_paused_night_gives_out_nothing_until_it_is_resumed(scene: Scene) -> None:
    assert "is paused: 1 of 4 shards are valid" in scene.order("pause", "signs", NIGHT).stdout
    assert not isinstance(scene.cell.ask(2, 7), Granted)
    assert scene.cell.beat(scene.lease).go_on
    assert "is open again" in scene.order("resume", "signs", NIGHT).stdout
    assert isinstance(scene.cell.ask(2, 7), Granted)


def test_a_cancelled_night_keeps_what_is_valid_and_cars_stop_at_their_next_beat(scene: Scene) -> None:
    told = json.loads(scene.order("cancel", "signs", NIGHT, "--why", "wrong folder", "--json").stdout)
    assert (told["valid"], told["missing"], told["ready"] + told["out"]) == (1, 3, 0)
    assert scene.cell.beat(scene.lease).reason == "the lease is revoked: the order is cancelled: wrong folder"
    assert scene.counts().finished, "the morning has nothing to wait for"
    again = scene.order("resume", "signs", NIGHT)
    assert (again.returncode, "is cancelled, for good" in again.stderr) == (2, True)


def test_nothing_of_a_recalled_night_is_left_to_publish(scene: Scene) -> None:
    assert scene.order("recall", "signs", NIGHT, "--why", "bad labels").returncode == 0
    assert scene.counts() == ShardCounts(missing=4)
    reasons = scene.cell.ledger.missing_shards(frozen_order().key)["reason"].to_pylist()
    assert set(reasons) == {"the order is recalled: bad labels"}


def test_an_order_or_a_night_that_is_not_known_is_named(scene: Scene) -> None:
    for words, said in (
        (("pause", "sings", NIGHT), "no cell knows an order 'sings'"),
        (("pause", "signs", "tonight"), "'tonight' is not a night"),
    ):
        refused = scene.order(*words)
        assert (refused.returncode, said in refused.stderr) == (2, True)
