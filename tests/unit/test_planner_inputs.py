"""Whatever tables and dials a round is asked with, it is planned, empty, or refused by name."""

from dataclasses import replace

import polars as pl
import pyarrow as pa
import pytest
from planner_tables import NOW, POLICY, car, cars, mixed_fleet, mixed_work, shard, shards

from fleetbatch.errors import RejectedError
from fleetbatch.planner import FramedRound, Round, plan_round, plan_simply, verify_round
from fleetbatch.planner.policy import Policy

PRICES = replace(POLICY, prices_from_cars=1)
either = pytest.mark.parametrize("policy", [POLICY, PRICES], ids=["simple", "prices"])


def frame(rows: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(rows)


@either
@pytest.mark.parametrize(
    ("fleet", "work"),
    [
        (cars(), shards()),
        (cars(car(1)), shards()),
        (cars(), shards(shard(11))),
        (cars(car(1, survival=[255] + [0] * 96)), shards(shard(11, work_units=1e6))),
        (cars(car(1, speed=0.0)), shards(shard(11))),
        (cars(car(1, link_down_Bps=0.0)), shards(shard(11))),
        (cars(car(1)), shards(shard(11, rg_next=10))),
        (cars(car(1)), shards(shard(11, row_groups=0))),
    ],
)
def test_nothing_to_plan_is_a_valid_empty_round(fleet: pa.Table, work: pa.Table, policy: Policy) -> None:
    planned = plan_round(fleet, work, NOW, policy)
    assert planned.assignments.num_rows == 0
    assert verify_round(fleet, work, NOW, policy, planned) == []


@either
def test_one_car_and_one_shard_is_a_round_of_one_piece(policy: Policy) -> None:
    assert plan_round(cars(car(1)), shards(shard(11)), NOW, policy).assignments.num_rows == 1


@either
def test_work_of_no_units_is_placed_without_harm(policy: Policy) -> None:
    fleet, work = cars(car(1)), shards(shard(11, work_units=0.0), shard(12))
    assert verify_round(fleet, work, NOW, policy, plan_round(fleet, work, NOW, policy)) == []


def test_next_to_no_work_is_placed_by_the_simple_rule_too() -> None:
    fleet, work = cars(car(1)), shards(shard(11, work_units=1e-306, size_B=0))
    found = plan_simply(fleet, work, NOW, POLICY)
    assert found.assignments["rg_end"].to_pylist() == [10]
    assert verify_round(fleet, work, NOW, POLICY, found) == []


@pytest.mark.parametrize(
    ("fleet", "work", "said"),
    [
        (cars(car(1), car(1)), shards(), "car_id 0000000000000001 is there twice"),
        (cars(), shards(shard(11), shard(11)), "shard_id 000000000000000b is there twice"),
        (cars(car(1, speed=float("nan"))), shards(), "speed is not a finite number"),
        (cars(car(1, speed=3.4e38)), shards(), "speed is not a finite number of at least 0 and at most 1e+15"),
        (cars(car(1, link_down_Bps=-1.0)), shards(), "link_down_Bps is not a finite number"),
        (cars(car(1, ready_s=float("inf"))), shards(), "ready_s is not a finite number"),
        (cars(car(1, limit_s=-5.0)), shards(), "limit_s is not a finite number"),
        (cars(car(1, hw=9)), shards(), "hw is beyond the policy's 2 hardware classes"),
        (cars(car(1, price_zone=3)), shards(), "price_zone is beyond"),
        (cars(car(1, survival=[255, 1, 2] + [0] * 94)), shards(), "survival does not start at 255 or rises"),
        (cars(), shards(shard(11, work_units=float("nan"))), "work_units is not a finite number"),
        (cars(), shards(shard(11, work_units=-1.0)), "work_units is not a finite number"),
        (cars(), shards(shard(11, deadline_s=float("nan"))), "deadline_s is not a number"),
        (cars(), shards(shard(11, workload=7)), "workload is beyond the policy's 2 workloads"),
        (cars(), shards(shard(11, rg_next=11)), "rg_next lies beyond row_groups"),
        (cars(), shards(shard(11, replicas=2)), "one holder at a time"),
        (
            cars(car(1, running_shard=11), car(2, running_shard=11)),
            shards(shard(11, held_by=[1001])),
            "1 shards are run by two cars; the first is shard_id 000000000000000b",
        ),
        (cars(car(1, running_shard=11), car(2)), shards(shard(11)), "1 shards are run by a car and held by nobody"),
    ],
)
def test_input_that_makes_no_sense_is_refused_by_name(fleet: pa.Table, work: pa.Table, said: str) -> None:
    with pytest.raises(RejectedError) as refusal:
        plan_round(fleet, work, NOW, POLICY)
    assert said in str(refusal.value)


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(RejectedError) as refusal:
        plan_round(cars(car(1, speed=-1.0), car(2, hw=9)), shards(shard(11, work_units=-1.0)), NOW, POLICY)
    assert len(refusal.value.problems) == 3


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Policy(rates=((1.0,), (1.0, 2.0)), power_w=(1.0, 1.0)), "rates"),
        (Policy(rates=((float("nan"),),), power_w=(1.0,)), "rates"),
        (Policy(rates=((1.0,),), power_w=()), "power_w"),
        (Policy(rates=((1.0,),), power_w=(1.0,), commit_s=-1.0), "commit_s"),
        (Policy(rates=((1.0,),), power_w=(1.0,), pieces_max=0), "pieces_max"),
        (Policy(rates=((1.0,),), power_w=(1.0,), stay_min=2.0), "stay_min"),
        (Policy(rates=((1.0,),), power_w=(1.0,), price_until_s=(2.0, 1.0)), "price_until_s"),
        (Policy(rates=((1.0,),), power_w=(1.0,), price_until_s=(float("nan"),)), "price_until_s"),
        (Policy(rates=((1.0,),), power_w=(1.0,), value_per_unit=()), "value_per_unit"),
        (Policy(rates=((1.0,),), power_w=(1.0,), value_per_unit=(0.0, 0.0)), "value_per_unit"),
        (Policy(rates=((1.0,),), power_w=(1.0,), value_per_unit=(1e300,)), "value_per_unit"),
        (Policy(rates=((1e300,),), power_w=(1.0,)), "rates"),
        (Policy(rates=((1.0,),), power_w=(1.0,), unit_currency=1e-300), "unit_currency"),
        (Policy(rates=((1.0,),), power_w=(1.0,), unit_currency=float("nan")), "unit_currency"),
        (Policy(rates=((1.0,),), power_w=(1.0,), carbon_currency_per_g=float("inf")), "carbon_currency_per_g"),
        (Policy(rates=((1.0,),), power_w=(1.0,), carbon_g_per_j=((1.0, 2.0),)), "carbon_g_per_j"),
        (Policy(rates=((1.0,),), power_w=(1.0,), model_bytes=(-1.0,)), "model_bytes"),
    ],
)
def test_dials_that_make_no_sense_are_refused_by_name(policy: Policy, said: str) -> None:
    with pytest.raises(RejectedError) as refusal:
        plan_round(cars(), shards(), NOW, policy)
    assert said in str(refusal.value)


