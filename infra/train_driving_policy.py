# ruff: noqa: INP001, T201, ANN401 # a script, it tells how far it is, and highway-env ships no types
"""Train the default driving policy: a small network learns by imitation what a rule does on simulated highways.

`python infra/train_driving_policy.py [OUT]`. The rule sees the whole road (keep a time gap, pass where both gaps of the
other lane are wide enough, as IDM and MOBIL do); the network sees the nearest vehicles only. It drives itself while the
rule tells what it should have done (DAgger), so that it learns to leave the situations into which it gets itself.
Everything follows from the seeds. Takes about three minutes of one core (156 CPU seconds).
"""

import argparse
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gymnasium
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from fleetbatch.bundle.policy import open_policy
from fleetbatch.packing.policy import GOLDENS, pack_policy
from fleetbatch.workloads.driving import Scenario, drive
from fleetbatch.workloads.scenario import open_driver

OUT: Final = Path(__file__).parents[1] / "fleetbatch" / "models" / "driving_policy.zip"
ENVIRONMENT: Final = "highway_env:highway-fast-v0"
LEFT, IDLE, RIGHT, FASTER, SLOWER = range(5)
VALUES: Final = 25
"""Five vehicles with five values each: the environment's default observation."""
HIDDEN: Final = 48
ROUNDS: Final = 6
EPISODES: Final = 20
"""Of each round."""
EPOCHS: Final = 60
BATCH: Final = 64
RATE: Final = 3e-3
JUDGED: Final = 40
"""Unseen scenarios in which the policy is judged."""
TIME_GAP_S: Final = 1.3
WIDE_M: Final = 14.0
"""A lane is entered when the vehicles ahead and behind in it are this far away, and more if they close in."""

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Network:
    """Weights and biases, layer by layer; the layers but the last are rectified."""

    weights: list[Floats]
    biases: list[Floats]

    @classmethod
    def random(cls, chance: np.random.Generator) -> "Network":
        """Return a network that knows nothing yet (He's variances)."""
        sizes = (VALUES, HIDDEN, HIDDEN, 5)
        pairs = list(itertools.pairwise(sizes))
        return cls(
            weights=[(chance.standard_normal(p) * np.sqrt(2 / p[0])).astype(np.float32) for p in pairs],
            biases=[np.zeros(out, np.float32) for _, out in pairs],
        )

    def layers(self, inputs: Floats) -> list[Floats]:
        """Return what goes into each layer, and last what comes out."""
        values = [inputs]
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            out = values[-1] @ weight + bias
            values.append(np.maximum(out, 0) if place + 1 < len(self.weights) else out)
        return values

    def gradients(self, inputs: Floats, answers: Ints) -> list[Floats]:
        """Return the slopes of the cross entropy: of the weights, then of the biases."""
        values = self.layers(inputs)
        powers = np.exp(values[-1] - values[-1].max(axis=1, keepdims=True))
        slope = powers / powers.sum(axis=1, keepdims=True)
        slope[np.arange(len(answers)), answers] -= 1
        slope /= len(answers)
        weights, biases = [], []
        for place in reversed(range(len(self.weights))):
            weights.append(values[place].T @ slope)
            biases.append(slope.sum(axis=0))
            slope = (slope @ self.weights[place].T) * (values[place] > 0)
        return [*reversed(weights), *reversed(biases)]


def train(network: Network, inputs: Floats, answers: Ints, chance: np.random.Generator) -> None:
    """Fit the network to what the rule did (Adam)."""
    parts = [*network.weights, *network.biases]
    first, second = [np.zeros_like(p) for p in parts], [np.zeros_like(p) for p in parts]
    step = 0
    for _ in range(EPOCHS):
        order = chance.permutation(len(inputs))
        for start in range(0, len(order), BATCH):
            chosen, step = order[start : start + BATCH], step + 1
            slopes = network.gradients(inputs[chosen], answers[chosen])
            for place, slope in enumerate(slopes):
                first[place] += 0.1 * (slope - first[place])
                second[place] += 0.001 * (slope**2 - second[place])
                spread = np.sqrt(second[place] / (1 - 0.999**step)) + 1e-8
                parts[place] -= RATE * (first[place] / (1 - 0.9**step)) / spread


def rule(world: Any) -> int:
    """Return what a driver does who sees the whole road."""
    own, road = world.vehicle, world.road
    ahead, _ = road.neighbour_vehicles(own, own.lane_index)
    gap = np.inf if ahead is None else own.lane_distance_to(ahead) - own.LENGTH
    closing = 0.0 if ahead is None else own.speed - ahead.speed
    wanted = own.speed * TIME_GAP_S + max(0.0, closing) * 3.0
    if gap > wanted + 15.0:
        return FASTER
    if gap > wanted:
        return IDLE
    for action, lane in zip((LEFT, RIGHT), _beside(own.lane_index), strict=True):
        if lane in road.network.side_lanes(own.lane_index) and _is_wide(own, road, lane, gap):
            return action
    return SLOWER


