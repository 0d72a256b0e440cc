"""Classes of cars sum up exactly what each car would do in each block, whatever it is busy with."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_tables import NOW, POLICY, car, cars, falling, mixed_fleet, mixed_work, shard, shards

from fleetbatch.planner import Reason, plan_round
from fleetbatch.planner.classes import fleet_of
from fleetbatch.planner.grid import grid_of
from fleetbatch.planner.inputs import read_inputs
from fleetbatch.planner.kinds import work_of
from fleetbatch.planner.pieces import row_group_s
from fleetbatch.planner.policy import HORIZON_S


def test_a_car_that_nobody_knows_to_become_free_is_never_there() -> None:
    fleet, work = read_inputs(cars(car(1), car(2), car(3)), shards(shard(11)), POLICY)
    grid = grid_of(work, POLICY)
    kinds = work_of(work, fleet.memory, grid, POLICY).kinds
    classes = fleet_of(fleet, np.array([np.inf, 1800.0, 0.0]), kinds, grid, POLICY)
    there = classes.presence.sum(axis=0)[np.argsort(classes.order)]
    assert there.tolist() == pytest.approx([0.0, 27_000.0, 28_800.0])
    assert np.isfinite(classes.work).all()


@pytest.mark.parametrize("free", [0.0, 899.0, 900.0, 12_345.0, HORIZON_S, HORIZON_S + 1.0, 1e12])
def test_presence_begins_when_the_car_is_free(free: float) -> None:
    curve = falling(8)
    fleet, work = read_inputs(cars(car(1, survival=curve)), shards(shard(11)), POLICY)
    grid = grid_of(work, POLICY)
    classes = fleet_of(fleet, np.array([free]), work_of(work, fleet.memory, grid, POLICY).kinds, grid, POLICY)
    seconds = np.linspace(min(free, 28_800.0), 28_800.0, 200_001)
    true = np.trapezoid(np.interp(seconds, np.arange(97) * 900.0, np.array(curve) / 255.0), seconds)
    assert float(classes.seconds.sum()) == pytest.approx(float(true), rel=1e-4, abs=1e-2)


@pytest.mark.parametrize("seed", range(3))
def test_sums_of_classes_are_sums_of_their_cars(seed: int) -> None:
    fleet, work = read_inputs(mixed_fleet(200, seed), mixed_work(80, seed), POLICY)
    grid = grid_of(work, POLICY)
    classes = fleet_of(fleet, np.zeros(200), work_of(work, fleet.memory, grid, POLICY).kinds, grid, POLICY)
    every = np.einsum("hi,ki->hk", classes.presence.astype(float), classes.rate.astype(float))
    assert classes.work.sum(axis=0) == pytest.approx(every, rel=1e-5)
    assert sorted(classes.order.tolist()) == list(range(200))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0.0, 3.0), memories=st.integers(1, 40))
def test_the_bound_counts_on_no_less_than_any_car_does_of_any_shard(seed: int, spread: float, memories: int) -> None:
    chance = np.random.default_rng(seed)
    sizes = [int(one) for one in chance.integers(1 << 30, 3 << 30, memories)]
    fleet, work = read_inputs(
        cars(*(car(n, mem_B=int(chance.choice(sizes)), hw=int(chance.integers(2))) for n in range(1, 30))),
        shards(*(
            shard(n, mem_B=int(chance.choice(sizes)) - 1, size_B=int(6e6 * np.exp(chance.normal(0, spread))))
            for n in range(100, 220)
        )),
        POLICY,
    )  # fmt: skip
    grid = grid_of(work, POLICY)
    found = work_of(work, fleet.memory, grid, POLICY)
    classes = fleet_of(fleet, np.zeros(29), found.kinds, grid, POLICY)
    kind = found.tiers(np.arange(120)) // found.demand[0].size
    for place in range(120):
        seconds = row_group_s(fleet, work, POLICY, classes.order, np.full(29, place))
        true = work.units(np.array([place])) / seconds
        assert (classes.best[kind[place]] >= true * (1 - 1e-6)).all()
        assert (classes.rate[kind[place]] <= true * (1 + 1e-6)).all()


def test_a_car_between_two_sizes_of_memory_is_given_what_fits() -> None:
    fleet = cars(*(car(number, mem_B=(11 << 30) // 10) for number in range(1, 4)))
    work = shards(shard(11, mem_B=1 << 30), shard(12, mem_B=(13 << 30) // 10))
    found = plan_round(fleet, work, NOW, replace(POLICY, prices_from_cars=1))
    assert found.assignments["shard_id"].to_pylist() == [11]
    assert found.certificate.upper_bound > 0.95 * found.certificate.placed > 0.0
    assert found.unassigned.to_pylist() == [{"shard_id": 12, "reason": int(Reason.NO_MEMORY)}]
