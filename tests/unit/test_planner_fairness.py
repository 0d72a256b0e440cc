"""Owners take turns, workloads get their part where the dial says so, and carbon has its price."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_tables import NOW, POLICY, car, cars, shard, shards

from benchmarks.planner_fleet import NIGHT_S, Evening, evening
from fleetbatch.errors import RejectedError
from fleetbatch.planner import Policy, plan_round, verify_round

PRICES = replace(POLICY, prices_from_cars=1)


@settings(max_examples=15, deadline=None)
@given(deficits=st.lists(st.integers(0, 15), min_size=20, max_size=60, unique=False), work=st.integers(1, 10))
def test_of_equal_cars_those_whose_owners_are_due_most_have_work(deficits: list[int], work: int) -> None:
    owners = list(enumerate([*deficits, 15], start=1))
    fleet = cars(*(car(number, deficit_units=float(due)) for number, due in owners))
    waiting = shards(*(shard(number, row_groups=1) for number in range(100, 100 + work)))
    for policy in (POLICY, PRICES):
        found = plan_round(fleet, waiting, NOW, policy)
        busy = set(found.assignments["car_id"].to_pylist())
        least = min(due for number, due in owners if number in busy)
        assert all(due <= least for number, due in owners if number not in busy)
        assert verify_round(fleet, waiting, NOW, policy, found) == []


def test_cars_that_are_nearly_alike_take_turns_as_well() -> None:
    chance = np.random.default_rng(8)
    owed = chance.integers(0, 15, 60).astype(float)
    fleet = cars(*(
        car(number, deficit_units=owed[number - 1], speed=float(chance.uniform(1.01, 1.1))) for number in range(1, 61)
    ))  # fmt: skip
    waiting = shards(*(shard(number, row_groups=1) for number in range(100, 120)))
    found = plan_round(fleet, waiting, NOW, PRICES)
    busy = np.isin(np.arange(1, 61), found.assignments["car_id"].to_numpy())
    assert busy.sum() == 20
    assert owed[busy].min() >= owed[~busy].max()


def expected_by_workload(e: Evening, policy: Policy) -> npt.NDArray[np.float64]:
    found = plan_round(e.cars, e.shards, NOW, policy)
    assert found.planner == "prices"
    assert verify_round(e.cars, e.shards, NOW, policy, found) == []
    place = np.searchsorted(e.shards["shard_id"].to_numpy(), found.assignments["shard_id"].to_numpy())
    units = found.assignments["expected_units"].to_numpy()
    return np.asarray(np.bincount(e.shards["workload"].to_numpy()[place], weights=units, minlength=3), np.float64)


def test_a_floor_feeds_the_workload_that_prices_would_starve() -> None:
    e = evening(800, load=2.0, seed=5)
    column = e.shards.column_names.index("priority")
    starved = np.where(e.shards["workload"].to_numpy() == 1, 2, 0).astype(np.uint8)
    e = replace(e, shards=e.shards.set_column(column, e.shards.schema.field(column), pa.array(starved)))
    whole = replace(e.policy, commit_s=NIGHT_S)
    free = expected_by_workload(e, whole)
    fair = expected_by_workload(e, replace(whole, workload_floor=0.9))
    assert fair[1] > 1.5 * free[1]


def test_a_floor_that_cannot_be_met_is_missed_and_the_round_is_still_planned() -> None:
    e = evening(400, load=2.0, seed=5)
    nobody = replace(e.policy, rates=tuple((a, 0.0, c) for a, _, c in e.policy.rates), workload_floor=1.0)
    assert expected_by_workload(e, nobody)[1] == 0.0


def test_hours_of_dirty_energy_are_left_out_where_the_night_is_long_enough() -> None:
    e = evening(500, load=0.3, seed=4)
    free = replace(e.policy, price_per_j=((0.0,) * 6,), upsets_per_hour=0.0)
    dirty_now = replace(free, carbon_g_per_j=((1.0, *[0.0] * 5),), carbon_currency_per_g=1e-4)
    clean_now = replace(free, carbon_g_per_j=((0.0, *[1.0] * 5),), carbon_currency_per_g=1e-4)
    assert plan_round(e.cars, e.shards, NOW, dirty_now).assignments.num_rows == 0
    assert plan_round(e.cars, e.shards, NOW, clean_now).assignments.num_rows > 200


@pytest.mark.parametrize(
    "dials", [{"carbon_g_per_j": ((1.0, 2.0),)}, {"workload_floor": 1.5}, {"upsets_per_hour": -1.0}]
)
def test_dials_that_make_no_sense_are_refused_by_name(dials: dict[str, object]) -> None:
    with pytest.raises(RejectedError, match=next(iter(dials))):
        plan_round(cars(), shards(), NOW, replace(POLICY, **dials))  # type: ignore[arg-type] # any dial
