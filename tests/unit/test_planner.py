"""A round keeps every hard rule, says why of everything it leaves out, and does not depend on the order of rows."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_tables import NOW, POLICY, car, cars, falling, mixed_fleet, mixed_work, shard, shards

from fleetbatch.contracts import conform
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.reasons import Reason
from fleetbatch.planner.round import plan_round
from fleetbatch.planner.verify import verify_round

SEEDS = st.integers(0, 2**32 - 1)


def queues(round_: pa.Table) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row in round_.to_pylist():
        found.setdefault(row["car_id"], []).append(row["shard_id"])
    return found


def reason_of(fleet: pa.Table, work: pa.Table, shard_id: int) -> Reason:
    waits = plan_round(fleet, work, NOW, POLICY).unassigned.to_pylist()
    return next(reason for reason in Reason for row in waits if (row["shard_id"], row["reason"]) == (shard_id, reason))


def test_the_most_urgent_shard_goes_to_the_car_that_stays_longest() -> None:
    fleet = cars(car(1, survival=falling(2)), car(2, survival=falling(20)))
    work = shards(shard(11, priority=2), shard(12, priority=0))
    assert queues(plan_round(fleet, work, NOW, POLICY).assignments) == {1: [11], 2: [12]}


def test_every_car_gets_one_shard_before_any_gets_two() -> None:
    fleet = cars(*(car(number) for number in range(1, 5)))
    work = shards(*(shard(number) for number in range(11, 17)))
    assert sorted(len(queue) for queue in queues(plan_round(fleet, work, NOW, POLICY).assignments).values()) == [
        1,
        1,
        2,
        2,
    ]


def test_a_car_that_must_leave_early_gets_the_row_groups_it_can_finish() -> None:
    fleet, work = cars(car(1, limit_s=200.0)), shards(shard(11))
    planned = plan_round(fleet, work, NOW, POLICY)
    [row] = planned.assignments.to_pylist()
    assert (row["rg_start"], row["rg_end"]) == (0, 3)
    assert planned.unassigned.to_pylist() == [{"shard_id": 11, "reason": Reason.REMAINDER}]


def test_a_running_car_keeps_its_shard_and_gets_the_next_behind_it() -> None:
    fleet = cars(car(1, running_shard=12, running_row_group=4, survival=falling(1)), car(2))
    work = shards(shard(11, priority=0), shard(12, rg_next=4, held_by=[1001]), shard(13, priority=0))
    planned = plan_round(fleet, work, NOW, POLICY)
    assert queues(planned.assignments)[1][0] == 12
    assert planned.assignments["reason"][0].as_py() == Reason.RUNNING
    assert not verify_round(fleet, work, NOW, POLICY, planned)


def test_a_shard_under_someone_elses_lease_waits() -> None:
    assert reason_of(cars(car(1)), shards(shard(11, held_by=[999])), 11) == Reason.HELD


def test_a_car_whose_shard_is_no_longer_open_is_not_given_another() -> None:
    fleet, work = cars(car(1, running_shard=77, running_row_group=0)), shards(shard(11))
    planned = plan_round(fleet, work, NOW, POLICY)
    assert planned.assignments.num_rows == 0
    assert planned.car_plan["reason"].to_pylist() == [Reason.BUSY]


@pytest.mark.parametrize(
    ("fleet", "work", "reason"),
    [
        (cars(), shards(shard(11)), Reason.NO_CARS),
        (cars(car(1, ready_s=9e4)), shards(shard(11)), Reason.NO_CARS),
        (cars(car(1, region=1)), shards(shard(11, region=2)), Reason.NO_REGION),
        (cars(car(1, consent=2)), shards(shard(11)), Reason.NO_CONSENT),
        (cars(car(1, hw=1)), shards(shard(11, hw_mask=1)), Reason.NO_HARDWARE),
        (cars(car(1, mem_B=5)), shards(shard(11)), Reason.NO_MEMORY),
        (cars(car(1)), shards(shard(11, deadline_s=-1.0)), Reason.DEADLINE_PASSED),
        (cars(car(1)), shards(shard(11, deadline_s=30.0)), Reason.TOO_LONG),
        (cars(car(1, survival=[255] + [0] * 96)), shards(shard(11, work_units=1e6)), Reason.TOO_LONG),
        (cars(car(1)), shards(*(shard(number) for number in range(1, 12))), Reason.LATER),
    ],
)
def test_a_shard_that_waits_says_why(fleet: pa.Table, work: pa.Table, reason: Reason) -> None:
    assert reason_of(fleet, work, 11) == reason


def test_hardware_that_cannot_compute_a_workload_is_not_asked_to() -> None:
    policy = Policy(rates=((0.0,), (1.0,)), power_w=(1.0, 1.0))
    planned = plan_round(cars(car(1, hw=0), car(2, hw=1)), shards(shard(11), shard(12)), NOW, policy)
    assert set(queues(planned.assignments)) == {2}


def test_a_car_loads_the_model_first_unless_it_has_it() -> None:
    policy = Policy(rates=((1.0, 1.0),), power_w=(1.0,), model_bytes=(1e9, 1e9))
    planned = plan_round(cars(car(1, cached=0), car(2, cached=1)), shards(shard(11), shard(12)), NOW, policy)
    ends = {row["car_id"]: row["end_s"] for row in planned.assignments.to_pylist()}
    assert ends[1] - ends[2] == pytest.approx(100.0, abs=0.1)


def test_equal_input_in_any_row_order_gives_the_equal_round() -> None:
    fleet, work = mixed_fleet(30, 5), mixed_work(60, 5)
    turned = fleet.take(np.random.default_rng(1).permutation(fleet.num_rows))
    shuffled = work.take(np.random.default_rng(2).permutation(work.num_rows))
    first, second = plan_round(fleet, work, NOW, POLICY), plan_round(turned, shuffled, NOW, POLICY)
    assert first.assignments.equals(second.assignments)
    assert first.unassigned.equals(second.unassigned)
    assert first.car_plan.equals(second.car_plan)


def test_other_ids_in_the_same_order_give_the_same_round() -> None:
    fleet, work = mixed_fleet(20, 9), mixed_work(40, 9)
    renamed = fleet.set_column(0, fleet.schema.field(0), pa.array(fleet["car_id"].to_numpy() * 1000 + 7))
    first, second = plan_round(fleet, work, NOW, POLICY), plan_round(renamed, work, NOW, POLICY)
    assert np.array_equal(first.assignments["car_id"].to_numpy() * 1000 + 7, second.assignments["car_id"].to_numpy())
    assert first.assignments.drop_columns(["car_id"]).equals(second.assignments.drop_columns(["car_id"]))


def test_values_ten_times_as_high_change_nothing_but_the_certificate() -> None:
    fleet, work = mixed_fleet(20, 3), mixed_work(40, 3)
    dear = replace(POLICY, value_per_unit=(100.0, 30.0, 10.0))
    first, second = plan_round(fleet, work, NOW, POLICY), plan_round(fleet, work, NOW, dear)
    assert first.assignments.equals(second.assignments)
    assert second.certificate.value == pytest.approx(10 * first.certificate.value)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, fleet_size=st.integers(0, 25), work_size=st.integers(0, 50))
def test_no_round_breaks_a_rule(seed: int, fleet_size: int, work_size: int) -> None:
    fleet, work = mixed_fleet(fleet_size, seed), mixed_work(work_size, seed)
    planned = plan_round(fleet, work, NOW, POLICY)
    assert verify_round(fleet, work, NOW, POLICY, planned) == []
    for name in ("assignments", "unassigned", "car_plan"):
        conform(getattr(planned, name), name)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_no_less_urgent_shard_is_placed_where_a_more_urgent_one_of_its_list_would_fit(seed: int) -> None:
    fleet, work = mixed_fleet(12, seed), mixed_work(40, seed)
    planned = plan_round(fleet, work, NOW, POLICY)
    shard_rows = {row["shard_id"]: row for row in work.to_pylist()}
    car_rows = {row["car_id"]: row for row in fleet.to_pylist()}
    waiting = [shard_rows[row["shard_id"]] for row in planned.unassigned.to_pylist() if row["reason"] == Reason.LATER]
    for row in planned.assignments.to_pylist():
        placed, who = shard_rows[row["shard_id"]], car_rows[row["car_id"]]
        for other in waiting:
            same = all(other[name] == placed[name] for name in ("workload", "hw_mask", "region", "mem_B"))
            if same and other["priority"] < placed["priority"]:
                rate = POLICY.rates[who["hw"]][other["workload"]] * who["speed"]
                seconds = max(other["work_units"] / rate, other["size_B"] / who["link_down_Bps"]) / other["row_groups"]
                fetch = other["size_B"] / other["row_groups"] / who["link_down_Bps"]
                ends = row["start_s"] + seconds + fetch
                assert ends > min(row["end_s"], other["deadline_s"])


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_planning_again_with_the_round_running_moves_no_running_piece(seed: int) -> None:
    fleet, work = mixed_fleet(15, seed), mixed_work(30, seed)
    first = plan_round(fleet, work, NOW, POLICY)
    heads = {row["car_id"]: row for row in first.assignments.to_pylist() if row["seq"] == 0 and row["start_s"] == 0.0}
    holders = {row["shard_id"]: car_id for car_id, row in heads.items()}
    owners = {row["car_id"]: row["owner_id"] for row in fleet.to_pylist()}
    running = cars(
        *(
            {
                **row,
                "running_shard": heads[row["car_id"]]["shard_id"],
                "running_row_group": heads[row["car_id"]]["rg_start"],
            }
            if row["car_id"] in heads
            else row
            for row in fleet.to_pylist()
        )
    )
    held = shards(
        *(
            {**row, "held_by": [owners[holders[row["shard_id"]]]]} if row["shard_id"] in holders else row
            for row in work.to_pylist()
        )
    )
    second = plan_round(running, held, NOW, POLICY)
    assert not verify_round(running, held, NOW, POLICY, second)
    kept = {row["car_id"]: row["shard_id"] for row in second.assignments.to_pylist() if row["seq"] == 0}
    assert {car_id: kept.get(car_id) for car_id in heads} == {car_id: row["shard_id"] for car_id, row in heads.items()}


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_the_bound_does_not_fall_with_more_work_and_does_not_rise_with_less_consent(seed: int) -> None:
    fleet, work = mixed_fleet(10, seed), mixed_work(20, seed)
    less = work.slice(0, 10)
    bound = plan_round(fleet, work, NOW, POLICY).certificate.upper_bound
    assert plan_round(fleet, less, NOW, POLICY).certificate.upper_bound <= bound
    nobody = fleet.set_column(
        fleet.column_names.index("consent"), fleet.schema.field("consent"), pa.array(np.zeros(10, np.uint32))
    )
    assert plan_round(nobody, work, NOW, POLICY).certificate.upper_bound <= bound


def test_two_cells_plan_what_is_allowed_together() -> None:
    fleet, work = mixed_fleet(30, 7), mixed_work(60, 7)
    halves = [plan_round(_half(fleet, odd), _half(work, odd), NOW, POLICY) for odd in (0, 1)]
    together = pa.concat_tables([half.assignments for half in halves])
    assert len(set(together["shard_id"].to_pylist())) == together.num_rows > 0


def _half(rows: pa.Table, odd: int) -> pa.Table:
    return rows.take(np.flatnonzero(rows[rows.column_names[0]].to_numpy() % 2 == odd))