def test_polars_frames_are_planned_as_the_tables_they_came_from_and_come_back_as_frames() -> None:
    fleet, work = mixed_fleet(30, 4), mixed_work(90, 4)
    by_tables, by_frames = plan_round(fleet, work, NOW, POLICY), plan_round(frame(fleet), frame(work), NOW, POLICY)
    assert (type(by_tables), type(by_frames)) == (Round, FramedRound)
    for name in ("assignments", "car_plan", "unassigned"):
        assert getattr(by_frames, name).equals(frame(getattr(by_tables, name)))
    assert by_frames.assignments.height > 0
    assert verify_round(fleet, work, NOW, POLICY, by_frames.round) == []


def test_a_frame_that_breaks_the_contract_is_refused_as_a_table_is() -> None:
    fleet = frame(cars(car(1)))
    with pytest.raises(RejectedError, match="speed"):
        plan_round(fleet.drop("speed"), frame(shards()), NOW, POLICY)
    with pytest.raises(RejectedError, match="speed is not a finite number"):
        plan_round(fleet.with_columns(speed=pl.lit(float("nan"), pl.Float32)), frame(shards()), NOW, POLICY)


def test_the_smallest_fleet_is_planned_by_prices_unless_a_policy_says_otherwise() -> None:
    policy = Policy(rates=POLICY.rates, power_w=POLICY.power_w)  # all other dials as they come
    planned = plan_round(cars(car(1)), shards(shard(11), shard(12, held_by=[999])), NOW, policy)
    assert planned.planner == "prices"
    assert planned.assignments["shard_id"].to_pylist() == [11]
    held = plan_round(cars(car(1)), shards(shard(12, held_by=[999])), NOW, policy)
    assert (held.planner, held.assignments.num_rows) == ("prices", 0)
