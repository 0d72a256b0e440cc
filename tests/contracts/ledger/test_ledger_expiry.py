"""When a lease is over that nobody ends: by the database's clock, in time of service, and only while its work moves."""

from dataclasses import replace

import pytest
from ledger_nights import LEASE_FOR, Cell, part, request

from fleetbatch.ledger.messages import BeatAnswer, Delivered, Granted


def test_nothing_expires_before_a_full_lease_of_service_after_an_outage(cell: Cell) -> None:
    cell.enrol(1)
    cell.open({7: (10,)})
    lease = cell.take(1, 7)
    cell.serve(minutes=9)
    cell.pass_time(minutes=30)
    back = cell.ledger.sweep()
    assert (back.outage, back.expired) == (True, ())
    assert cell.serve(minutes=9, seconds=40) == ()
    assert cell.serve(seconds=20) == (lease.lease_id,)


def test_a_car_that_beats_for_ever_and_delivers_nothing_loses_its_shard_to_another(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({7: (10, 10)})
    lease, stalled = cell.take(1, 7), cell.ledger._pool.dials.stalled_after
    cell.deliver(part(lease, 0, 1, 10))
    until, began = cell.now, cell.now
    while cell.serve(minutes=1) == ():
        said, again = cell.beat(lease), cell.ledger.grant([request(1, 7)])[0]  # a poll counts as a beat, no more
        assert isinstance(again, Granted)
        assert said.expires_at == again.expires_at
        if said.expires_at is not None:
            until = said.expires_at
    assert until == began + stalled
    assert cell.beat(lease) == BeatAnswer(
        go_on=False, reason="the lease is expired: it was not renewed in time", expires_at=None
    )
    assert cell.take(2, 7).start == 1


def test_a_lease_outlives_an_outage_when_its_car_comes_back(cell: Cell) -> None:
    cell.enrol(1)
    cell.open({7: (10,)})
    lease = cell.take(1, 7)
    cell.pass_time(hours=2)
    cell.serve(minutes=5)
    assert cell.beat(lease).go_on
    assert cell.deliver(part(lease, 0, 1, 10)) == Delivered(done_through=1, complete=True)


def test_a_sweep_ends_a_bounded_batch_and_says_that_there_is_more(cell: Cell) -> None:
    cars = range(1, 8)
    cell.enrol(*cars)
    cell.open({100 + car: (1,) for car in cars})
    cell.ledger.grant([request(car, 100 + car) for car in cars])
    cell.ledger._pool.dials = replace(cell.ledger._pool.dials, sweep_batch=3)
    cell.serve(seconds=LEASE_FOR.total_seconds() - 1)
    cell.pass_time(seconds=2)
    sweeps = [cell.ledger.sweep() for _ in range(3)]
    assert [(len(s.expired), s.more) for s in sweeps] == [(3, True), (3, True), (1, False)]


@pytest.mark.parametrize(("beats", "lasts_min"), [(0, 10), (1, 20)])
def test_a_clock_that_is_set_back_an_hour_holds_no_silent_lease_for_an_hour(
    cell: Cell, beats: int, lasts_min: int
) -> None:
    cell.enrol(1, 2)
    cell.open({7: (1,)})
    cell.serve(minutes=1)
    lease = cell.take(1, 7)
    cell.pass_time(hours=-1)
    cell.serve(seconds=20)
    for _ in range(beats):
        assert cell.beat(lease).go_on
    assert cell.serve(minutes=lasts_min - 1) == ()
    assert cell.serve(minutes=3) == (lease.lease_id,)
    assert cell.take(2, 7).fence == lease.fence + 1


def test_an_outage_after_the_clock_was_set_back_counts_against_no_lease(cell: Cell) -> None:
    cell.enrol(1)
    cell.open({7: (1,)})
    cell.serve(minutes=1)
    cell.pass_time(hours=-1)
    cell.serve(minutes=1)
    lease = cell.take(1, 7)
    cell.pass_time(minutes=30)
    assert cell.serve(minutes=9) == ()
    assert cell.beat(lease).go_on
