"""What an environment and a policy must have in common, and what of one scenario says nothing of the others."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from surroundings import importable

from fleetbatch.bundle import read_model_file
from fleetbatch.orders import model_file
from fleetbatch.workloads.driving import Scenario, drive
from fleetbatch.workloads.scenario import ScenarioWorkload

MOODY = '''
import gymnasium
import numpy as np

shown_as = []


class Moody(gymnasium.Env):
    """Has no road for some seeds, and opens a window for whoever does not forbid it."""

    def __init__(self, render_mode="human"):
        shown_as.append(render_mode)
        self.observation_space = gymnasium.spaces.Box(-1, 1, (25,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(5)

    def reset(self, *, seed=None, options=None):
        if seed == 1:
            raise RuntimeError("no road")
        return np.full(25, np.nan if seed == 2 else 0.0, np.float32), {}

    def step(self, action):
        return np.zeros(25, np.float32), 1.0, True, False, {"shown": self.render_mode}


class Anew(Moody):
    """Makes its spaces anew for every episode, and draws from them."""

    def reset(self, *, seed=None, options=None):
        self.observation_space = gymnasium.spaces.Dict({"one": gymnasium.spaces.Box(-1, 1, (25,), np.float32)})
        return {"one": np.zeros(25, np.float32)}, {}

    def step(self, action):
        return self.observation_space.sample(), float(self.observation_space.sample()["one"][0]), True, False, {}


class Whim(Moody):
    """Gains what no seed decides."""

    def step(self, action):
        return np.zeros(25, np.float32), np.random.default_rng().random(), True, False, {}


def made_of(**anything):
    return Moody(**anything)


gymnasium.register(id="Moody-v0", entry_point="moody_world:Moody")
gymnasium.register(id="Anew-v0", entry_point="moody_world:Anew")
gymnasium.register(id="Whim-v0", entry_point="moody_world:Whim")
gymnasium.register(id="Made-v0", entry_point="moody_world:made_of")
'''
SCENARIO = ScenarioWorkload()


@pytest.fixture
def moody(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "moody_world.py").write_text(MOODY)
    with importable(tmp_path):
        yield "moody_world:Moody-v0"
    sys.modules.pop("moody_world", None)


def misfit(environment: str, seed: int) -> str:
    policy = read_model_file(model_file("driving-policy"))
    return SCENARIO.misfit(policy, json.dumps({"environment": environment, "seed": seed}).encode())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_first_scenario_that_breaks_by_itself_is_no_reason_against_the_policy(moody: str, seed: int) -> None:
    assert misfit(moody, seed) == ""


def test_a_policy_for_other_observations_is_one() -> None:
    assert misfit("CartPole-v1", 1) == "the policy takes 25 values, the environment gives 4"


def test_an_environment_that_does_not_follow_from_its_seed_is_one_as_no_car_could_be_checked(moody: str) -> None:
    why = "environment moody_world:Whim-v0 does not follow from its seed: driven twice, it is another world"
    assert misfit(moody.replace("Moody", "Whim"), 3) == why


def test_an_environment_that_draws_from_spaces_made_anew_follows_from_its_seed(moody: str) -> None:
    world = moody.replace("Moody", "Anew")
    assert misfit(world, 3) == ""
    three, again, four = (
        drive(Scenario(environment=world, seed=seed), lambda _: np.zeros(5), steps_max=9).reward for seed in (3, 3, 4)
    )
    assert three == again != four


def test_an_order_without_a_policy_is_left_to_what_says_that_it_needs_one() -> None:
    assert SCENARIO.misfit(None, b'{"environment": "CartPole-v1", "seed": 1}') == ""


@pytest.mark.usefixtures("moody")
@pytest.mark.parametrize("name", ["Moody-v0", "Made-v0"])
def test_no_environment_opens_a_window_that_can_be_told_not_to(name: str) -> None:
    shown: list[object] = []

    def policy(_: np.ndarray) -> np.ndarray:
        shown.extend(sys.modules["moody_world"].shown_as)
        return np.zeros(5)

    assert drive(Scenario(environment=f"moody_world:{name}", seed=3), policy, steps_max=9).reward == 1.0
    assert shown == [None]


def test_things_observed_together_are_observed_as_each_is_alone() -> None:
    seen: list[np.ndarray] = []

    def policy(observed: np.ndarray) -> np.ndarray:
        seen.append(observed)
        return np.array([1.0, 0.0])

    drive(Scenario(environment="Blackjack-v1", seed=3), policy, steps_max=9)
    cards, shown, ace = seen[0].tolist()
    assert 4 <= cards <= 21
    assert 1 <= shown <= 10
    assert ace in {0.0, 1.0}
