"""Classes of cars sum up exactly what each car would do in each block, whatever it is busy with."""

import numpy as np
import pytest
from planner_tables import POLICY, car, cars, falling, mixed_fleet, mixed_work, shard, shards

from fleetbatch.planner.classes import fleet_of
from fleetbatch.planner.grid import grid_of
from fleetbatch.planner.inputs import read_inputs
from fleetbatch.planner.kinds import work_of
from fleetbatch.planner.policy import HORIZON_S


def test_a_car_that_nobody_knows_to_become_free_is_never_there() -> None:
    fleet, work = read_inputs(cars(car(1), car(2), car(3)), shards(shard(11)), POLICY)
    grid = grid_of(work, POLICY)
    classes = fleet_of(fleet, np.array([np.inf, 1800.0, 0.0]), work_of(work, grid, POLICY).kinds, grid, POLICY)
    there = classes.presence.sum(axis=0)[np.argsort(classes.order)]
    assert there.tolist() == pytest.approx([0.0, 27_000.0, 28_800.0])
    assert np.isfinite(classes.work).all()


@pytest.mark.parametrize("free", [0.0, 899.0, 900.0, 12_345.0, HORIZON_S, HORIZON_S + 1.0, 1e12])
def test_presence_begins_when_the_car_is_free(free: float) -> None:
    curve = falling(8)
    fleet, work = read_inputs(cars(car(1, survival=curve)), shards(shard(11)), POLICY)
    grid = grid_of(work, POLICY)
    classes = fleet_of(fleet, np.array([free]), work_of(work, grid, POLICY).kinds, grid, POLICY)
    seconds = np.linspace(min(free, 28_800.0), 28_800.0, 200_001)
    true = np.trapezoid(np.interp(seconds, np.arange(97) * 900.0, np.array(curve) / 255.0), seconds)
    assert float(classes.seconds.sum()) == pytest.approx(float(true), rel=1e-4, abs=1e-2)


@pytest.mark.parametrize("seed", range(3))
def test_sums_of_classes_are_sums_of_their_cars(seed: int) -> None:
    fleet, work = read_inputs(mixed_fleet(200, seed), mixed_work(80, seed), POLICY)
    grid = grid_of(work, POLICY)
    classes = fleet_of(fleet, np.zeros(200), work_of(work, grid, POLICY).kinds, grid, POLICY)
    every = np.einsum("hi,ki->hk", classes.presence.astype(float), classes.rate.astype(float))
    assert classes.work.sum(axis=0) == pytest.approx(every, rel=1e-5)
    assert sorted(classes.order.tolist()) == list(range(200))
