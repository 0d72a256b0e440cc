"""Running work moves only from a car that will be late to one that will not, and is idle or has less urgent work."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_tables import NOW, POLICY, car, cars, mixed_fleet, mixed_work, shard, shards

from fleetbatch.planner import Policy, Reason, Round, given_away, plan_round, verify_round
from fleetbatch.planner.pieces import Pieces, Queues, concat, in_order

PRICES = replace(POLICY, prices_from_cars=1)
HOLDER: dict[str, Any] = {"running_shard": 11, "running_row_group": 2}
SLOW = car(1, speed=0.1, **HOLDER)
RUNNING = shard(11, rg_next=2, held_by=[1001], deadline_s=2400.0)


def holders(found: Round) -> dict[int, int]:
    rows = found.assignments.to_pylist()
    return {row["shard_id"]: row["car_id"] for row in rows}


@pytest.mark.parametrize("policy", [POLICY, PRICES])
def test_an_idle_car_takes_over_what_its_holder_would_not_end_in_time(policy: Policy) -> None:
    fleet, work = cars(SLOW, car(2)), shards(RUNNING)
    found = plan_round(fleet, work, NOW, policy)
    [row] = found.assignments.to_pylist()
    assert (row["car_id"], row["rg_start"], row["rg_end"], row["reason"]) == (2, 2, 10, Reason.HANDED_OVER)
    assert found.car_plan["reason"].to_pylist() == [Reason.GIVES_AWAY, Reason.HAS_WORK]
    assert found.unassigned.num_rows == 0
    assert given_away(fleet, found) == [(1, 11)]
    assert verify_round(fleet, work, NOW, policy, found) == []


def test_a_car_that_will_not_end_another_row_group_gives_its_shard_away() -> None:
    fleet, work = cars(car(1, limit_s=10.0, **HOLDER), car(2)), shards(RUNNING)
    assert holders(plan_round(fleet, work, NOW, POLICY)) == {11: 2}


@pytest.mark.parametrize(
    ("fleet", "work"),
    [
        (cars(car(1, **HOLDER), car(2)), shards(RUNNING)),
        (cars(SLOW, car(2)), shards({**RUNNING, "deadline_s": 80_000.0})),
        (cars(SLOW, car(2, speed=0.11)), shards(RUNNING)),
        (cars(SLOW, car(2, consent=2)), shards(RUNNING)),
        (cars(SLOW, car(2, ready_s=900.0)), shards(RUNNING)),
        (cars(SLOW, car(2)), shards(RUNNING, shard(12))),
    ],
    ids=["in time", "time enough", "no faster", "no consent", "not free now", "has work of its own"],
)
def test_running_work_stays_where_a_change_gains_nothing(fleet: pa.Table, work: pa.Table) -> None:
    found = plan_round(fleet, work, NOW, POLICY)
    assert holders(found)[11] == 1
    assert given_away(fleet, found) == []


@pytest.mark.parametrize("policy", [POLICY, PRICES])
def test_nobody_takes_work_over_beyond_the_commit_horizon_however_near_that_is(policy: Policy) -> None:
    fleet, work = cars(SLOW, car(2, ready_s=30.0)), shards(RUNNING)
    for commit_s, holder in ((31.0, 2), (30.0, 1), (0.0, 1)):
        at_once = replace(policy, commit_s=commit_s)
        found = plan_round(fleet, work, NOW, at_once)
        assert holders(found) == {11: holder}
        assert verify_round(fleet, work, NOW, at_once, found) == []


@pytest.mark.parametrize("policy", [POLICY, PRICES])
def test_an_urgent_shard_that_would_be_late_goes_before_less_urgent_work_that_is_just_placed(policy: Policy) -> None:
    urgent, other = {**RUNNING, "priority": 0}, shard(12, priority=2)
    fleet, work = cars(SLOW, car(2)), shards(urgent, other)
    found = plan_round(fleet, work, NOW, policy)
    assert holders(found) == {11: 2}
    assert found.unassigned["shard_id"].to_pylist() == [12]
    assert given_away(fleet, found) == [(1, 11)]
    assert verify_round(fleet, work, NOW, policy, found) == []


def test_an_urgent_shard_goes_to_a_car_that_stays_rather_than_to_a_faster_one_that_leaves() -> None:
    fleet = cars(SLOW, car(2, speed=1.5, limit_s=300.0), car(3))
    assert holders(plan_round(fleet, shards(RUNNING), NOW, POLICY)) == {11: 3}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_round_with_late_holders_breaks_a_rule(seed: int) -> None:
    fleet, work = mixed_fleet(25, seed).to_pylist(), mixed_work(12, seed).to_pylist()
    pairs = list(zip(fleet[::3], work[::2], strict=False))
    for one, held in pairs:
        one |= {"running_shard": held["shard_id"], "running_row_group": held["rg_next"]}
        held |= {"held_by": [one["owner_id"]]}
    for policy in (POLICY, PRICES):
        found = plan_round(cars(*fleet), shards(*work), NOW, policy)
        assert verify_round(cars(*fleet), shards(*work), NOW, policy, found) == []
        again = plan_round(cars(*fleet[::-1]), shards(*work[::-1]), NOW, policy)
        assert again.assignments.equals(found.assignments)


def spoiled(found: Round, **values: Any) -> Round:
    rows = [{**row, **values} for row in found.assignments.to_pylist()]
    return replace(found, assignments=pa.Table.from_pylist(rows, schema=found.assignments.schema))


def broken(fleet: pa.Table, work: pa.Table, found: Round) -> str:
    return " ".join(one.rule for one in verify_round(fleet, work, NOW, POLICY, found))


def test_a_needless_handover_is_refused() -> None:
    fleet, work = cars(SLOW, car(2)), shards(RUNNING)
    found = plan_round(fleet, work, NOW, POLICY)
    quick = cars(car(1, **HOLDER), car(2))
    unknown = cars(car(1), car(2))
    assert "only from a holder who would be late" in broken(quick, work, found)
    assert "only from a holder who would be late" in broken(unknown, work, found)
    assert "handed over whole" in broken(fleet, work, spoiled(found, rg_end=9))
    assert "under lease stays with its holder" in broken(fleet, work, spoiled(found, reason=int(Reason.PRICE)))
    assert "handed over whole" in broken(cars(SLOW, car(2, running_shard=99, running_row_group=0)), work, found)


def whole(queues: Queues) -> Pieces:
    """Return all the pieces in order, put together from parts of two."""
    return concat([queues.part(first, first + 2) for first in range(0, len(queues), 2)])


def test_pieces_that_are_handed_over_stand_in_the_queue_of_their_new_car_in_place_of_what_it_had() -> None:
    queued = Pieces.of(
        car=np.array([3, 1, 0, 1, 4]), shard=np.array([30, 10, 0, 11, 40]), turn=np.array([0, 0, 0, 1, 0])
    )
    fresh = Pieces.of(car=np.array([5, 1, 2]), shard=np.array([50, 40, 20]))
    found = whole(in_order(queued, queued.car, np.array([True, False, True, False, False]), fresh))
    assert list(zip(found.car.tolist(), found.shard.tolist(), strict=True)) == [
        (0, 0),
        (1, 40),
        (2, 20),
        (3, 30),
        (5, 50),
    ]
    nothing = Pieces.of(car=np.zeros(0, np.int64))
    assert whole(in_order(queued, queued.car, np.ones(5, bool), nothing)).shard.tolist() == [0, 10, 11, 30, 40]
    assert len(in_order(nothing, nothing.car, np.zeros(0, bool), fresh)) == 3
