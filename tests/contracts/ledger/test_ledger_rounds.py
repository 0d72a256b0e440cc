"""What every ledger does with rounds: advice, written by one planner at a time."""

import threading
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from ledger_nights import Cell, no, open_cell, yes

from fleetbatch.contracts import conform, empty
from fleetbatch.errors import RejectedError
from fleetbatch.ledger.messages import FencedOff
from fleetbatch.units import CarId, CellName, RoundId

EU = CellName("eu")
LAST = (1 << 63) - 1


def assignments(*offers: tuple[int, int, int]) -> pa.Table:
    """Offers as (car, seq, shard)."""
    count = len(offers)
    columns = {"car_id": 0, "seq": 1, "shard_id": 2}
    table = {name: pa.array([offer[n] for offer in offers], pa.uint64()) for name, n in columns.items()}
    zeros = {name: np.zeros(count, np.int64) for name in ("copy", "rg_start", "rg_end", "reason")}
    seconds = {name: np.zeros(count, np.float32) for name in ("start_s", "end_s", "p_finish", "expected_units")}
    return conform(pa.table({**table, **zeros, **seconds, "speculative": np.zeros(count, bool)}), "assignments")


def test_a_round_is_read_as_it_was_written_sorted_by_car_and_place(cell: Cell) -> None:
    lock = cell.ledger.lock_planner(EU)
    assert lock is not None
    assert cell.ledger.latest_round() is None
    first = cell.ledger.write_round(lock, assignments((9, 1, 5), (LAST, 0, LAST), (9, 0, 4)), {"cars": 2})
    second = cell.ledger.write_round(lock, empty("assignments"), {})
    assert cell.ledger.latest_round() == second
    offers = cell.ledger.offers(first)
    assert offers.car_id.tolist() == [9, 9, LAST]
    assert offers.seq.tolist() == [0, 1, 0]
    assert offers.shard_id.tolist() == [4, 5, LAST]
    assert len(cell.ledger.offers(second).car_id) == 0
    with pytest.raises(RejectedError, match="no round 99"):
        cell.ledger.offers(RoundId(99))


def test_a_long_round_comes_back_whole(cell: Cell) -> None:
    cars = np.arange(250_001)[::-1]
    table = assignments((1, 0, 1)).take(np.zeros(len(cars), int)).set_column(0, "car_id", pa.array(cars, pa.uint64()))
    lock = cell.ledger.lock_planner(EU)
    assert lock is not None
    offers = cell.ledger.offers(cell.ledger.write_round(lock, table, {}))
    assert np.array_equal(offers.car_id, np.arange(250_001))


def test_two_dispatchers_never_hold_the_lock_together(cell: Cell, cell_url: str) -> None:
    with open_cell(cell_url) as other:
        mine = cell.ledger.lock_planner(EU)
        assert mine is not None
        assert cell.ledger.lock_planner(EU) == mine
        assert other.ledger.lock_planner(EU) is None
        assert other.ledger.lock_planner(CellName("us")) is not None
        cell.ledger.unlock_planner(mine)
        theirs = other.ledger.lock_planner(EU)
        assert theirs is not None
        assert theirs.epoch > mine.epoch
        assert cell.ledger.lock_planner(EU) is None


def test_a_planner_that_lost_its_lock_is_fenced_off_and_writes_nothing(cell: Cell, cell_url: str) -> None:
    with open_cell(cell_url) as other:
        paused = cell.ledger.lock_planner(EU)
        assert paused is not None
        other.pass_time(seconds=61)
        running = other.ledger.lock_planner(EU)
        assert running is not None
        written = other.ledger.write_round(running, assignments((1, 0, 1)), {})
        with pytest.raises(FencedOff, match="another dispatcher plans now"):
            cell.ledger.write_round(paused, assignments((2, 0, 2)), {})
        assert cell.ledger.latest_round() == written


def test_writing_a_round_keeps_the_lock(cell: Cell, cell_url: str) -> None:
    lock = cell.ledger.lock_planner(EU)
    assert lock is not None
    for _ in range(3):
        cell.pass_time(seconds=50)
        cell.ledger.write_round(lock, empty("assignments"), {})
    with open_cell(cell_url) as other:
        other.now = cell.now
        other.ledger.turn_clock(other.now + timedelta(seconds=10))
        assert other.ledger.lock_planner(EU) is None


def test_gateways_hear_of_a_round_at_once(cell: Cell, cell_url: str) -> None:
    lock = cell.ledger.lock_planner(EU)
    assert lock is not None
    with open_cell(cell_url) as gateway:
        assert gateway.ledger.wait_for_news(0.01) is False
        heard: list[bool] = []
        waiting = threading.Thread(target=lambda: heard.append(gateway.ledger.wait_for_news(10.0)))
        waiting.start()
        written = cell.ledger.write_round(lock, assignments((1, 0, 1)), {})
        waiting.join(10.0)
        assert heard == [True]
        assert gateway.ledger.latest_round() == written


@pytest.mark.parametrize("how", ["withdrawn", "withdrawn telemetry", "revoked"])
def test_gateways_hear_of_void_tokens_at_once_and_of_a_consent_not_at_all(cell: Cell, cell_url: str, how: str) -> None:
    cell.enrol(1)
    with open_cell(cell_url) as gateway:
        gateway.ledger.turn_clock(cell.now)
        assert gateway.ledger.wait_for_news(0.01) is False
        cell.ledger.set_consent(yes(1))
        assert gateway.ledger.wait_for_news(0.1) is False
        match how:
            case "withdrawn":
                cell.ledger.set_consent(no(1))
            case "withdrawn telemetry":
                cell.ledger.set_consent(no(1, "telemetry"))
            case _:
                cell.ledger.revoke_car(CarId(1), "stolen")
        assert gateway.ledger.wait_for_news(10.0) is True
        assert gateway.ledger.voided_tokens(timedelta(hours=1)).keys() == {1}


def test_a_round_ends_the_lease_that_it_gives_to_another_car_and_no_other(cell: Cell) -> None:
    lock = cell.ledger.lock_planner(EU)
    assert lock is not None
    cell.enrol(1, 2, 3)
    cell.open({4: (10, 10), 5: (10, 10)})
    slow, other = cell.take(1, 4), cell.take(3, 5)
    cell.ledger.write_round(lock, assignments((2, 0, 4)), {}, given_away=[(1, 4), (3, 4), (2, 4)])
    assert not cell.beat(slow).go_on
    assert cell.beat(other).go_on
    assert cell.take(2, 4).start == 0


def test_a_dispatcher_that_lost_its_lock_ends_no_lease(cell: Cell, cell_url: str) -> None:
    lock = cell.ledger.lock_planner(EU)
    assert lock is not None
    cell.enrol(1)
    cell.open({4: (10, 10)})
    lease = cell.take(1, 4)
    cell.ledger.unlock_planner(lock)
    with open_cell(cell_url) as other:
        assert other.ledger.lock_planner(EU) is not None
        with pytest.raises(FencedOff):
            cell.ledger.write_round(lock, assignments(), {}, given_away=[(1, 4)])
    assert cell.beat(lease).go_on
