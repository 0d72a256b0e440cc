"""What every ledger leaves to the cloud lane, and what it lets it do."""

from ledger_nights import MINUTE, Cell, frozen_order, judge, part

from fleetbatch.ledger.messages import Delivered, Refused


def test_a_car_that_refuses_the_work_counts_as_an_attempt_and_one_that_leaves_does_not(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({7: (10,)}, frozen_order(attempts=2))
    for _ in range(3):
        cell.let_go(cell.take(1, 7), "unplugged")
    cell.let_go(cell.take(1, 7), "refused")
    cell.let_go(cell.take(2, 7), "refused")
    assert cell.ask(1, 7) == Refused(reason="the shard is left to the cloud lane")
    [shard] = cell.ledger.cloud_shards(10, deadline_before=cell.now)
    assert (shard.shard_id, shard.cloud_only) == (7, True)
    assert cell.ledger.open_shards().num_rows == 0


def test_no_car_alone_refuses_a_night_into_the_cloud_lane(cell: Cell) -> None:
    night = range(11, 41)
    cell.enrol(1, 2, 3)
    key = cell.open(dict.fromkeys(night, (3,)), frozen_order(attempts=3))
    for shard in night:
        cell.let_go(cell.take(1, shard), "refused")
    assert [cell.ask(1, shard) for shard in night] == [Refused(reason="the car has failed at the shard")] * 30
    assert cell.ledger.cloud_shards(100, deadline_before=cell.now) == []
    cell.let_go(cell.take(2, 11), "refused")
    cell.let_go(cell.take(3, 11), "refused")
    assert [shard.shard_id for shard in cell.ledger.cloud_shards(100, deadline_before=cell.now)] == [11]
    for shard in night[1:]:
        assert cell.deliver(part(cell.take(2, shard), 0, 1, 3)) == Delivered(done_through=1, complete=True)
    assert cell.ledger.counts(key).returned == 29


def test_whoever_spoiled_a_shard_does_not_get_it_again_and_whoever_worked_beside_does(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({7: (3, 4)}, frozen_order(attempts=3))
    spoiled = cell.take(1, 7)
    cell.deliver(part(spoiled, 0, 1, 3))
    cell.let_go(spoiled)
    cell.deliver(part(cell.take(2, 7), 1, 2, 4))
    [task] = cell.ledger.to_audit(1)
    assert cell.ledger.record_audit(judge(task, wrong=frozenset({1})))
    assert cell.ask(1, 7) == Refused(reason="the car has failed at the shard")
    assert cell.take(2, 7).start == 0


def test_the_cloud_lane_may_try_again_what_it_could_not_do(cell: Cell) -> None:
    cell.open({7: (10,)}, frozen_order(attempts=9))
    for _ in range(3):
        cell.let_go(cell.take(0, 7), "refused")
    assert cell.take(0, 7).start == 0


def test_the_cloud_lane_holds_many_shards_and_its_work_is_valid_at_once(cell: Cell) -> None:
    cell.enrol(1)
    key = cell.open({7: (10,), 8: (10, 10)})
    seven, eight = cell.take(0, 7), cell.take(0, 8)
    cell.deliver(part(seven, 0, 1, 10))
    cell.deliver(part(eight, 0, 1, 10))
    assert cell.ledger.counts(key).valid == 1
    cell.let_go(eight)
    cell.deliver(part(cell.take(1, 8), 1, 2, 10))
    counts = cell.ledger.counts(key)
    assert (counts.valid, counts.returned) == (1, 1)  # a car's part among them is audited


def test_the_cloud_lane_sees_what_is_due_soon(cell: Cell) -> None:
    cell.enrol(1)
    cell.open({7: (10,), 8: (10,)})
    cell.take(1, 8)
    deadline = frozen_order().deadline_at
    assert cell.ledger.cloud_shards(10, deadline_before=deadline - MINUTE) == []
    assert [s.shard_id for s in cell.ledger.cloud_shards(10, deadline_before=deadline)] == [7]
