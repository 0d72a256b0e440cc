"""One scenario in closed loop: an environment of Gymnasium, a policy, and the trajectory that they made of it."""

import contextlib
import inspect
import io
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
import numpy as np

from fleetbatch.errors import in_one_line
from fleetbatch.workloads.left_as_found import creator_of, left_as_found
from fleetbatch.workloads.trajectory import Trajectory
from fleetbatch.workloads.watch import Watch

Policy: TypeAlias = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
"""An observation, flat, to the output of a network, flat."""

SEED_MAX: Final = 2**32 - 1
STEPS_TRIED: Final = 4
Found = TypeVar("Found")


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row: everything that a run follows from, beside the policy and the versions of the packages."""

    environment: str
    """Gymnasium's id, such as highway_env:highway-fast-v0; what stands before the colon is imported."""
    seed: int
    config: dict[str, Any] = {}
    """Handed to the environment when it is made: as its `config` where it has one, else name by name."""


class ScenarioError(Exception):
    """A scenario that cannot be driven to its end; the row is a dead letter with this reason."""


class MisfitError(ScenarioError):
    """What policy and environment give each other is not what they take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One driven scenario."""

    termination: str
    """collision, off_road, terminated (the environment's own end) or time_limit."""
    steps: int
    """Decisions of the policy."""
    reward: float
    policy_s: float
    """Seconds that the policy took, all steps together."""
    trajectory: Trajectory | None
    """None in an environment whose vehicle cannot be watched."""


def drive(scenario: Scenario, policy: Policy, *, steps_max: int) -> Episode:
    """Run a scenario to its end; it follows from scenario and policy alone, whatever ran before in this process.

    Raises ScenarioError when the environment or the policy does not play its part.
    """
    return _in_environment(scenario, lambda environment: _drive(environment, scenario.seed, policy, steps_max))


def take_first_steps(scenario: Scenario, policy: Policy) -> None:
    """Let a policy begin twice; raise MisfitError when it and the environment do not fit each other.

    Nor does an environment that is seen otherwise the second time: no car's answer could be checked by another's.
    Raises another ScenarioError when it comes to no action in this scenario.
    """
    first, second = (
        _in_environment(scenario, lambda environment: _seen_first(environment, scenario.seed, policy)) for _ in "12"
    )
    if first != second:
        message = f"environment {scenario.environment} does not follow from its seed: driven twice, it is another world"
        raise MisfitError(message)


def _in_environment(scenario: Scenario, use: Callable[[Any], Found]) -> Found:
    """Do something with the environment, as it is whatever ran before; raise ScenarioError for what goes wrong."""
    random.seed(scenario.seed)  # some environments draw from the global generators
    np.random.seed(scenario.seed % SEED_MAX)  # noqa: NPY002 (the generator that they draw from)
    try:
        with _apart(scenario), contextlib.closing(_make(scenario)) as environment:
            return use(environment)
    except ScenarioError:
        raise
    except Exception as error:
        # an environment raises whatever it raises
        message = f"environment {scenario.environment} broke: {in_one_line(error)}"
        raise ScenarioError(message) from error


def problem_of(scenario: Scenario) -> str:
    """Return why its environment cannot be made here with its configuration, or nothing."""
    try:
        with _apart(scenario), contextlib.closing(_make(scenario)):
            return ""
    except ScenarioError as error:
        return str(error)


def _drive(environment: Any, seed: int, policy: Policy, steps_max: int) -> Episode:  # noqa: ANN401 (generic)
    observation = _begun(environment, seed)
    watch = Watch.of(environment.unwrapped)
    steps, reward, policy_s = 0, 0.0, 0.0
    while True:
        began = time.perf_counter()
        output = policy(_flat(environment.observation_space, observation))
        policy_s += time.perf_counter() - began
        observation, gained, terminated, truncated, _ = environment.step(_action(environment, output, steps))
        steps, reward = steps + 1, reward + float(gained)
        if terminated or truncated:
            break
        if steps >= steps_max:
            message = f"the episode is not over after {steps} steps"
            raise ScenarioError(message)
    if watch and watch.time_stands():
        message = "no time passes in the environment: look at its simulation_frequency and policy_frequency"
        raise ScenarioError(message)
    trajectory = watch.trajectory() if watch else None
    return Episode(
        termination=_termination(trajectory, terminated=bool(terminated)),
        steps=steps,
        reward=reward,
        policy_s=policy_s,
        trajectory=trajectory,
    )


