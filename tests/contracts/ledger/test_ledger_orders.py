"""What every ledger does with orders and their shards."""

from dataclasses import replace
from datetime import timedelta

import pytest
from ledger_nights import EVENING, Cell, frozen_order, judge, manifest, part, publish

from fleetbatch.errors import RejectedError
from fleetbatch.ledger.messages import Granted, OrderState, Refused, ShardCounts
from fleetbatch.nouns import OrderKey
from fleetbatch.units import Night, OrderName


def test_an_order_comes_back_as_it_was_frozen(cell: Cell) -> None:
    frozen = frozen_order()
    cell.ledger.open_order(frozen)
    cell.ledger.open_order(replace(frozen, secret_wrapped=bytes(48)))  # opened twice is opened once
    row = cell.ledger.order(frozen.key)
    assert row is not None
    assert (row.frozen, row.state, row.opened_at, row.published_at) == (frozen, OrderState.OPEN, EVENING, None)
    assert [one.key for one in cell.ledger.orders_open()] == [frozen.key]


def test_an_order_that_was_never_opened_is_named(cell: Cell) -> None:
    key = OrderKey(night=Night("2026-11-22"), order=OrderName("nobody"), generation=1)
    assert cell.ledger.order(key) is None
    with pytest.raises(RejectedError, match="does not know the order 2026-11-22/nobody/g1"):
        cell.ledger.counts(key)


def test_shards_registered_twice_are_registered_once(cell: Cell) -> None:
    key = cell.open({7: (10,), 8: (10,)})
    assert cell.ledger.register_shards(key, manifest({7: (10,), 8: (10,), 9: (1, 2)})) == 1
    assert cell.ledger.counts(key) == ShardCounts(ready=3)
    assert cell.ledger.counts(key).total == 3


def test_a_manifest_that_breaks_its_contract_is_refused_whole(cell: Cell) -> None:
    key = cell.open({})
    with pytest.raises(RejectedError, match="row_groups"):
        cell.ledger.register_shards(key, manifest({7: (10,)}).drop_columns(["row_groups"]))
    assert cell.ledger.counts(key).total == 0


def test_nights_and_generations_stand_side_by_side(cell: Cell) -> None:
    cell.enrol(1, 2, 3)
    first = cell.open({7: (10,)}, frozen_order("2026-11-21"))
    second = cell.open({8: (10,)}, frozen_order("2026-11-22"))
    third = cell.open({9: (10,)}, frozen_order("2026-11-22", generation=2))
    leases = {shard: cell.take(car, shard) for car, shard in ((1, 7), (2, 8), (3, 9))}
    assert [leases[shard].order_key for shard in (7, 8, 9)] == [first, second, third]
    assert cell.ask(1, 8).again  # type: ignore[union-attr] # one lease a car, over all nights
    cell.ledger.cancel(second, "not wanted")
    assert [cell.ledger.counts(key).out for key in (first, second, third)] == [1, 0, 1]


def test_open_shards_say_who_holds_what(cell: Cell) -> None:
    cell.enrol(1)
    key = cell.open({7: (10, 10), 8: (10,)})
    cell.deliver(part(cell.take(1, 7), 0, 1, 10))
    seven, eight = cell.ledger.open_shards().to_pylist()
    assert (seven["shard_id"], seven["held_by_car"], seven["done_through"], seven["lease_started_at"]) == (
        7,
        1,
        1,
        EVENING,
    )
    assert (eight["shard_id"], eight["held_by_car"], eight["lease_started_at"]) == (8, None, None)
    assert (eight["order_key"], eight["workload"], eight["priority"], eight["rows"]) == (str(key), "image", 1, 10)
    assert eight["deadline_at"] == EVENING + timedelta(hours=10)


def test_a_paused_order_grants_nothing_and_its_leases_run_on(cell: Cell) -> None:
    cell.enrol(1, 2)
    key = cell.open({7: (10,), 8: (10,)})
    lease = cell.take(1, 7)
    cell.ledger.pause(key)
    assert cell.ask(2, 8) == Refused(reason="the order is paused")
    assert cell.beat(lease).go_on
    assert cell.ledger.open_shards().num_rows == 0
    cell.ledger.resume(key)
    cell.take(2, 8)


def half_done(cell: Cell) -> OrderKey:
    """An order with one shard valid, one back, one out, one free."""
    cell.enrol(1, 2, 3)
    key = cell.open({5: (10,), 6: (10,), 7: (10, 10), 8: (10,)})
    cell.deliver(part(cell.take(0, 5), 0, 1, 10))
    cell.deliver(part(cell.take(1, 6), 0, 1, 10))
    cell.deliver(part(cell.take(2, 7), 0, 1, 10))
    return key


def test_a_cancelled_order_is_computed_no_further_and_what_came_back_is_still_audited(cell: Cell) -> None:
    key = half_done(cell)
    lease = cell.ask(2, 7)
    assert isinstance(lease, Granted)
    assert cell.ledger.cancel(key, "wrong input") == cell.ledger.cancel(key, "again") + 2 == 2
    assert cell.beat(lease).reason == "the lease is revoked: the order is cancelled: wrong input"
    assert cell.ask(3, 8) == Refused(reason="the order is cancelled")
    assert cell.ledger.orders_open() == []
    [task] = cell.ledger.to_audit(10)
    assert cell.ledger.record_audit(judge(task))
    assert cell.ledger.counts(key) == ShardCounts(valid=2, missing=2)
    assert {row["reason"] for row in cell.ledger.missing_shards(key).to_pylist()} == {
        "the order is cancelled: wrong input"
    }


