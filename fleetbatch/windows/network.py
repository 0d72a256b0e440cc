"""L2's core: small networks that correct L1's hazards, trained in numpy on one core in seconds. Pure and seeded.

Each output is the log-odds of leaving within one interval, given that the car is still there at its start: a
discrete-time survival model. The loss is its likelihood, so a censored stay counts for what was seen of it. The input
of the last layer also gets L1's log-odds (a residual), so that a network that learnt nothing says what L1 says.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fleetbatch.windows.clock import BoolArray, FloatArray

Float32 = npt.NDArray[np.float32]
CLIP: Final = 5.0
"""Standardised features beyond are held there: a value never seen in training must not run away."""
ODDS_CLIP: Final = 20.0
LEAST: Final = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkDials:
    """As chosen on sessions before the scored ones (README of this room)."""

    hidden: int = 64
    networks: int = 3
    epochs: int = 6
    batch: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    dropout: float = 0.1
    base_share: float = 0.7
    """How much of L1's log-odds a network starts with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network: layers of weights and biases, and the share of L1's log-odds per interval."""

    weights: tuple[Float32, ...]
    biases: tuple[Float32, ...]
    base_share: Float32

    def parameters(self) -> tuple[Float32, ...]:
        """Return all that training moves."""
        return (*self.weights, *self.biases, self.base_share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Networks whose survival curves are averaged, behind one standardisation of the features."""

    mean: Float32
    scale: Float32
    """Multiplies; 0 for a feature that never varied, so that it cannot speak later."""
    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """What to learn from: features, L1's log-odds, and per interval whether the car was at risk and left."""

    features: Float32
    base: Float32
    at_risk: BoolArray
    left: BoolArray


def lessons(features: Float32, base: Float32, outcome: tuple[FloatArray, BoolArray], edges_h: FloatArray) -> Lessons:
    """Turn outcomes (remaining hours, ended or only seen) into one row per moment and one column per interval."""
    remaining, ended = outcome[0][:, None], outcome[1][:, None]
    starts = np.concatenate([[0.0], edges_h[:-1]])
    left = ended & (remaining > starts) & (remaining <= edges_h)
    return Lessons(features=features, base=base, at_risk=left | (remaining > edges_h), left=left)


def train(taught: Lessons, dials: NetworkDials, seed: int) -> Ensemble:
    """Return the trained ensemble; the same lessons, dials and seed give the same numbers on the same machine."""
    spread = taught.features.std(axis=0)
    scale = np.where(spread > 1e-6, 1.0 / (spread + 1e-3), 0.0).astype(np.float32)  # noqa: PLR2004 (never varied)
    mean = taught.features.mean(axis=0)
    inputs = standardise(taught.features, mean, scale)
    networks = tuple(_train_one(inputs, taught, dials, np.random.default_rng([seed, n])) for n in range(dials.networks))
    return Ensemble(mean=mean, scale=scale, networks=networks)


def standardise(features: Float32, mean: Float32, scale: Float32) -> Float32:
    """Return features with mean 0 and spread 1, held within +-CLIP."""
    return np.asarray(np.clip((features - mean) * scale, -CLIP, CLIP), dtype=np.float32)


def log_survival(ensemble: Ensemble, features: Float32, base: Float32) -> Float32:
    """Return log S at the intervals' ends: what the ONNX file computes, here as the reference for its parity."""
    inputs = standardise(features, ensemble.mean, ensemble.scale)
    curves = []
    for network in ensemble.networks:
        odds, _ = _forward(network, inputs, base, None)
        hazard = 1.0 / (1.0 + np.exp(-np.clip(odds, -ODDS_CLIP, ODDS_CLIP)))
        curves.append(np.cumprod(1.0 - hazard, axis=1))
    return np.asarray(np.log(np.maximum(np.mean(curves, axis=0), LEAST)), dtype=np.float32)


