"""What a car says of its time and energy is kept as it was signed, and counts up to what can be."""

from dataclasses import replace

import pytest
from ledger_nights import Cell, judge, part, request

from fleetbatch.ledger.messages import Granted
from fleetbatch.ledger.orders import CAR_POWER_W_MAX
from fleetbatch.nouns import OrderKey
from fleetbatch.units import CLOUD_CLASS

HOUR_WH = CAR_POWER_W_MAX
"""Of a lease that was held for an hour."""


def held(cell: Cell, *, minutes: int) -> tuple[OrderKey, Granted]:
    """An order of one shard of two row groups, and the lease that a car has held it by for so long."""
    cell.enrol(1)
    key = cell.open({7: (10, 10)})
    lease = cell.take(1, 7)
    cell.pass_time(minutes=minutes)
    return key, lease


def audited(cell: Cell) -> None:
    """Find nothing wrong with the one shard that waits for its audit."""
    [task] = cell.ledger.to_audit(1)
    cell.ledger.record_audit(judge(task))


def claimed(cell: Cell, lease: Granted, said: float, *, start: int = 0) -> None:
    cell.deliver(replace(part(lease, start, start + 1, 10), busy_s=said, energy_wh=said))


def rate(cell: Cell) -> dict[str, float]:
    [row] = cell.ledger.rates().to_pylist()
    return {name: row[name] for name in ("cars", "rows", "busy_s")}


def test_a_car_was_busy_no_longer_than_it_held_its_lease(cell: Cell) -> None:
    key, lease = held(cell, minutes=1)
    claimed(cell, lease, 1e12)
    assert rate(cell)["busy_s"] == 60.0
    cell.pass_time(minutes=1)
    claimed(cell, lease, 1e12, start=1)
    cell.pass_time(minutes=30)
    assert rate(cell)["busy_s"] == cell.ledger.night_stats(key).busy_s == 120.0


def test_energy_counts_up_to_what_a_car_can_draw_in_the_time(cell: Cell) -> None:
    key, lease = held(cell, minutes=5)
    claimed(cell, lease, 1e12)
    claimed(cell, lease, 3e12, start=1)
    audited(cell)
    drawn = [row["energy_wh"] for row in cell.ledger.valid_parts(key).to_pylist()]
    assert drawn == pytest.approx([HOUR_WH / 12 / 4, HOUR_WH / 12 * 3 / 4])
    stats = cell.ledger.night_stats(key)
    assert stats.energy_wh == pytest.approx(HOUR_WH / 12)
    assert stats.wasted_wh == 0.0


def test_what_is_said_within_bounds_counts_to_the_last_digit(cell: Cell) -> None:
    key, lease = held(cell, minutes=1)
    claimed(cell, lease, 0.1)
    claimed(cell, lease, 0.7, start=1)
    audited(cell)
    assert cell.ledger.valid_parts(key)["energy_wh"].to_pylist() == [0.1, 0.7]


def test_a_class_is_as_fast_as_its_middle_car_says(cell: Cell) -> None:
    cell.enrol(1, 2, 3)
    cell.open(dict.fromkeys((1, 2, 3), (10, 10)))
    leases = {car: cell.take(car, car) for car in (1, 2, 3)}
    cell.pass_time(minutes=5)
    for car, said in ((1, 0.0), (2, 5.0), (3, 1e12)):
        claimed(cell, leases[car], said)
    assert rate(cell) == {"cars": 3, "rows": 30, "busy_s": 15.0}


def test_a_car_that_was_struck_is_not_asked_how_fast_its_class_is(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({1: (10,), 2: (10,), 3: (10,)})
    struck = cell.take(1, 1)
    cell.pass_time(minutes=5)
    claimed(cell, struck, 200.0)
    [task] = cell.ledger.to_audit(1)
    cell.ledger.record_audit(judge(task, wrong=frozenset({1})))
    again, other = cell.take(1, 3), cell.take(2, 2)
    cell.pass_time(minutes=5)
    claimed(cell, again, 200.0)
    claimed(cell, other, 5.0)
    assert rate(cell) == {"cars": 1, "rows": 10, "busy_s": 5.0}


def test_a_car_does_not_speak_for_the_trusted_machines(cell: Cell) -> None:
    cell.enrol(1)
    cell.open({7: (10, 10)})
    [lease] = cell.ledger.grant([replace(request(1, 7), hardware_class=CLOUD_CLASS)])
    assert isinstance(lease, Granted)
    cell.pass_time(minutes=1)
    claimed(cell, lease, 1.0)
    assert cell.ledger.rates().num_rows == 0