def _beside(lane: tuple[Any, Any, int]) -> tuple[tuple[Any, Any, int], tuple[Any, Any, int]]:
    start, end, number = lane
    return (start, end, number - 1), (start, end, number + 1)


def _is_wide(own: Any, road: Any, lane: tuple[Any, Any, int], gap: float) -> bool:
    """Return whether another lane is safe to enter, and better than this one."""
    ahead, behind = road.neighbour_vehicles(own, lane)
    room = np.inf if ahead is None else own.lane_distance_to(ahead) - own.LENGTH
    left = np.inf if behind is None else -own.lane_distance_to(behind) - own.LENGTH
    faster_behind = 0.0 if behind is None else max(0.0, behind.speed - own.speed)
    slower_ahead = 0.0 if ahead is None else max(0.0, own.speed - ahead.speed)
    return bool(room > max(WIDE_M + 2 * slower_ahead, gap) and left > WIDE_M / 2 + 2 * faster_behind)


def configurations(chance: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yield roads of three and four lanes, empty and full."""
    while True:
        yield {
            "lanes_count": int(chance.integers(3, 5)),
            "vehicles_count": int(chance.integers(10, 40)),
            "vehicles_density": float(chance.uniform(0.8, 1.6)),
        }


def drive_and_ask(network: Network | None, seeds: range, chance: np.random.Generator) -> tuple[Floats, Ints]:
    """Let the network drive (the rule, when there is none) and note what the rule would have done."""
    inputs, answers = [], []
    for seed, config in zip(seeds, configurations(chance), strict=False):
        environment = gymnasium.make(ENVIRONMENT, config=config)
        observation, _ = environment.reset(seed=seed)
        over = False
        while not over:
            seen = np.asarray(observation, np.float32).reshape(1, -1)
            right = rule(environment.unwrapped)
            inputs.append(seen[0])
            answers.append(right)
            action = right if network is None else int(network.layers(seen)[-1].argmax())
            observation, _, terminated, truncated, _ = environment.step(action)
            over = terminated or truncated
        environment.close()
    return np.array(inputs, np.float32), np.array(answers, np.int64)


def to_onnx(network: Network) -> bytes:
    """Write the network down as ONNX, operator by operator."""
    nodes, weights, last = [], [], "observation"
    for place, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        weights += [numpy_helper.from_array(weight, f"weight{place}"), numpy_helper.from_array(bias, f"bias{place}")]
        is_last = place + 1 == len(network.weights)
        out = "action" if is_last else f"sum{place}"
        nodes.append(helper.make_node("Gemm", [last, f"weight{place}", f"bias{place}"], [out]))
        if not is_last:
            nodes.append(helper.make_node("Relu", [out], [f"hidden{place}"]))
        last = f"hidden{place}"
    taken = helper.make_tensor_value_info("observation", TensorProto.FLOAT, [1, VALUES])
    given = helper.make_tensor_value_info("action", TensorProto.FLOAT, [1, 5])
    graph = helper.make_graph(nodes, "driving", [taken], [given], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def main() -> None:
    """Train, say how it drives on roads that it has not seen, and write the bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=OUT)
    out = parser.parse_args().out
    warnings.simplefilter("ignore")  # Gymnasium warns of what it will change one day
    chance = np.random.default_rng(1)
    network = Network.random(chance)
    inputs, answers = drive_and_ask(None, range(10_000, 10_000 + EPISODES), chance)
    for number in range(ROUNDS):
        train(network, inputs, answers, chance)
        first = 20_000 + number * EPISODES
        seen, right = drive_and_ask(network, range(first, first + EPISODES), chance)
        agreed = float((network.layers(seen)[-1].argmax(axis=1) == right).mean())
        print(
            f"round {number}: {len(inputs)} decisions learnt, {100 * agreed:.1f} % of {len(seen)} new ones as the rule"
        )
        inputs, answers = np.concatenate([inputs, seen]), np.concatenate([answers, right])
    train(network, inputs, answers, chance)
    seen = inputs[:: max(1, len(inputs) // GOLDENS)][:GOLDENS]
    data = pack_policy(to_onnx(network), "driving-policy", observations=seen)
    out.write_bytes(data)
    _judge(data)


def _judge(data: bytes) -> None:
    """Print how often it crashes on unseen roads, beside a driver who always goes on as before."""
    learnt = open_driver(open_policy(data), threads=1)
    idle = np.eye(5, dtype=np.float32)[IDLE]
    for name, policy in (("the policy", learnt), ("doing nothing", lambda _: idle)):
        ends = [drive(Scenario(environment=ENVIRONMENT, seed=s), policy, steps_max=1000) for s in range(JUDGED)]
        crashes = sum(end.termination == "collision" for end in ends)
        speed = np.mean([end.trajectory.speed_mps.mean() for end in ends if end.trajectory])
        print(f"{name}: {crashes} of {len(ends)} scenarios end in a collision, mean speed {speed:.1f} m/s")


if __name__ == "__main__":
    main()