def _train_one(inputs: Float32, taught: Lessons, dials: NetworkDials, chance: np.random.Generator) -> Network:
    network = _new_network(inputs.shape[1], taught.base.shape[1], dials, chance)
    moments = [(np.zeros_like(p), np.zeros_like(p)) for p in network.parameters()]
    batches = list(_batches(len(inputs), dials, chance))
    for step, rows in enumerate(batches, start=1):
        odds, kept = _forward(network, inputs[rows], taught.base[rows], (dials.dropout, chance))
        hazard = 1.0 / (1.0 + np.exp(-np.clip(odds, -ODDS_CLIP, ODDS_CLIP)))
        error = ((hazard - taught.left[rows]) * taught.at_risk[rows] / len(rows)).astype(np.float32)
        gradients = _gradients(network, error, taught.base[rows], kept)
        rate = dials.learning_rate * min(1.0, step / 200) * 0.5 * (1 + np.cos(np.pi * step / len(batches)))
        for place, parameter in enumerate(network.parameters()):
            decay = dials.weight_decay if parameter.ndim > 1 else 0.0
            move = _adam(gradients[place], *moments[place], step) + decay * parameter
            np.subtract(parameter, np.float32(rate) * move, out=parameter)
    return network


def _adam(gradient: Float32, first: Float32, second: Float32, step: int) -> Float32:
    """Return the step's direction and carry the two moments forward (Kingma and Ba 2015, decoupled decay)."""
    first += np.float32(0.1) * (gradient - first)
    second += np.float32(0.001) * (gradient**2 - second)
    unbiased = np.sqrt(second / np.float32(1 - 0.999**step)) + np.float32(1e-8)
    return np.asarray(first / np.float32(1 - 0.9**step) / unbiased, dtype=np.float32)


def _new_network(inputs: int, outputs: int, dials: NetworkDials, chance: np.random.Generator) -> Network:
    sizes = [inputs, dials.hidden, dials.hidden, outputs]
    shapes = list(itertools.pairwise(sizes))
    weights = [(chance.standard_normal(s) * np.sqrt(2.0 / s[0])).astype(np.float32) for s in shapes]
    weights[-1] *= np.float32(0.1)
    return Network(
        weights=tuple(weights),
        biases=tuple(np.zeros(size, np.float32) for size in sizes[1:]),
        base_share=np.full(outputs, dials.base_share, np.float32),
    )


def _batches(count: int, dials: NetworkDials, chance: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    size = min(dials.batch, count)
    for _ in range(dials.epochs):
        order = chance.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What the way back needs of the way there."""

    inputs: list[Float32]
    slopes: list[Float32]
    """Of each hidden layer's output with respect to its sum, dropout included."""


def _forward(
    network: Network, inputs: Float32, base: Float32, drop: tuple[float, np.random.Generator] | None
) -> tuple[Float32, _Kept]:
    kept = _Kept(inputs=[inputs], slopes=[])
    value = inputs
    for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
        total = value @ weight + bias
        gate = 1.0 / (1.0 + np.exp(-total))
        value, slope = total * gate, gate * (1.0 + total * (1.0 - gate))
        if drop is not None and drop[0] > 0:
            mask = (drop[1].random(value.shape, dtype=np.float32) >= drop[0]) / np.float32(1 - drop[0])
            value, slope = value * mask, slope * mask
        kept.inputs.append(value)
        kept.slopes.append(slope)
    return value @ network.weights[-1] + network.biases[-1] + network.base_share * base, kept


def _gradients(network: Network, error: Float32, base: Float32, kept: _Kept) -> list[Float32]:
    """Return the loss's gradients in the order of `Network.parameters`."""
    weights: list[Float32] = []
    biases: list[Float32] = []
    back = error
    for layer in range(len(network.weights) - 1, -1, -1):
        weights.insert(0, kept.inputs[layer].T @ back)
        biases.insert(0, back.sum(axis=0))
        if layer:
            back = (back @ network.weights[layer].T) * kept.slopes[layer - 1]
    return [*weights, *biases, (error * base).sum(axis=0)]
