"""Processes are killed at named points while nights go on: nothing is lost, nothing doubled, nothing paid twice."""

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import psycopg
import pytest
from cell_processes import CellProcesses, cell_processes, published_rows
from faults.kills.points import POINTS, Point, Scene, kill
from ledger_sound import assert_sound
from proofs import Count

from fleetbatch.errors import RejectedError
from fleetbatch.publish.reading import published_files
from fleetbatch.store import open_store
from fleetbatch.units import Night, OrderName

KILLS = int(os.environ.get("FLEETBATCH_KILLS", "150"))
"""Fewer for a look; with 48 and more every point must have been met."""
PICTURES = 48
CARS = 2
GATEWAYS = 2
GOES_ON_S = 20.0
"""How long work may take to go on after a kill before the next one comes all the same."""
LOOK_S = 0.02
PAID_TWICE = """
    SELECT count(*) FROM (
        SELECT s.shard_id FROM fleetbatch.shards s
        JOIN fleetbatch.leases l ON (l.night, l.shard_id) = (s.night, s.shard_id) AND l.fence > s.void_fence
            AND l.credit = 'credited'
        GROUP BY s.night, s.shard_id, s.rows HAVING sum(l.delivered_rows) > s.rows
    ) twice
"""


def night_of(number: int) -> str:
    return f"{date(2026, 1, 1) + timedelta(days=number)}"


class Nights(threading.Thread):
    """Walks night after night until it is told to end; an error of its own ends it, and is kept."""

    def __init__(self, cell: CellProcesses) -> None:
        super().__init__()
        self.cell, self.done, self.over, self.wrong = cell, 0, threading.Event(), ""

    def run(self) -> None:
        try:
            while not self.over.is_set():
                self.cell.run_night(night_of(self.done))
                self.done += 1
        except Exception as error:  # noqa: BLE001 # the test says it
            self.wrong = repr(error)


def kill_on(cell: CellProcesses, nights: Nights) -> Counter[str]:
    """Kill KILLS times, whatever point comes that was met least."""
    met: Counter[str] = Counter({point.name: 0 for point in POINTS})
    scene = Scene(cell=cell)
    while met.total() < KILLS and not nights.wrong:
        time.sleep(LOOK_S)
        brief = [point for point in POINTS if point.brief]
        point = kill_at_one(brief, scene, met) or (kill_at_one(POINTS, scene, met) if scene.look() else None)
        if point is not None:
            met[point.name] += 1
            print(f"kill {met.total()}: {point.name}; night {nights.done}", flush=True)
            wait_until_work_goes_on(scene, nights)
    return met


def kill_at_one(points: Sequence[Point], scene: Scene, met: Counter[str]) -> Point | None:
    """Kill at the point that was met least, of those that are here now and were not met much oftener than others."""
    due = [point for point in points if met[point.name] <= min(met.values()) + 2]
    for point in sorted(due, key=lambda point: met[point.name]):
        if point.when(scene) and kill(point, scene):
            return point
    return None


def wait_until_work_goes_on(scene: Scene, nights: Nights) -> None:
    """Wait until something was granted, delivered or judged, or a night ended."""
    before, give_up_at = scene.done(), time.monotonic() + GOES_ON_S
    ended = nights.done
    while time.monotonic() < give_up_at and (scene.done() <= before and nights.done == ended):
        scene.look()
        time.sleep(LOOK_S)


def count_rows(cell: CellProcesses, nights: int) -> tuple[int, int]:
    """Return how many rows of all nights are lost and how many doubled."""
    store = open_store(cell.settings.store, deployment_key=cell.settings.deployment_key)
    lost = doubled = 0
    for number in range(nights):
        try:
            files = published_files(store, OrderName("colours"), Night(night_of(number)))
        except RejectedError:
            files = []
        ids = published_rows(files, {})
        lost += PICTURES - len(set(ids))
        doubled += len(ids) - len(set(ids))
    return lost, doubled


@pytest.mark.prove
@pytest.mark.timeout(2400)
def test_processes_killed_at_named_points_lose_double_and_overpay_nothing(tmp_path: Path, count: Count) -> None:
    started = time.monotonic()
    with cell_processes(tmp_path, cars=CARS, pictures=PICTURES, gateways=GATEWAYS) as cell:
        nights = Nights(cell)
        nights.start()
        try:
            met = kill_on(cell, nights)
        finally:
            nights.over.set()
            nights.join()
        lost, doubled = count_rows(cell, nights.done)
        with psycopg.connect(cell.ledger_url) as connection:
            [paid_twice] = connection.execute(PAID_TWICE).fetchone() or (0,)
        count(
            kills=met.total(),
            lost=lost,
            doubled=doubled,
            paid_twice=paid_twice,
            points=len(+met),
            gateways=GATEWAYS,
            nights=nights.done,
        )
        print(f"{nights.done} nights of {PICTURES} rows in {time.monotonic() - started:.0f} s; {dict(met)}")
        assert not nights.wrong, nights.wrong
        assert_sound(cell.ledger_url)
    assert (met.total(), lost, doubled, paid_twice) == (KILLS, 0, 0, 0)
    assert 4 * len(POINTS) > KILLS or min(met.values()) > 0
