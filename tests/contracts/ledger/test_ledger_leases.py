"""What every ledger does with leases; today there is one, on a real PostgreSQL."""

from dataclasses import replace

from ledger_nights import LEASE_FOR, MINUTE, Cell, part, request

from fleetbatch.ledger.messages import Beat, Delivered, Granted, LeaseState, Refused, Released, Terminal
from fleetbatch.units import CarId, Fence, LeaseId

EXPIRED = Terminal(reason="the lease is expired: it was not renewed in time", state=LeaseState.EXPIRED)
NOT_YOURS = Terminal(reason="there is no such lease of this car")


def test_a_silent_car_loses_its_shard_and_another_finishes_it(cell: Cell) -> None:
    cell.enrol(1, 2)
    key = cell.open({7: (10, 10, 5)})
    silent = cell.take(1, 7)
    assert cell.deliver(part(silent, 0, 1, 10)) == Delivered(done_through=1, complete=False)
    assert cell.serve(minutes=11) == (silent.lease_id,)
    other = cell.take(2, 7)
    assert (other.start, other.fence) == (1, 2)
    assert cell.deliver(part(silent, 1, 3, 15)) == EXPIRED
    assert cell.deliver(part(other, 1, 3, 15)) == Delivered(done_through=3, complete=True)
    assert cell.ledger.counts(key).returned == 1
    assert cell.ledger.night_stats(key).resumed_shards == 1


