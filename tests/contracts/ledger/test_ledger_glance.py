"""A cell at a glance: what monitors and people see of a ledger."""

from dataclasses import asdict

from ledger_nights import Cell, judge, no, part, publish

from fleetbatch.ledger.messages import OrderState
from fleetbatch.units import CarId


def test_an_empty_cell_has_nothing_and_no_round(cell: Cell) -> None:
    seen = cell.ledger.glance()
    assert (seen.orders, seen.leases.total, seen.cars.total, seen.last_round) == ((), 0, 0, None)


def test_every_shard_of_an_open_order_is_counted_in_one_state(cell: Cell) -> None:
    cell.enrol(1, 2, 3)
    key = cell.open({1: (5,), 2: (5,), 3: (5,), 4: (5,)})
    cell.deliver(part(cell.take(1, 1), 0, 1, 5))
    [task] = cell.ledger.to_audit(1)
    cell.ledger.record_audit(judge(task))
    cell.deliver(part(cell.take(2, 2), 0, 1, 5))
    cell.take(3, 3)

    [order] = cell.ledger.glance().orders
    assert (order.key, order.state) == (key, OrderState.OPEN)
    assert asdict(order.shards) == {"ready": 1, "out": 1, "returned": 1, "valid": 1, "done": 0, "missing": 0}


def test_given_up_shards_are_counted_until_the_order_is_closed(cell: Cell) -> None:
    key = cell.open({1: (5,), 2: (5,)})
    cell.ledger.give_up(key, "the deadline")
    assert cell.ledger.glance().shards.missing == 2
    publish(cell.ledger, key)
    assert cell.ledger.glance().orders == ()


def test_an_order_without_shards_in_this_cell_is_seen_as_well(cell: Cell) -> None:
    key = cell.open({})
    assert [(one.key, one.shards.total) for one in cell.ledger.glance().orders] == [(key, 0)]


def test_open_leases_are_parted_by_age(cell: Cell) -> None:
    cell.enrol(1, 2)
    cell.open({1: (5, 5), 2: (5, 5)})
    old = cell.take(1, 1)
    cell.serve(minutes=9)
    cell.beat(old)
    cell.take(2, 2)

    leases = cell.ledger.glance().leases
    assert leases.counts == (1, 0, 1, 0, 0)
    assert leases.cloud == 0


def test_every_car_is_in_one_state(cell: Cell) -> None:
    cell.enrol(1, 2, 3, 4)
    cell.open({1: (5,), 2: (5,)})
    cell.take(1, 1)
    cell.take(0, 2)
    cell.ledger.set_consent(no(3))
    cell.ledger.revoke_car(CarId(4), "stolen")

    cars = cell.ledger.glance().cars
    assert asdict(cars) == {"computing": 1, "idle": 1, "unwilling": 1, "revoked": 1}
