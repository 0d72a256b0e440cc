"""How fast a class is follows from the same words, added up or not, and from those of a bounded number of cars."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from ledger_nights import EVENING, Cell, frozen_order, judge, open_cell, part, request

from fleetbatch.ledger.messages import Granted, LedgerDials
from fleetbatch.units import CLOUD_CLASS

ROWS = 10
CARS = range(1, 41)


def drive(cell: Cell, car: int, busy_s: float, *, shard: int | None = None, hardware_class: str = "orin") -> None:
    """One car computes a shard, that of its own number if none is named, and holds the lease for five minutes."""
    asked = replace(request(car, shard or car), hardware_class=hardware_class)
    [lease] = cell.ledger.grant([asked])
    assert isinstance(lease, Granted), lease
    cell.pass_time(minutes=5)
    cell.deliver(replace(part(lease, 0, 1, ROWS), busy_s=busy_s))


def measured(cell: Cell) -> list[dict[str, Any]]:
    return cell.ledger.rates().to_pylist()


def voices(url: str) -> list[tuple[int, int]]:
    """Return the cars that are added up, by day, and what they delivered."""
    with psycopg.connect(url) as owner:
        return owner.execute("SELECT car_id, rows FROM fleetbatch.voices ORDER BY day, car_id").fetchall()


@pytest.fixture
def few(cell_url: str) -> Iterator[Cell]:
    """A cell in which five cars speak for a class, and that adds up an hour at a time."""
    dials = LedgerDials(voices=5, rates_batch=timedelta(hours=1))
    with open_cell(cell_url, dials) as cell:
        cell.enrol(*CARS)
        cell.open(dict.fromkeys(CARS, (ROWS,)))
        yield cell


def test_what_is_added_up_says_the_same_as_the_leases_did(cell: Cell, cell_url: str) -> None:
    cell.enrol(1, 2, 3)
    cell.open(dict.fromkeys((1, 2, 3), (ROWS,)))
    for car, busy_s in ((1, 5.0), (2, 7.0), (3, 1e12)):
        drive(cell, car, busy_s)
    before = measured(cell)
    assert before[0] == {"workload": "image", "hardware_class": "orin", "provider": "CPUExecutionProvider",
                         "cars": 3, "rows": 30, "busy_s": 21.0}  # fmt: skip
    cell.pass_time(minutes=2)
    cell.ledger.add_up_rates()
    assert voices(cell_url) == [(1, 10), (2, 10)]  # who ended just now may not have committed
    assert measured(cell) == before
    cell.pass_time(minutes=6)
    cell.ledger.add_up_rates()
    cell.ledger.add_up_rates()
    assert voices(cell_url) == [(1, 10), (2, 10), (3, 10)]
    assert measured(cell) == before


def test_a_car_has_one_voice_over_all_its_days(cell: Cell) -> None:
    cell.enrol(1, 2, 3)
    for day in range(3):
        order = replace(frozen_order(f"2026-11-{22 + day}"), deadline_at=cell.now + timedelta(hours=10))
        cell.open({10 * day + car: (ROWS,) for car in (1, 2, 3)}, order)
        for car in (1, 2, 3) if day == 0 else (1,):
            drive(cell, car, 1.0 + day if car == 1 else 50.0, shard=10 * day + car)
        cell.pass_time(days=1)
        cell.ledger.add_up_rates()
    [rate] = measured(cell)
    assert (rate["cars"], rate["rows"], rate["busy_s"]) == (3, 50, 250.0)


def test_a_full_class_is_asked_by_as_many_cars_as_speak_and_tells_the_rows_of_all(few: Cell, cell_url: str) -> None:
    for car in CARS:
        drive(few, car, 5.0)
    untold = measured(few)
    few.pass_time(minutes=6)
    few.ledger.add_up_rates()
    assert measured(few) == untold
    [rate] = untold
    assert rate["cars"] == 5
    assert rate["busy_s"] == pytest.approx(rate["rows"] / 2, rel=0.01)
    assert len(voices(cell_url)) == 6  # one more says how large the share of the five is
    drawn = {car for car, _ in voices(cell_url)}
    with psycopg.connect(cell_url) as owner:
        lots = owner.execute("SELECT n FROM generate_series(1, 40) n ORDER BY fleetbatch.lot(n,"
                             " (SELECT seed FROM fleetbatch.rates_added)) LIMIT 6")  # fmt: skip
        assert drawn == {car for (car,) in lots.fetchall()}


def test_of_what_is_added_up_too_the_struck_and_who_claims_to_be_a_trusted_machine_have_no_voice(cell: Cell) -> None:
    cell.enrol(1, 2, 3)
    cell.open(dict.fromkeys((1, 2, 3), (ROWS,)))
    for car, hardware_class in ((1, "orin"), (2, "orin"), (3, CLOUD_CLASS)):
        drive(cell, car, 100.0 * car, hardware_class=hardware_class)
    cell.pass_time(minutes=6)
    cell.ledger.add_up_rates()
    for task in cell.ledger.to_audit(3):
        cell.ledger.record_audit(judge(task, wrong=frozenset({1})) if task.shard_id == 1 else judge(task))
    assert [(rate["cars"], rate["busy_s"]) for rate in measured(cell)] == [(1, 200.0)]


def test_a_week_later_nothing_is_left_of_what_was_said(cell: Cell, cell_url: str) -> None:
    cell.enrol(1)
    cell.open({1: (ROWS,)})
    drive(cell, 1, 5.0)
    cell.pass_time(minutes=6)
    cell.ledger.add_up_rates()
    cell.pass_time(days=8)
    cell.ledger.add_up_rates()
    assert (measured(cell), voices(cell_url)) == ([], [])


def test_after_a_clock_was_ahead_and_is_set_right_all_is_added_up_anew(few: Cell, cell_url: str) -> None:
    drive(few, 1, 5.0)
    few.pass_time(days=6)
    few.ledger.add_up_rates()
    few.now = EVENING + timedelta(minutes=20)
    few.pass_time(minutes=0)
    drive(few, 2, 5.0)
    few.pass_time(minutes=6)
    few.ledger.add_up_rates()
    few.ledger.add_up_rates()
    assert voices(cell_url) == [(1, 10), (2, 10)]
    assert measured(few)[0]["rows"] == 20


def test_a_dispatcher_that_was_away_for_days_adds_up_a_bounded_part_at_a_time(cell_url: str) -> None:
    dials = LedgerDials(rates_batch=timedelta(hours=1), rates_batches=3)
    with open_cell(cell_url, dials) as cell:
        cell.enrol(1)
        cell.open({1: (ROWS,)})
        cell.pass_time(hours=6)
        drive(cell, 1, 5.0)
        cell.pass_time(days=1)
        for added in ([], [], [(1, ROWS)]):
            cell.ledger.add_up_rates()
            assert voices(cell_url) == added
            assert measured(cell)[0]["rows"] == ROWS


def test_a_cell_that_had_no_order_yet_has_nothing_to_catch_up_with(cell_url: str) -> None:
    with open_cell(cell_url, LedgerDials(rates_batch=timedelta(hours=1), rates_batches=1)) as cell:
        cell.ledger.add_up_rates()
        cell.enrol(1)
        cell.open({1: (ROWS,)})
        drive(cell, 1, 5.0)
        cell.pass_time(minutes=6)
        cell.ledger.add_up_rates()
        assert voices(cell_url) == [(1, ROWS)]


def test_a_call_that_has_read_its_fill_of_leases_leaves_the_rest_to_the_next(cell_url: str) -> None:
    with open_cell(cell_url, LedgerDials(rates_batch=timedelta(hours=1), rates_leases=2)) as cell:
        cell.enrol(1, 2, 3)
        cell.open(dict.fromkeys((1, 2, 3), (ROWS,)))
        for car in (1, 2, 3):
            drive(cell, car, 5.0)
            cell.pass_time(hours=2)
        for cars in ([1, 2], [1, 2, 3]):
            cell.ledger.add_up_rates()
            assert [car for car, _ in voices(cell_url)] == cars
            assert measured(cell)[0]["rows"] == 3 * ROWS
