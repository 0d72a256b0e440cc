"""What every ledger leaves to the cloud lane, and what it lets it do."""

from ledger_nights import MINUTE, Cell, frozen_order, part

from fleetbatch.ledger.messages import Refused


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
