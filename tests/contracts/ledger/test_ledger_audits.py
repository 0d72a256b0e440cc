"""What every ledger does with audits."""

from dataclasses import replace
from datetime import timedelta

from ledger_nights import EVENING, Cell, frozen_order, judge, part

from fleetbatch.ledger.messages import Credit, Delivered, LedgerDials, Refused, ShardCounts
from fleetbatch.units import Fence


def finished(cell: Cell, shard: int, *cars: int) -> None:
    """Each car delivers the next row group of ten rows and leaves; the last one completes the shard."""
    for start, car in enumerate(cars):
        lease = cell.take(car, shard)
        cell.pass_time(seconds=10)
        cell.deliver(part(lease, start, start + 1, 10))
        cell.let_go(lease)


def reputation(cell: Cell) -> dict[int, tuple[float, int]]:
    cars = cell.ledger.cars().to_pylist()
    return {car["car_id"]: (round(car["reputation"], 3), car["strikes"]) for car in cars}


def test_strikes_fade_and_a_new_one_weighs_on_top(cell: Cell) -> None:
    cell.enrol(1)
    cell.open({7: (10,), 8: (10,)}, replace(frozen_order(attempts=9), deadline_at=EVENING + timedelta(days=90)))

    def strike(shard: int) -> float:
        finished(cell, shard, 1)
        [task] = cell.ledger.to_audit(1)
        assert cell.ledger.record_audit(judge(task, wrong=frozenset({1})))
        return strikes()

    def strikes() -> float:
        [car] = cell.ledger.cars().to_pylist()
        return round(float(car["strikes"]), 5)

    half_life = LedgerDials().strike_half_life
    assert strike(7) == 1.0
    cell.pass_time(days=half_life.days)
    assert strikes() == 0.5
    assert strike(8) == 1.5
    cell.pass_time(days=2 * half_life.days)
    assert strikes() == 0.375
    cell.pass_time(days=10_000)
    assert strikes() == 0.0


def test_a_returned_shard_is_claimed_by_one_auditor_at_a_time(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({7: (10, 10)})
    finished(cell, 7, 1, 2)
    [task] = cell.ledger.to_audit(10)
    assert [(p.start, p.stop, p.car_id, p.owner_id) for p in task.parts] == [(0, 1, 1, 1001), (1, 2, 2, 1002)]
    assert (task.rows, task.row_group_rows, task.fence) == (20, (10, 10), 2)
    assert cell.ledger.to_audit(10) == []
    cell.pass_time(minutes=11)
    assert [again.shard_id for again in cell.ledger.to_audit(10)] == [7]


def test_auditors_share_the_queue_longest_waiting_first(cell: Cell) -> None:
    cell.enrol(1)
    cell.open({7: (10,), 8: (10,), 9: (10,)})
    for shard in (9, 7, 8):
        finished(cell, shard, 1)
        cell.pass_time(seconds=1)
    assert {t.shard_id for t in cell.ledger.to_audit(2)} == {9, 7}
    assert [t.shard_id for t in cell.ledger.to_audit(2)] == [8]


def test_a_shard_that_passes_is_valid_and_its_cars_are_credited(cell: Cell) -> None:
    cell.enrol(1, 2)
    key = cell.open({7: (10, 10)})
    finished(cell, 7, 1, 2)
    [task] = cell.ledger.to_audit(1)
    assert cell.ledger.record_audit(judge(task)) is True
    assert cell.ledger.counts(key) == ShardCounts(valid=1)
    rows = cell.ledger.valid_parts(key).to_pylist()
    assert [(r["row_group_start"], r["car_id"], r["audit_state"]) for r in rows] == [
        (0, 1, "credited"),
        (1, 2, "credited"),
    ]
    assert [r["audited_items"] for r in rows] == [["row of 1"], ["row of 2"]]
    assert [r["key"] for r in rows] == [p.key for p in task.parts]
    stats = cell.ledger.night_stats(key)
    assert (stats.audited_rows, stats.disagreements) == (4, 0)


def test_a_verdict_counts_once_and_for_the_fence_it_was_made_for(cell: Cell) -> None:
    cell.enrol(1)
    key = cell.open({7: (10,)})
    finished(cell, 7, 1)
    [task] = cell.ledger.to_audit(1)
    assert cell.ledger.record_audit(replace(judge(task), fence=Fence(task.fence + 1))) is False
    assert cell.ledger.record_audit(judge(task, wrong=frozenset({1}))) is True
    assert cell.ledger.record_audit(judge(task)) is False
    assert cell.ledger.counts(key) == ShardCounts(ready=1)
    assert reputation(cell) == {1: (round(2 / 3, 3), 1)}


def test_a_shard_that_disagrees_starts_again_and_only_the_wrong_car_is_struck(cell: Cell) -> None:
    cell.enrol(1, 2, 3)
    key = cell.open({7: (10, 10)})
    finished(cell, 7, 1, 2)
    [task] = cell.ledger.to_audit(1)
    cell.ledger.record_audit(judge(task, wrong=frozenset({2})))
    assert cell.ledger.valid_parts(key).num_rows == 0
    marks = [row.credit for p in task.parts if (row := cell.ledger.lease(p.lease_id)) is not None]
    assert marks == [Credit.CREDITED, Credit.REFUSED]
    assert reputation(cell) == {1: (1.0, 0), 2: (round(2 / 3, 3), 1), 3: (1.0, 0)}
    lease = cell.take(3, 7)
    assert (lease.start, lease.fence) == (0, 3)
    cell.pass_time(seconds=10)
    assert cell.deliver(part(lease, 0, 2, 20)) == Delivered(done_through=2, complete=True)
    [task] = cell.ledger.to_audit(1)
    assert [(p.start, p.stop, p.car_id) for p in task.parts] == [(0, 2, 3)]
    cell.ledger.record_audit(judge(task))
    assert cell.ledger.valid_parts(key)["car_id"].to_pylist() == [3]
    stats = cell.ledger.night_stats(key)
    assert (stats.refused, stats.disagreements, stats.energy_wh, stats.wasted_wh) == (1, 1, 6.0, 4.0)


def test_after_too_many_refusals_only_the_cloud_lane_tries(cell: Cell) -> None:
    cell.enrol(1, 2, 3)
    key = cell.open({7: (10,)}, frozen_order(attempts=2))
    for car in (1, 2):
        finished(cell, 7, car)
        [task] = cell.ledger.to_audit(1)
        cell.ledger.record_audit(judge(task, wrong=frozenset({car})))
    assert cell.ask(3, 7) == Refused(reason="the shard is left to the cloud lane")
    lease = cell.take(0, 7)
    cell.deliver(part(lease, 0, 1, 10))
    assert cell.ledger.counts(key) == ShardCounts(valid=1)
    [row] = cell.ledger.valid_parts(key).to_pylist()
    assert (row["car_id"], row["audit_state"]) == (0, "none")


def test_a_verdict_that_comes_after_giving_up_does_not_count(cell: Cell) -> None:
    cell.enrol(1)
    key = cell.open({7: (10,)})
    finished(cell, 7, 1)
    [task] = cell.ledger.to_audit(1)
    cell.ledger.give_up(key, "late")
    assert cell.ledger.record_audit(judge(task)) is False
    assert cell.ledger.counts(key) == ShardCounts(missing=1)
