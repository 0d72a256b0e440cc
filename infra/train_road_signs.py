# ruff: noqa: INP001, T201 # a script, and it tells how far it is
"""Train the road-sign model from drawn pictures and pack it: `make model`, about four CPU minutes, nothing downloaded.

The network, its training and its answers to the goldens are plain numpy, so that onnxruntime, which the cars use, is
checked against a second implementation. Pictures for training, for the held-out test and for the goldens come from
seeds that differ from each other and from every order's.
"""

import argparse
import io
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from fleetbatch.bundle import (
    Content,
    Golden,
    GoldenAnswer,
    Input,
    Manifest,
    Normalise,
    Output,
    Resize,
    build_bundle,
    open_bundle,
)
from fleetbatch.inference import check_goldens, open_inference
from fleetbatch.orders.parse import MODELS
from fleetbatch.packing.half import to_half
from fleetbatch.sharding.road_signs import LABELS, Drawing, label_of, picture_file, uris

SIDE: Final = 48
TRAIN_SEED, TEST_SEED, GOLDEN_SEED = 1_000_001, 1_000_002, 1_000_003
TEST_PICTURES: Final = 3000
BATCH: Final = 64
ACCURACY_MIN: Final = 0.95
MANIFEST: Final = Manifest(
    name="road-signs",
    workload="image",
    input=Input(name="picture", layout="NCHW", dtype="fp32", batch=0, width=SIDE, height=SIDE, colour="RGB"),
    resize=Resize(mode="squash", filter="bilinear"),
    normalise=Normalise(scale=1 / 127.5, mean=(1.0, 1.0, 1.0)),
    output=Output(name="logits", kind="logits"),
)

Floats = npt.NDArray[np.float32]
Weights = list[Floats]

LAYERS: Final = ((5, 3, 16, 2), (3, 16, 32, 2), (3, 32, 64, 2), (3, 64, 64, 1))
"""Convolutions: side of the kernel, channels in and out, stride; padded so that a stride of 2 halves the side."""