def _begun(environment: Any, seed: int) -> Any:  # noqa: ANN401 (generic)
    """Return the first observation; whatever an environment draws from follows from the seed, its spaces included.

    `reset` leaves them out, or makes them anew. One that an environment has seeded itself is seeded by the row.
    """
    before = (environment.action_space, environment.observation_space)
    for space in before:
        space.seed(seed)
    observation, _ = environment.reset(seed=seed)
    for space in (environment.action_space, environment.observation_space):
        if not any(space is one for one in before):
            space.seed(seed)
    return observation


def _seen_first(environment: Any, seed: int, policy: Policy) -> list[tuple[bytes, float]]:  # noqa: ANN401 (generic)
    """Return (what is seen, what is gained then) of the first steps, STEPS_TRIED at most."""
    observation, seen = _begun(environment, seed), list[tuple[bytes, float]]()
    for step in range(STEPS_TRIED):
        values = _flat(environment.observation_space, observation)
        observation, gained, terminated, truncated, _ = environment.step(_action(environment, policy(values), step))
        seen.append((values.tobytes(), float(gained)))
        if terminated or truncated:
            break
    return seen


@contextlib.contextmanager
def _apart(scenario: Scenario) -> Iterator[None]:
    """Keep what an environment prints and warns of out of the logs, and what it changes from the next scenario."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with left_as_found(scenario.environment):
            yield


def _make(scenario: Scenario) -> Any:  # noqa: ANN401 (Gymnasium's environments are generic in what they observe)
    import gymnasium

    whole, shows = _takes(scenario.environment)
    if "render_mode" in scenario.config:
        message = f"environment {scenario.environment} knows no configuration render_mode: nobody looks on"
        raise ScenarioError(message)
    try:
        given: dict[str, Any] = {"config": scenario.config} if whole and scenario.config else scenario.config
        environment = gymnasium.make(scenario.environment, **given, **({"render_mode": None} if shows else {}))
    except Exception as error:
        # an environment's package raises whatever it raises
        message = f"environment {scenario.environment} cannot be made: {in_one_line(error)}"
        raise ScenarioError(message) from error
    describe = getattr(environment.unwrapped, "default_config", None)  # highway-env passes over what it does not know
    unknown = sorted(scenario.config.keys() - describe().keys()) if whole and describe is not None else []
    if unknown:
        message = f"environment {scenario.environment} knows no configuration {', '.join(unknown)}"
        raise ScenarioError(message)
    return environment


def _takes(environment: str) -> tuple[bool, bool]:
    """Return whether an environment takes one table as its configuration, as highway-env's do, and a render mode.

    Others are configured by keyword arguments. What takes any may open a window, unless it is told not to.
    """
    made = creator_of(environment)
    parameters: Mapping[str, inspect.Parameter] = {}
    with contextlib.suppress(TypeError, ValueError):  # nothing is known of it
        parameters = inspect.signature(made).parameters
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    return hasattr(made, "default_config") or "config" in parameters, "render_mode" in parameters or takes_any


def _flat(space: Any, observation: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401 (whatever the environment observes)
    values = np.concatenate([*_parts(space, observation)])
    if not np.isfinite(values).all():
        message = "the environment's observation is not finite"
        raise ScenarioError(message)
    return values


def _parts(space: Any, observation: Any) -> Iterator[np.ndarray[Any, Any]]:  # noqa: ANN401 (generic)
    """Yield each of the things that are observed, in the order of their space, as it is observed alone."""
    from gymnasium.spaces import Dict, Tuple

    match space:
        case Dict():
            for name, inner in space.items():
                yield from _parts(inner, observation[name])
        case Tuple():
            for inner, part in zip(space.spaces, observation, strict=True):
                yield from _parts(inner, part)
        case _:
            yield np.asarray(observation, dtype=np.float32).reshape(-1)


def _action(environment: Any, output: np.ndarray[Any, Any], step: int) -> Any:  # noqa: ANN401 (generic)
    """Turn the network's output into what the environment takes: the best of its choices, or values within bounds."""
    from gymnasium.spaces import Box, Discrete

    if not np.isfinite(output).all():
        message = f"the policy gave no number at step {step}"
        raise ScenarioError(message)
    space = environment.action_space
    match space:
        case Discrete() if output.size == space.n:
            return int(space.start + np.argmax(output))
        case Box() if output.size == int(np.prod(space.shape)):
            return np.clip(output.reshape(space.shape), space.low, space.high).astype(space.dtype)
        case _:
            message = f"the policy gives {output.size} values, the environment takes {space}"
            raise MisfitError(message)


def _termination(trajectory: Trajectory | None, *, terminated: bool) -> str:
    if trajectory is not None and trajectory.impact_mps is not None:
        return "collision"
    if terminated and trajectory is not None and trajectory.stretch[-1] < 0:
        return "off_road"
    return "terminated" if terminated else "time_limit"