def test_a_shard_is_held_by_one_car(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({7: (10,)})
    cell.take(1, 7)
    assert cell.ask(2, 7) == Refused(reason="the shard is out")


def test_a_car_that_asks_again_gets_the_lease_it_holds_and_strands_no_shard(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({7: (10, 10), 8: (10,)})
    first = cell.take(1, 7)
    cell.deliver(part(first, 0, 1, 10))
    cell.pass_time(minutes=1)
    again = cell.take(1, 8)
    assert (again.lease_id, again.shard_id, again.start, again.again) == (first.lease_id, 7, 1, True)
    assert again.expires_at == first.expires_at + MINUTE
    assert cell.take(2, 8).shard_id == 8


def test_a_batch_answers_each_request_in_its_order(cell: Cell) -> None:
    cell.enrol(1, 2, 3)
    cell.open({7: (10,), 8: (10,)})
    answers = cell.ledger.grant([request(3, 8), request(9, 7), request(2, 7), request(1, 7), request(1, 8)])
    won = [(a.car_id, a.shard_id) if isinstance(a, Granted) else a.reason for a in answers]
    assert won == [(3, 8), "the car is not enrolled", "the shard is out", (1, 7), (1, 7)]


def test_who_may_not_work_is_told_why(cell: Cell) -> None:
    cell.enrol(1, 2)
    key = cell.open({7: (10,)})
    cell.ledger.revoke_car(CarId(1), "key copied")
    assert cell.ask(9, 7) == Refused(reason="the car is not enrolled")
    assert cell.ask(1, 7) == Refused(reason="the car is revoked: key copied")
    assert cell.ask(2, 70) == Refused(reason="the shard is not known")
    cell.ledger.pause(key)
    assert cell.ask(2, 7) == Refused(reason="the order is paused")
    cell.ledger.resume(key)
    cell.pass_time(hours=11)
    assert cell.ask(2, 7) == Refused(reason="the order's deadline has passed")


def test_a_beat_renews_the_lease_for_its_full_length(cell: Cell) -> None:
    cell.enrol(1)
    cell.open({7: (10,)})
    lease = cell.take(1, 7)
    for _ in range(3):
        assert cell.serve(minutes=9) == ()
        assert cell.beat(lease).expires_at == cell.now + LEASE_FOR
    assert cell.serve(minutes=10) == (lease.lease_id,)
    assert not cell.beat(lease).go_on


def test_beats_of_another_car_or_fence_renew_nothing(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({7: (10,)})
    lease = cell.take(1, 7)
    cell.serve(minutes=9)
    assert not cell.beat(lease, car=2).go_on
    assert not cell.beat(replace(lease, fence=Fence(lease.fence + 1))).go_on
    assert cell.serve(minutes=2) == (lease.lease_id,)


def test_a_delivery_renews_the_lease_too(cell: Cell) -> None:
    cell.enrol(1)
    cell.open({7: (10, 10)})
    lease = cell.take(1, 7)
    cell.serve(minutes=9)
    cell.deliver(part(lease, 0, 1, 10))
    assert cell.serve(minutes=9) == ()


def test_the_end_of_a_lease_is_told_in_the_same_words_for_ever(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({7: (10, 10)})
    lease = cell.take(1, 7)
    cell.deliver(part(lease, 0, 1, 10))
    assert cell.let_go(lease) == Released(done_through=1)
    second = cell.take(2, 7)
    cell.deliver(part(second, 1, 2, 10))
    for _ in range(2):
        assert cell.let_go(lease) == Released(done_through=1)
        assert cell.let_go(second) == Terminal(reason="the lease is done: the shard is complete", state=LeaseState.DONE)
        assert cell.deliver(part(lease, 0, 1, 10)) == Delivered(done_through=1, complete=False)
        assert cell.deliver(part(second, 1, 2, 10)) == Delivered(done_through=2, complete=True)
        late = cell.deliver(part(lease, 1, 2, 10))
        assert late == Terminal(reason="the lease is released: unplugged", state=LeaseState.RELEASED)
        assert cell.beat(lease).reason == "the lease is released: unplugged"
        cell.pass_time(minutes=1)


def test_a_repeated_part_counts_once_and_another_content_never(cell: Cell) -> None:
    cell.enrol(1)
    key = cell.open({7: (10, 10)})
    lease = cell.take(1, 7)
    once = part(lease, 0, 1, 10)
    assert cell.deliver(once) == cell.deliver(once) == Delivered(done_through=1, complete=False)
    assert cell.deliver(part(lease, 0, 1, 10, content="other")) == Refused(
        reason="another part that starts at row group 0 is already durable"
    )
    assert cell.ledger.night_stats(key).parts == 1


def test_parts_of_one_lease_in_one_batch_count_in_their_order(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({7: (10, 10, 5), 8: (3,)})
    one, two = cell.take(1, 7), cell.take(2, 8)
    batch = [part(one, 0, 1, 10), part(two, 0, 1, 3), part(one, 1, 3, 15), part(one, 0, 1, 10)]
    assert [a.done_through if isinstance(a, Delivered) else a.reason for a in cell.ledger.deliver(batch)] == [
        1,
        1,
        3,
        1,
    ]


def test_a_part_that_does_not_fit_changes_nothing(cell: Cell) -> None:
    cell.enrol(1)
    cell.open({7: (10, 10, 5)})
    lease = cell.take(1, 7)
    fits = part(lease, 0, 1, 10)
    wrong = [
        part(lease, 1, 2, 10),  # a gap
        part(lease, 0, 4, 25),  # past the end
        part(lease, 0, 0, 0),  # nothing
        part(lease, 0, 1, 9),  # a row is missing
        part(lease, 0, 2, 21),  # a row too many
    ]
    for one in wrong:
        answer = cell.deliver(one)
        assert isinstance(answer, Refused), one
        assert "the shard is delivered up to 0 of 3" in answer.reason
    assert cell.deliver(fits) == Delivered(done_through=1, complete=False)


def test_a_lease_obeys_its_car_and_its_fence_only(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({7: (10,)})
    lease = cell.take(1, 7)
    thief = replace(lease, car_id=CarId(2))
    zombie = replace(lease, fence=Fence(2))
    for wrong in (thief, zombie, replace(lease, lease_id=LeaseId("20261122-0000000000000007-2"), fence=Fence(2))):
        assert cell.deliver(part(wrong, 0, 1, 10)) == NOT_YOURS
        assert cell.let_go(wrong) == NOT_YOURS
        assert cell.beat(wrong).reason == NOT_YOURS.reason
    assert cell.beat(lease).go_on


def test_an_impostor_in_the_same_batch_is_not_given_the_holders_answer(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({7: (10,)})
    lease = cell.take(1, 7)
    thief = replace(lease, car_id=CarId(2))
    beats = [
        Beat(car_id=one.car_id, lease_id=one.lease_id, fence=one.fence, row_groups_done=0, energy_wh=0.0, busy_s=0.0)
        for one in (thief, lease)
    ]
    assert [answer.go_on for answer in cell.ledger.beat(beats)] == [False, True]
    assert cell.ledger.deliver([part(thief, 0, 1, 10), part(lease, 0, 1, 10)]) == [
        NOT_YOURS,
        Delivered(done_through=1, complete=True),
    ]


def test_anything_may_stand_for_a_lease_id(cell: Cell) -> None:
    cell.enrol(1)
    for text in ("", "x", "20261122-0000000000000007", "99999999-0000000000000007-1", "20261122-ffffffffffffffff-1"):
        beat = Beat(
            car_id=CarId(1), lease_id=LeaseId(text), fence=Fence(1), row_groups_done=0, energy_wh=0.0, busy_s=0.0
        )
        assert cell.ledger.beat([beat])[0].reason == NOT_YOURS.reason
        assert cell.ledger.lease(LeaseId(text)) is None


def test_a_lease_can_be_looked_up_open_and_ended(cell: Cell) -> None:
    cell.enrol(1)
    key = cell.open({7: (10, 10)})
    lease = cell.take(1, 7)
    cell.deliver(part(lease, 0, 1, 10))
    cell.beat(lease, energy_wh=3.5)
    row = cell.ledger.lease(lease.lease_id)
    assert row is not None
    assert (row.state, row.start, row.done_through, row.energy_wh) == (LeaseState.GRANTED, 0, 1, 3.5)
    assert (row.order_key, row.row_group_rows, row.expires_at) == (key, (10, 10), lease.expires_at)
    cell.let_go(lease, energy_wh=4.0)
    row = cell.ledger.lease(lease.lease_id)
    assert row is not None
    assert (row.state, row.reason, row.expires_at, row.energy_wh) == (LeaseState.RELEASED, "unplugged", None, 4.0)
    assert row.ended_at == cell.now
    assert row.done_through == 1


def test_energy_that_led_to_nothing_is_counted_as_wasted(cell: Cell) -> None:
    cell.enrol(1)
    key = cell.open({7: (10, 10)})
    lease = cell.take(1, 7)
    cell.pass_time(minutes=1)
    cell.deliver(part(lease, 0, 1, 10))  # 2 Wh
    cell.let_go(lease, energy_wh=5.0)
    stats = cell.ledger.night_stats(key)
    assert (stats.energy_wh, stats.wasted_wh, stats.released) == (5.0, 3.0, 1)


def test_rates_are_measured_from_confirmed_parts(cell: Cell) -> None:
    cell.enrol(1)
    cell.open({7: (10, 10)})
    assert cell.ledger.rates().num_rows == 0
    lease = cell.take(1, 7)
    cell.pass_time(minutes=1)
    cell.deliver(part(lease, 0, 1, 10))
    cell.deliver(part(lease, 1, 2, 10))
    [rate] = cell.ledger.rates().to_pylist()
    assert (rate["workload"], rate["hardware_class"], rate["rows"], rate["busy_s"]) == ("image", "orin", 20, 60.0)
    assert rate["cars"] == 1
    cell.pass_time(days=7)
    assert cell.ledger.rates().num_rows == 0


def test_an_empty_batch_is_no_question(cell: Cell) -> None:
    ledger = cell.ledger
    assert (ledger.grant([]), ledger.beat([]), ledger.deliver([]), ledger.release([])) == ([], [], [], [])