def test_what_its_audit_refuses_after_the_order_was_cancelled_is_missing(cell: Cell) -> None:
    key = half_done(cell)
    cell.ledger.cancel(key, "wrong input")
    [task] = cell.ledger.to_audit(10)
    assert cell.ledger.record_audit(judge(task, wrong=frozenset({1})))
    assert cell.ledger.counts(key) == ShardCounts(valid=1, missing=3)


def test_nothing_of_a_recalled_order_is_published_and_nobody_loses_what_was_paid(cell: Cell) -> None:
    key = half_done(cell)
    [task] = cell.ledger.to_audit(10)
    cell.ledger.record_audit(judge(task))
    paid = cell.ledger.balances()
    assert cell.ledger.recall(key, "a bad model") == 4
    assert cell.ledger.counts(key) == ShardCounts(missing=4)
    assert cell.ledger.valid_parts(key).num_rows == 0
    assert cell.ledger.balances() == paid
    publish(cell.ledger, key)
    with pytest.raises(RejectedError, match="is closed, for good"):
        cell.ledger.recall(key, "too late")


def test_what_is_given_up_is_named_missing_with_its_reason(cell: Cell) -> None:
    cell.enrol(1, 2, 3)
    key = cell.open({5: (10,), 6: (10,), 7: (10,), 8: (10, 10)})
    cell.deliver(part(cell.take(0, 5), 0, 1, 10))  # valid: it stays
    cell.deliver(part(cell.take(1, 6), 0, 1, 10))  # delivered, and nobody looked at it
    out = cell.take(2, 8)
    cell.deliver(part(out, 0, 1, 10))
    assert cell.ledger.give_up(key, "the deadline has passed") == 3
    assert cell.ledger.give_up(key, "again") == 0
    assert cell.ledger.counts(key) == ShardCounts(valid=1, missing=3)
    assert cell.ledger.missing_shards(key).to_pylist() == [
        {"shard_id": shard, "reason": "the deadline has passed"} for shard in (6, 7, 8)
    ]
    assert cell.beat(out).reason == "the lease is revoked: the deadline has passed"
    assert cell.ledger.to_audit(10) == []
    assert cell.ledger.valid_parts(key)["shard_id"].to_pylist() == [5]


def test_a_published_order_is_done_and_closed_for_good(cell: Cell) -> None:
    cell.enrol(1)
    key = cell.open({7: (10,), 8: (10,)})
    cell.deliver(part(cell.take(0, 7), 0, 1, 10))
    cell.ledger.give_up(key, "late")
    publish(cell.ledger, key)
    cell.pass_time(minutes=1)
    publish(cell.ledger, key)
    with pytest.raises(RejectedError, match="is closed, for good"):
        cell.ledger.resume(key)
    row = cell.ledger.order(key)
    assert row is not None
    assert (row.state, row.published_at) == (OrderState.CLOSED, EVENING)
    assert cell.ledger.counts(key) == ShardCounts(done=1, missing=1)
    assert cell.ledger.valid_parts(key).num_rows == 1


def test_an_order_to_which_something_was_done_since_it_was_looked_at_is_not_closed(cell: Cell) -> None:
    cell.enrol(1)
    key = cell.open({7: (10,)})
    cell.deliver(part(cell.take(0, 7), 0, 1, 10))
    looked_at = cell.ledger.settled_version(key)
    cell.ledger.recall(key, "bad labels")
    assert not cell.ledger.close_order(key, looked_at)
    assert cell.ledger.counts(key) == ShardCounts(missing=1)
    with pytest.raises(RejectedError, match="is not closed, so nothing of it can have been published"):
        cell.ledger.mark_published(key)
    cell.ledger.recall(key, "bad labels")  # said twice
    assert cell.ledger.close_order(key, cell.ledger.settled_version(key))


def test_an_order_that_is_being_published_is_neither_recalled_nor_archived(cell: Cell) -> None:
    cell.enrol(1)
    key, years = cell.open({7: (10,)}), timedelta(days=800)
    cell.deliver(part(cell.take(0, 7), 0, 1, 10))
    assert cell.ledger.close_order(key, cell.ledger.settled_version(key))
    for operate in (cell.ledger.recall, cell.ledger.cancel):
        with pytest.raises(RejectedError, match="is being published, for good"):
            operate(key, "too late")
    assert cell.ledger.counts(key) == ShardCounts(valid=1)
    assert (cell.ledger.closed_nights(cell.now + years), cell.ledger.keys_to_forget(cell.now + years)) == ([], [])
    assert cell.ledger.close_order(key, cell.ledger.settled_version(key)), "whoever was killed is followed by the next"
    cell.ledger.mark_published(key)
    assert len(cell.ledger.closed_nights(cell.now + years)) == len(cell.ledger.keys_to_forget(cell.now + years)) == 1


def test_why_a_car_refused_a_shard_last_is_part_of_why_it_is_missing(cell: Cell) -> None:
    cell.enrol(1, 2, 3)
    key = cell.open({5: (10,), 6: (10,), 7: (10,)})
    cell.let_go(cell.take(1, 5), "refused", detail="row group 0: the model does not open")
    cell.let_go(cell.take(2, 5), "refused", detail="row group 0:\n out of memory" + "!" * 500)
    cell.let_go(cell.take(3, 5), "unplugged", detail="went away")
    cell.let_go(cell.take(1, 6), "refused")
    cell.ledger.give_up(key, "the deadline has passed")
    five, six, seven = (row["reason"] for row in cell.ledger.missing_shards(key).to_pylist())
    assert five.startswith("the deadline has passed; refused by a car: row group 0: out of memory!!")
    assert len(five) < 300
    assert six == seven == "the deadline has passed"