def drawn(seed: int, index_range: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return pictures [N, 48, 48, 3] and their classes, resized as the bundle says."""
    first, stop = index_range
    names = [uri for number, uri in enumerate(uris(Drawing(count=stop, seed=seed))) if number >= first]
    pictures = [Image.open(io.BytesIO(picture_file(uri))) for uri in names]
    squashed = [np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for picture in pictures]
    return np.stack(squashed), np.array([LABELS.index(label_of(uri)) for uri in names])


def draw_all(seed: int, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Draw many pictures on two cores."""
    ranges = [(start, min(start + 1000, count)) for start in range(0, count, 1000)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        pieces = list(pool.map(partial(drawn, seed), ranges))
    return np.concatenate([p for p, _ in pieces]), np.concatenate([c for _, c in pieces])


def normalised(pixels: npt.NDArray[Any]) -> Floats:
    """Return pixels as the network takes them."""
    return np.asarray(pixels.astype(np.float32) / np.float32(127.5) - np.float32(1), np.float32)


def new_weights(chance: np.random.Generator) -> Weights:
    """Return He-initialised kernels [k*k*in, out], biases, and the last layer."""
    weights: Weights = []
    for side, inputs, outputs, _ in LAYERS:
        weights += [scaled(chance, side * side * inputs, outputs), np.zeros(outputs, np.float32)]
    last = LAYERS[-1][2] * (SIDE // 8) ** 2
    return [*weights, scaled(chance, last, len(LABELS)), np.zeros(len(LABELS), np.float32)]


def scaled(chance: np.random.Generator, fan_in: int, outputs: int) -> Floats:
    """Return one He-initialised matrix."""
    return np.asarray(chance.standard_normal((fan_in, outputs)) * np.sqrt(2 / fan_in), np.float32)


def padding(side: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after, so that the output has side / stride."""
    whole = side - stride
    return whole // 2, whole - whole // 2


def columns(x: Floats, side: int, stride: int) -> Floats:
    """Return every window of x [N, H, W, C] as a row: [N, H/stride, W/stride, side*side*C]."""
    pad = padding(side, stride)
    padded = np.pad(x, ((0, 0), pad, pad, (0, 0)))
    windows = sliding_window_view(padded, (side, side), axis=(1, 2))[:, ::stride, ::stride]
    flat: Floats = np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3)).reshape(*windows.shape[:3], -1)
    return flat


def uncolumns(grad: Floats, shape: tuple[int, ...], side: int, stride: int) -> Floats:
    """Add every window's gradient to the place that it was taken from."""
    before, after = padding(side, stride)
    count, height, width, channels = shape
    padded = np.zeros((count, height + before + after, width + before + after, channels), np.float32)
    windows = grad.reshape(count, height // stride, width // stride, side, side, channels)
    for row in range(side):
        for column in range(side):
            padded[:, row : row + height : stride, column : column + width : stride] += windows[:, :, :, row, column]
    return padded[:, before : before + height, before : before + width]


def forward(weights: Weights, x: Floats) -> tuple[Floats, list[tuple[tuple[int, ...], Floats, Floats]], Floats]:
    """Return logits, and what the way back needs: each layer's input shape, windows and output; the flat features."""
    kept = []
    for number, (side, _, _, stride) in enumerate(LAYERS):
        windows = columns(x, side, stride)
        y = np.maximum(windows @ weights[2 * number] + weights[2 * number + 1], 0)
        kept.append((x.shape, windows, y))
        x = y
    flat = x.reshape(len(x), -1)
    return flat @ weights[-2] + weights[-1], kept, flat


def gradients(weights: Weights, x: Floats, classes: npt.NDArray[np.int64]) -> tuple[Weights, float]:
    """Return the gradient of the mean cross-entropy in the order of the weights, and the loss."""
    logits, kept, flat = forward(weights, x)
    chances = softmax(logits)
    loss = float(-np.log(chances[np.arange(len(x)), classes] + 1e-9).mean())
    grad = chances
    grad[np.arange(len(x)), classes] -= 1
    grad /= len(x)
    found = [grad.sum(0), flat.T @ grad]
    back = (grad @ weights[-2].T).reshape(kept[-1][2].shape)
    for number in reversed(range(len(LAYERS))):
        shape, windows, y = kept[number]
        rows = np.where(y > 0, back, np.float32(0)).reshape(-1, y.shape[-1])
        found += [rows.sum(0), windows.reshape(len(rows), -1).T @ rows]
        if number:
            back = uncolumns(np.asarray(rows @ weights[2 * number].T, np.float32), shape, *LAYERS[number][::3])
    return found[::-1], loss


def softmax(logits: Floats) -> Floats:
    """Return scores that sum to one."""
    risen = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(risen / risen.sum(1, keepdims=True), np.float32)


def batches(count: int, epochs: int, chance: np.random.Generator) -> Iterator[tuple[float, npt.NDArray[np.int64]]]:
    """Yield (share of the training done, indices) batch by batch, shuffled every epoch."""
    steps, done = epochs * (count // BATCH), 0
    for _ in range(epochs):
        order = chance.permutation(count)
        for start in range(0, count - BATCH + 1, BATCH):
            yield done / steps, order[start : start + BATCH]
            done += 1


def varied(pixels: npt.NDArray[np.uint8], chance: np.random.Generator) -> Floats:
    """Return a batch in other light and a little aside: a picture is never seen twice."""
    light = chance.uniform(0.75, 1.25, (len(pixels), 1, 1, 1)).astype(np.float32)
    aside = np.roll(pixels, tuple(int(v) for v in chance.integers(-2, 3, 2)), axis=(1, 2))
    return normalised(np.clip(aside * light, 0, 255))


def train(pixels: npt.NDArray[np.uint8], classes: npt.NDArray[np.int64], epochs: int) -> Weights:
    """Train with Adam (Kingma and Ba 2015, with decoupled decay) under a learning rate that rises and falls once."""
    chance = np.random.default_rng(7)
    weights = new_weights(chance)
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for step, (share, picked) in enumerate(batches(len(pixels), epochs, chance), start=1):
        rate = 2.5e-3 * min(share / 0.05, 1.0) * (0.5 + 0.5 * np.cos(np.pi * share)) + 1e-6
        found, loss = gradients(weights, varied(pixels[picked], chance), classes[picked])
        for number, grad in enumerate(found):
            first[number] += 0.1 * (grad - first[number])
            second[number] += 0.01 * (grad * grad - second[number])
            mean, spread = first[number] / (1 - 0.9**step), second[number] / (1 - 0.99**step)
            decay = 0.02 * weights[number] if weights[number].ndim > 1 else 0
            weights[number] -= np.float32(rate) * (mean / (np.sqrt(spread) + 1e-8) + decay)
        if step % 200 == 0:
            print(f"{share:4.0%} of the training, loss {loss:.3f}", flush=True)
    return weights


def accuracy(weights: Weights, pixels: npt.NDArray[np.uint8], classes: npt.NDArray[np.int64]) -> float:
    """Return the share of pictures whose best label is right."""
    starts = range(0, len(pixels), 250)
    best = [forward(weights, normalised(pixels[s : s + 250]))[0].argmax(1) for s in starts]
    return float((np.concatenate(best) == classes).mean())


def to_onnx(weights: Weights) -> bytes:
    """Return the network as ONNX, channels first as onnxruntime likes it."""
    nodes, tensors, name = [], [], MANIFEST.input.name
    for number, (side, inputs, outputs, stride) in enumerate(LAYERS):
        kernel = weights[2 * number].reshape(side, side, inputs, outputs).transpose(3, 2, 0, 1)
        tensors += [tensor(f"kernel{number}", kernel), tensor(f"bias{number}", weights[2 * number + 1])]
        before, after = padding(side, stride)
        conv: dict[str, Any] = {"kernel_shape": [side] * 2, "strides": [stride] * 2, "pads": [before] * 2 + [after] * 2}
        nodes.append(
            onnx.helper.make_node("Conv", [name, f"kernel{number}", f"bias{number}"], [f"conv{number}"], **conv)
        )
        name = f"relu{number}"
        nodes.append(onnx.helper.make_node("Relu", [f"conv{number}"], [name]))
    side, channels = SIDE // 8, LAYERS[-1][2]
    last = weights[-2].reshape(side, side, channels, -1).transpose(2, 0, 1, 3).reshape(-1, len(LABELS))
    tensors += [tensor("last", last), tensor("last_bias", weights[-1])]
    nodes.append(onnx.helper.make_node("Flatten", [name], ["flat"]))
    nodes.append(onnx.helper.make_node("Gemm", ["flat", "last", "last_bias"], [MANIFEST.output.name]))
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "road-signs",
        [onnx.helper.make_tensor_value_info(MANIFEST.input.name, kind, ["N", 3, SIDE, SIDE])],
        [onnx.helper.make_tensor_value_info(MANIFEST.output.name, kind, ["N", len(LABELS)])],
        tensors,
    )
    model = onnx.helper.make_model(graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def tensor(name: str, values: Floats) -> onnx.TensorProto:
    """Return one named constant."""
    return onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)


def triangle(wide: int) -> Floats:
    """Return the matrix [48, wide] that resizes a line: a triangle as wide as the larger pixel."""
    scale = max(wide / SIDE, 1.0)
    centres = (np.arange(SIDE) + 0.5) * wide / SIDE
    parts = np.maximum(1 - np.abs(np.arange(wide) + 0.5 - centres[:, None]) / scale, 0)
    return np.asarray(parts / parts.sum(1, keepdims=True), np.float32)


def golden(weights: Weights, uri: str) -> Golden:
    """Return a picture and this program's answer: resized, normalised and computed in numpy."""
    content = picture_file(uri)
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.float32)
    squashed = np.einsum("yh,hwc,xw->yxc", triangle(pixels.shape[0]), pixels, triangle(pixels.shape[1]))
    scores = softmax(forward(weights, normalised(squashed)[None])[0])[0]
    best = [int(c) for c in np.argsort(-scores, kind="stable")[:3]]
    answer = GoldenAnswer(
        picture=f"{uri.partition('#')[2]}.jpg",
        classes=tuple(best),
        labels=tuple(LABELS[c] for c in best),
        scores=tuple(round(float(scores[c]), 6) for c in best),
    )
    return Golden(answer=answer, content=content)


def goldens(weights: Weights) -> tuple[Golden, ...]:
    """Return one picture of every second class."""
    names = {label_of(uri): uri for uri in uris(Drawing(count=400, seed=GOLDEN_SEED))}
    return tuple(golden(weights, names[label]) for label in LABELS[::2])


def main() -> None:
    """Draw, train, test, export, compare with onnxruntime, pack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=MODELS / "road_signs.zip")
    parser.add_argument("--pictures", type=int, default=16_000)
    parser.add_argument("--epochs", type=int, default=9)
    told = parser.parse_args()
    weights = train(*draw_all(TRAIN_SEED, told.pictures), told.epochs)
    held_out = draw_all(TEST_SEED, TEST_PICTURES)
    right = accuracy(weights, *held_out)
    print(f"{right:.2%} of {TEST_PICTURES} held-out pictures are right")
    if right < ACCURACY_MIN:
        message = f"below {ACCURACY_MIN:.0%}: nothing is written"
        raise SystemExit(message)
    model = to_onnx(weights)
    content = Content(
        manifest=MANIFEST, model=model, labels=LABELS, goldens=goldens(weights), variants={"fp16": to_half(model)}
    )
    data = build_bundle(content)
    bundle = open_bundle(data, expected_sha256=None)
    for precision in ("", "fp16"):
        inference = open_inference(bundle, provider="CPUExecutionProvider", threads=1, precision=precision)
        check_goldens(bundle, inference)
    told.output.write_bytes(data)
    print(f"{told.output}: {len(data)} bytes, model {len(content.model)} bytes, sha256 {bundle.sha256}")


if __name__ == "__main__":
    main()
