"""Twelve points at which a process is killed, and how each is seen from outside: in the ledger, the store, /proc."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from cell_processes import CellProcesses

_COUNTS = """
    SELECT (SELECT count(*) FROM fleetbatch.open_leases WHERE car_id <> 0) AS leases,
           (SELECT coalesce(sum(fence), 0) FROM fleetbatch.shards) AS grants,
           (SELECT count(*) FROM fleetbatch.parts) AS parts,
           (SELECT max(round_id) FROM fleetbatch.rounds) AS rounds,
           (SELECT count(*) FROM fleetbatch.audits WHERE claimed_until > now()) AS claims,
           (SELECT count(*) FROM fleetbatch.book WHERE step = 'settle') AS verdicts,
           (SELECT min(pid) FROM pg_stat_activity WHERE usename = 'fleetbatch_gateway') AS backend
"""
Counts = dict[str, Any]


@dataclass(kw_only=True)
class Scene:
    """What was just seen, and what was seen before that."""

    cell: CellProcesses
    now: Counts = field(default_factory=dict)
    before: Counts = field(default_factory=dict)
    files: int = 0
    files_before: int = 0
    turns: int = 0
    """How often it was a gateway's turn."""

    def look(self) -> bool:
        """Look again; False when the database does not answer."""
        self.before, self.files_before = self.now, self.files
        with suppress(psycopg.Error), psycopg.connect(self.cell.server.database_url("cell"), connect_timeout=5) as db:
            cursor = db.cursor(row_factory=psycopg.rows.dict_row)
            found = cursor.execute(_COUNTS).fetchone()
            self.now = dict(found or {})
            self.files = sum(1 for _ in self.cell.home.glob("store/nights/*/*/*/parts/**/*.parquet"))
            return bool(self.before)
        return False

    def done(self) -> int:
        """Return how much was granted, delivered and judged so far."""
        if not self.now:
            return 0
        return int(self.now["grants"] + self.now["parts"] + self.now["verdicts"])

    def more(self, name: str) -> bool:
        """Say whether something was added since the last look."""
        return (self.now[name] or 0) > (self.before[name] or 0)

    def step(self, *names: str) -> bool:
        """Say whether one of these steps runs."""
        running = self.cell.step
        return running is not None and running.name in names

    def staged(self) -> bool:
        """Say whether the merge that runs has begun to write."""
        running = self.cell.step
        if running is None or running.name != "merge":
            return False
        staging = self.cell.home / "store" / "nights" / running.key / "staging"
        with suppress(FileNotFoundError):  # renamed just now
            return any(file.stat().st_mtime >= running.started for file in staging.glob("*"))
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Whom to kill, and when."""

    name: str
    when: Callable[[Scene], bool]
    whom: Callable[[Scene], int]
    brief: bool = False
    """It is over soon, and seen without the database: looked for first."""


def _service(name: str) -> Callable[[Scene], int]:
    def pid(scene: Scene) -> int:
        child = scene.cell.kept[name].child
        return child.process.pid if child is not None and child.alive() else 0

    return pid


def _gateway(scene: Scene) -> int:
    """Return one gateway after the other."""
    names = scene.cell.gateways()
    scene.turns += 1
    return _service(names[scene.turns % len(names)])(scene)


def _step(scene: Scene) -> int:
    return scene.cell.step.process.pid if scene.cell.step is not None else 0


def _car_at_work(scene: Scene) -> int:
    query = "SELECT car_id FROM fleetbatch.open_leases WHERE car_id <> 0 ORDER BY beat_at DESC LIMIT 1"
    with psycopg.connect(scene.cell.server.database_url("cell")) as db:
        row = db.execute(query).fetchone()
    names = [car.car.name for car in scene.cell.cars if row is not None and car.car_id == row[0]]
    return _service(names[0])(scene) if names else 0


POINTS = (
    Point(name="gateway after a grant", when=lambda s: s.more("grants"), whom=_gateway),
    Point(
        name="gateway between upload and confirmation",
        when=lambda s: s.files > s.now["parts"] and s.files > s.files_before,
        whom=_gateway,
    ),
    Point(name="gateway after an acknowledged part", when=lambda s: s.more("parts"), whom=_gateway),
    Point(name="dispatcher after a round", when=lambda s: s.more("rounds"), whom=_service("dispatcher")),
    Point(name="auditor with a claim", when=lambda s: s.now["claims"] > 0, whom=_service("auditor")),
    Point(name="auditor after a verdict", when=lambda s: s.more("verdicts"), whom=_service("auditor")),
    Point(name="merge begins", when=lambda s: s.step("merge") and not s.staged(), whom=_step, brief=True),
    Point(name="merge writes", when=lambda s: s.staged(), whom=_step, brief=True),
    Point(name="publishing", when=lambda s: s.step("publish"), whom=_step, brief=True),
    Point(name="database under leases", when=lambda s: s.now["leases"] > 0, whom=lambda s: s.cell.postmaster()),
    Point(
        name="database's process of the gateway",
        when=lambda s: s.now["leases"] > 0 and s.now["backend"] is not None,
        whom=lambda s: int(s.now["backend"]),
    ),
    Point(name="car at work", when=lambda s: s.now["leases"] > 0, whom=_car_at_work),
)


def kill(point: Point, scene: Scene) -> bool:
    """Kill at this point; False when whom it names is gone already."""
    pid = point.whom(scene)
    if not pid:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
