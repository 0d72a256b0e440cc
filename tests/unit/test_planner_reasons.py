"""Whatever waits and whoever is idle is told the true reason, and a person reads it from the stored tables."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from planner_tables import NOW, POLICY, car, cars, falling, mixed_fleet, mixed_work, shard, shards

from benchmarks.planner_fleet import evening
from fleetbatch.contracts import empty
from fleetbatch.planner import Policy, Reason, Round, plan_round, verify_round, why

PRICES = replace(POLICY, prices_from_cars=1)


def reasons(rows: pa.Table) -> set[int]:
    return set(rows["reason"].to_numpy().tolist())


def told(found: Round, fleet: pa.Table, wanted: int) -> str:
    tables = {"assignments": found.assignments, "unassigned": found.unassigned, "car_plan": found.car_plan}
    return "\n".join(why({**tables, "excluded": empty("excluded"), "cars": fleet}, wanted))


def test_at_overload_what_the_night_has_no_time_for_is_outbid() -> None:
    e = evening(600, load=2.5, seed=2)
    found = plan_round(e.cars, e.shards, NOW, e.policy)
    outbid = found.unassigned.filter(pa.array(found.unassigned["reason"].to_numpy() == Reason.OUTBID))["shard_id"]
    priority = e.shards["priority"].to_numpy()[np.searchsorted(e.shards["shard_id"].to_numpy(), outbid.to_numpy())]
    assert len(priority) > 0.2 * e.shards.num_rows
    assert priority.min() >= 1


def test_work_and_cars_that_keep_for_cheap_hours_say_so() -> None:
    e = evening(600, load=0.4, seed=4)
    dear_now = replace(e.policy, price_per_j=((1e-4, *[0.0] * 5),))
    found = plan_round(e.cars, e.shards, NOW, dear_now)
    assert reasons(found.unassigned) == {Reason.BETTER_HOURS}
    idle = found.car_plan.filter(pa.array(found.car_plan["reason"].to_numpy() == Reason.BETTER_LATER))
    assert idle.num_rows > 300
    assert "better hours" in told(found, e.cars, int(idle["car_id"].to_numpy()[0]))


def test_work_that_is_worth_less_than_its_energy_says_so() -> None:
    e = evening(300, load=0.5, seed=4)
    dear = replace(e.policy, price_per_j=((1.0,) * 6,))
    found = plan_round(e.cars, e.shards, NOW, dear)
    assert found.assignments.num_rows == 0
    assert reasons(found.unassigned) == {Reason.NOT_WORTH}


@pytest.mark.parametrize("policy", [POLICY, PRICES])
def test_work_that_is_due_before_any_car_is_there_is_not_called_too_dear(policy: Policy) -> None:
    fleet, work = (
        cars(car(1, ready_s=4000.0), car(2, limit_s=100.0)),
        shards(shard(11, deadline_s=3000.0, work_units=6000.0)),
    )
    found = plan_round(fleet, work, NOW, policy)
    assert reasons(found.unassigned) == {Reason.TOO_LONG}
    assert verify_round(fleet, work, NOW, policy, found) == []


@pytest.mark.parametrize("policy", [POLICY, PRICES])
@pytest.mark.parametrize(
    ("fleet", "work", "reason"),
    [
        (cars(car(1)), shards(), Reason.NO_WORK),
        (cars(car(1)), shards(shard(11, held_by=[7]), shard(12, deadline_s=-1.0)), Reason.NO_WORK),
        (cars(car(1, consent=0)), shards(shard(11)), Reason.NOTHING_FITS),
        (cars(car(1, ready_s=5000.0)), shards(shard(11)), Reason.NOT_READY),
        (cars(car(1, limit_s=30.0)), shards(shard(11)), Reason.SHORT_WINDOW),
        (cars(car(1, survival=falling(2)), car(2)), shards(shard(11)), Reason.ALL_PLACED),
        (cars(car(1, running_shard=77, running_row_group=0)), shards(shard(11)), Reason.BUSY),
        (
            cars(car(1, running_shard=11, running_row_group=0, limit_s=30.0)),
            shards(shard(11, held_by=[1001]), shard(12)),
            Reason.RUNS_LATE,
        ),
    ],
)
def test_a_car_that_has_nothing_says_why(fleet: pa.Table, work: pa.Table, reason: Reason, policy: Policy) -> None:
    found = plan_round(fleet, work, NOW, policy)
    [row] = [row for row in found.car_plan.to_pylist() if row["car_id"] == 1]
    assert row["reason"] == reason
    assert reason.said in told(found, fleet, 1)


@pytest.mark.parametrize("seed", range(4))
def test_every_reason_of_a_mixed_round_is_a_sentence(seed: int) -> None:
    fleet, work = mixed_fleet(60, seed), mixed_work(150, seed)
    for policy in (POLICY, PRICES):
        found = plan_round(fleet, work, NOW, policy)
        for number in [*fleet["car_id"].to_numpy().tolist(), *found.unassigned["shard_id"].to_numpy().tolist()]:
            assert told(found, fleet, number)
        short = [row["car_id"] for row in found.car_plan.to_pylist() if row["reason"] == Reason.SHORT_WINDOW]
        assert not set(short) & set(found.assignments["car_id"].to_pylist())
        assert verify_round(fleet, work, NOW, policy, found) == []
