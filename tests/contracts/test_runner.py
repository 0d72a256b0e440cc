"""A runner's process keeps its side of the protocol against the real gateway, ledger and store."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from parked_cars import ROW_GROUP_ROWS, ParkedCell, alive, parked_cell, until

from fleetbatch.orders import model_file

MODEL = model_file("road_signs")


@pytest.fixture
def cell(tmp_path: Path, database_url: str) -> Iterator[ParkedCell]:
    with parked_cell(tmp_path, database_url) as cell:
        yield cell


def test_a_parked_car_computes_a_shard_in_parts_and_every_row_arrives_once(cell: ParkedCell) -> None:
    key = cell.order(rows=60, model=MODEL)
    cell.start_gateway(part_every=0.05, poll_every=0.2)
    car = cell.park()
    cell.offer(car)
    car.start()
    until(lambda: cell.ledger.counts(key).returned == 1, what="the shard's return")
    answers = cell.answers(key)
    assert len(answers) == len({row["item_id"] for row in answers}) == 60
    assert all(row["error"] is None and len(row["labels"]) == 5 for row in answers)
    assert car.stop() == 0
