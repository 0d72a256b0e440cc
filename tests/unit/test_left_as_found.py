"""Scenarios follow from their own rows, whatever an environment that ran before did to its package."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from surroundings import importable

from fleetbatch.workloads.driving import Scenario, drive
from fleetbatch.workloads.trajectory import digest

CARELESS = '''
import gymnasium
import numpy as np

driven = 0


class Player:
    played = 0


class Base(gymnasium.Env):
    class Ice:
        thickness = 1

    seen = []
    dials = {"friction": 1.0}
    weights = np.ones(2)
    limits = np.array([np.nan])
    limits.flags.writeable = False
    players = (first := Player(), {Player(): "second"})


class Careless(Base):
    """Rewards with all that it should not remember, and with what its action space draws."""

    def __init__(self, render_mode=None):
        self.observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(1000)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        global driven
        driven += 1
        self.seen.append(driven)
        self.dials["friction"] *= 0.5
        self.weights += 1
        Base.added = getattr(Base, "added", 0) + 1
        Base.Ice.thickness += 1
        Base.players[0].played += 1
        known = driven + len(self.seen) + self.dials["friction"] + self.weights.sum() + Base.added
        known += Base.Ice.thickness + Base.players[0].played
        return np.zeros(1, np.float32), known + int(self.action_space.sample()), True, False, {}


gymnasium.register(id="Careless-v0", entry_point="careless_world:Careless")
'''


@pytest.fixture
def careless(tmp_path: Path) -> Iterator[Scenario]:
    (tmp_path / "careless_world.py").write_text(CARELESS)
    with importable(tmp_path):
        yield Scenario(environment="careless_world:Careless-v0", seed=7)
    del sys.modules["careless_world"]


def first_of(count: int, _: object) -> np.ndarray:
    return np.arange(count) * -1.0


def test_what_an_environment_keeps_in_its_package_is_not_there_for_the_next_scenario(careless: Scenario) -> None:
    rewards = {drive(careless, lambda seen: first_of(1000, seen), steps_max=9).reward for _ in range(3)}
    assert len(rewards) == 1
    module = sys.modules["careless_world"]
    assert (module.driven, module.Base.seen, module.Base.dials) == (0, [], {"friction": 1.0})
    assert not hasattr(module.Base, "added")


def test_what_lies_in_an_environments_tables_is_the_same_thing_in_every_scenario(careless: Scenario) -> None:
    drive(careless, lambda seen: first_of(1000, seen), steps_max=9)
    base = sys.modules["careless_world"].Base
    first, others = base.players
    drive(careless, lambda seen: first_of(1000, seen), steps_max=9)
    assert base.players == (first, others)
    assert base.players[0] is base.first
    assert list(base.players[1]) == list(others)


def test_a_highway_is_driven_alike_before_and_after_an_intersection_that_turns_its_drivers_dials() -> None:
    config = {"duration": 10, "vehicles_count": 20, "vehicles_density": 2.0}
    highway = Scenario(environment="highway_env:highway-fast-v0", seed=1, config=config)
    crossing = Scenario(environment="highway_env:intersection-v2", seed=1, config={"duration": 1})

    def driven() -> str:
        trajectory = drive(highway, lambda seen: first_of(5, seen), steps_max=99).trajectory
        assert trajectory is not None
        return digest(trajectory)

    before = driven()
    drive(crossing, lambda seen: first_of(3, seen), steps_max=99)
    assert driven() == before
