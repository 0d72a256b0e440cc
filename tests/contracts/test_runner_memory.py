"""A runner's processes together keep within the memory that the car gives them."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from parked_cars import ParkedCell, parked_cell, until
from PIL import Image

from fleetbatch.local.postgres import Postgres, fresh_database
from fleetbatch.orders import model_file
from fleetbatch.units import MIB

SIGNS = model_file("road_signs")


@pytest.fixture
def cell(tmp_path: Path, postgres: Postgres) -> Iterator[ParkedCell]:
    with fresh_database(postgres) as url, parked_cell(tmp_path, url) as cell:
        cell.start_gateway(lease=6.0, beat_every=0.5, part_every=0.2, poll_every=0.3, sweep_every=0.5)
        yield cell


def test_a_car_keeps_the_memory_that_it_was_given(cell: ParkedCell) -> None:
    car = cell.park()
    pictures = cell.home / "huge"
    pictures.mkdir()
    noise = np.random.default_rng(5).integers(0, 255, (300, 400, 3), np.uint8)
    Image.fromarray(noise).resize((5000, 4000)).save(pictures / "0.jpg", quality=90, progressive=True)
    for number in range(1, 5):
        shutil.copy(pictures / "0.jpg", pictures / f"{number}.jpg")
    key = cell.order("huge", model=SIGNS, source=str(pictures))
    cell.offer(key, car)
    car.start("--threads=8", "--memory-mib=1000")
    assert car.process is not None
    family, peak = psutil.Process(car.process.pid), 0
    while cell.done_through(key) != -1:
        peak = max(peak, sum(rss(one) for one in [family, *family.children(recursive=True)]))
        time.sleep(0.05)
    assert len(car.workers()) == 2  # what the memory is enough for
    assert 100 * MIB < peak < 1000 * MIB
    tight = cell.order("tight", model=SIGNS, source=str(pictures), options={"again": "yes"})
    assert car.stop() == 0
    small = cell.park()
    cell.offer(tight, small)
    small.start("--threads=1", "--memory-mib=450")
    until(lambda: cell.ledger.night_stats(tight).released == 1, what="the release")
    assert "its largest row 240000000 bytes" in small.events("work failed")[0]["detail"]
    assert small.stop() == 0


def rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
