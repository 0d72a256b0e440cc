"""What every implementation of the ledger does; today there is one, on a real PostgreSQL."""

from collections.abc import Iterator

import pytest
from ledger_nights import Cell, open_cell, part

from fleetbatch.ledger.messages import Delivered, LeaseState, Terminal
from fleetbatch.ledger.postgres import migrate


@pytest.fixture
def cell(database_url: str) -> Iterator[Cell]:
    migrate(database_url)
    with open_cell(database_url) as cell:
        yield cell


def test_a_silent_car_loses_its_shard_and_another_finishes_it(cell: Cell) -> None:
    cell.enrol(1, 2)
    key = cell.open({7: (10, 10, 5)})
    silent = cell.take(1, 7)
    assert cell.deliver(part(silent, 0, 1, 10)) == Delivered(done_through=1, complete=False)
    assert cell.serve(minutes=11) == (silent.lease_id,)
    other = cell.take(2, 7)
    assert (other.start, other.fence) == (1, 2)
    late = cell.deliver(part(silent, 1, 3, 15))
    assert late == Terminal(reason="the lease is expired: no beat arrived in time", state=LeaseState.EXPIRED)
    assert cell.deliver(part(other, 1, 3, 15)) == Delivered(done_through=3, complete=True)
    assert cell.ledger.counts(key).returned == 1
