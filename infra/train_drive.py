# ruff: noqa: INP001, T201 # a script, and it tells how far it is
"""Train the detector of the drawn drive and pack it: `make model`, about a CPU minute, nothing downloaded.

As with the road signs (train_road_signs.py) network, training and the answers to the goldens are plain numpy, so that
onnxruntime is checked against a second implementation. The network looks at every 8 x 8 pixels of a frame of 160 x 96
and says for each what may be there and where it lies: one stage, no anchors (after FCOS, Tian et al. 2019).
"""

import argparse
import io
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from PIL import Image
from train_road_signs import columns, padding, scaled, tensor, uncolumns

from fleetbatch.bundle import (
    Boxes,
    Content,
    Golden,
    GoldenAnswer,
    Input,
    Manifest,
    Normalise,
    Output,
    Resize,
    build_bundle,
    found_in,
    open_bundle,
    overlap,
)
from fleetbatch.inference import check_goldens, open_inference
from fleetbatch.orders.parse import MODELS
from fleetbatch.packing.half import to_half
from fleetbatch.packing.reference import reference_found, reference_input
from fleetbatch.sharding.drive_scene import HEIGHT, LABELS, WIDTH, draw, named

ACROSS, DOWN, STRIDE = 160, 96, 8
CELLS: Final = (DOWN // STRIDE, ACROSS // STRIDE)
TRAIN_SEED, TEST_SEED, GOLDEN_SEED = 2_000_001, 2_000_002, 2_000_003
BATCH: Final = 16
RIGHT_MIN: Final = 0.9
"""Below this share of boxes found, or of found boxes that are right, nothing is written."""
LAYERS: Final = ((5, 3, 12, 2), (3, 12, 24, 2), (3, 24, 40, 2), (3, 40, 40, 1), (3, 40, 40, 1))
"""Convolutions: side of the kernel, channels in and out, stride."""
MANIFEST: Final = Manifest(
    name="drive",
    workload="video",
    input=Input(name="frame", layout="NCHW", dtype="fp32", batch=0, width=ACROSS, height=DOWN, colour="RGB"),
    resize=Resize(mode="letterbox", filter="bilinear", padding=114),
    normalise=Normalise(scale=1 / 127.5, mean=(1.0, 1.0, 1.0)),
    output=Output(name="found", kind="boxes"),
    boxes=Boxes(form="corners", score_min=0.35, overlap_max=0.45),
)

Floats = npt.NDArray[np.float32]
Weights = list[Floats]


def drawn(seed: int, number: int) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Return a frame of a clip of its own, resized as the bundle says, and its targets."""
    at = (seed, number, number * 37 % 97)
    small = Image.fromarray(draw(*at)).resize((ACROSS, DOWN), Image.Resampling.BILINEAR)
    return np.asarray(small), targets(at)


def targets(at: tuple[int, int, int]) -> Floats:
    """Return [12, 20, 4 + labels]: middle (from the cell's) and logarithm of the sides, in cells, then 1 for the label.

    A thing is looked for in the cell of its middle and in those that its inner half covers; the nearest thing wins.
    """
    wanted = np.zeros((*CELLS, 4 + len(LABELS)), np.float32)
    for label, box in named(*at):
        left, top, right, bottom = (side * ACROSS / WIDTH / STRIDE for side in box)
        x, y, wide, high = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
        rows, across = np.arange(CELLS[0]), np.arange(CELLS[1])
        row_in = (np.abs(rows + 0.5 - y) < high / 4) | (rows == int(y))
        column_in = (np.abs(across + 0.5 - x) < wide / 4) | (across == int(x))
        for row in np.flatnonzero(row_in):
            for column in np.flatnonzero(column_in):
                wanted[row, column] = 0
                wanted[row, column, :4] = (x - column - 0.5, y - row - 0.5, np.log(wide), np.log(high))
                wanted[row, column, 4 + LABELS.index(label)] = 1
    return wanted


def normalised(pixels: npt.NDArray[Any]) -> Floats:
    """Return pixels as the network takes them."""
    return np.asarray(pixels.astype(np.float32) / np.float32(127.5) - np.float32(1), np.float32)


def new_weights(chance: np.random.Generator) -> Weights:
    """Return He-initialised kernels and biases; the last layer begins with the belief that little is anywhere."""
    weights: Weights = []
    for side, inputs, outputs, _ in LAYERS:
        weights += [scaled(chance, side * side * inputs, outputs), np.zeros(outputs, np.float32)]
    last = np.zeros(4 + len(LABELS), np.float32)
    last[4:] = -4
    return [*weights, scaled(chance, LAYERS[-1][2], 4 + len(LABELS)) * np.float32(0.1), last]


def forward(weights: Weights, x: Floats) -> tuple[Floats, list[tuple[tuple[int, ...], Floats, Floats]]]:
    """Return the raw answer [N, 12, 20, 4 + labels], and what the way back needs."""
    kept = []
    for number, (side, _, _, stride) in enumerate(LAYERS):
        windows = columns(x, side, stride)
        y = np.maximum(windows @ weights[2 * number] + weights[2 * number + 1], 0)
        kept.append((x.shape, windows, y))
        x = y
    return x @ weights[-2] + weights[-1], kept


def gradients(weights: Weights, x: Floats, wanted: Floats) -> tuple[Weights, float]:
    """Return the gradient of the loss in the order of the weights, and the loss.

    The loss is cross-entropy of every label in every cell, and the smooth distance of the box where there is one.
    """
    raw, kept = forward(weights, x)
    there = wanted[..., 4:].max(-1, keepdims=True)
    count = max(float(there.sum()), 1.0)
    chances = sigmoid(raw[..., 4:])
    apart = (raw[..., :4] - wanted[..., :4]) * there
    loss = -np.log(np.where(wanted[..., 4:] > 0, chances, 1 - chances) + 1e-9).sum() + np.abs(apart).sum()
    grad = np.concatenate([2 * np.clip(apart / 0.1, -1, 1), chances - wanted[..., 4:]], -1) / np.float32(count)
    rows = grad.reshape(-1, grad.shape[-1])
    found = [rows.sum(0), kept[-1][2].reshape(len(rows), -1).T @ rows]
    back = (rows @ weights[-2].T).reshape(kept[-1][2].shape)
    for number in reversed(range(len(LAYERS))):
        shape, windows, y = kept[number]
        rows = np.where(y > 0, back, np.float32(0)).reshape(-1, y.shape[-1])
        found += [rows.sum(0), windows.reshape(len(rows), -1).T @ rows]
        if number:
            back = uncolumns(np.asarray(rows @ weights[2 * number].T, np.float32), shape, *LAYERS[number][::3])
    return found[::-1], float(loss) / count


def sigmoid(values: Floats) -> Floats:
    """Return the logistic function."""
    return np.asarray(1 / (1 + np.exp(-values)), np.float32)


def train(pixels: npt.NDArray[np.uint8], wanted: Floats, epochs: int) -> Weights:
    """Train with Adam under a learning rate that rises and falls once, in changing light."""
    chance = np.random.default_rng(7)
    weights = new_weights(chance)
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    steps = epochs * (len(pixels) // BATCH)
    for step in range(1, steps + 1):
        picked = chance.integers(0, len(pixels), BATCH)
        light = chance.uniform(0.8, 1.2, (BATCH, 1, 1, 1)).astype(np.float32)
        found, loss = gradients(weights, normalised(np.clip(pixels[picked] * light, 0, 255)), wanted[picked])
        share = step / steps
        rate = 3e-3 * min(share / 0.05, 1.0) * (0.5 + 0.5 * np.cos(np.pi * share)) + 1e-6
        for number, grad in enumerate(found):
            first[number] += 0.1 * (grad - first[number])
            second[number] += 0.01 * (grad * grad - second[number])
            mean, spread = first[number] / (1 - 0.9**step), second[number] / (1 - 0.99**step)
            weights[number] -= np.float32(rate) * (mean / (np.sqrt(spread) + 1e-8))
        if step % 50 == 0:
            print(f"{share:4.0%} of the training, loss {loss:.3f}", flush=True)
    return weights


def decoded(raw: Floats) -> Floats:
    """Return [N, places, 4 + labels] as the bundle says: corners in the input's pixels, scores."""
    rows, across = np.mgrid[: CELLS[0], : CELLS[1]]
    middle = (raw[..., :2] + np.stack([across, rows], -1) + 0.5) * STRIDE
    half = np.exp(raw[..., 2:4]) * (STRIDE / 2)
    values = np.concatenate([middle - half, middle + half, sigmoid(raw[..., 4:])], -1)
    return values.reshape(len(raw), -1, values.shape[-1]).astype(np.float32)


def judged(weights: Weights, count: int) -> tuple[float, float]:
    """Return the share of boxes that are found (overlap at least 0.5), and of found boxes that are right."""
    hits, there, told = 0, 0, 0
    for number in range(count):
        at = (TEST_SEED, number, number * 37 % 97)
        small = Image.fromarray(draw(*at)).resize((ACROSS, DOWN), Image.Resampling.BILINEAR)
        raw, _ = forward(weights, normalised(np.asarray(small))[None])
        found = found_in(decoded(raw)[0], MANIFEST, LABELS, (WIDTH, HEIGHT))
        wanted = named(*at)
        there, told = there + len(wanted), told + len(found)
        for label in LABELS:
            ours = [one.box for one in wanted if one.label == label]
            theirs = [one.box for one in found if one.label == label]
            if ours and theirs:
                hits += int((overlap(ours, theirs).max(1) >= 0.5).sum())  # noqa: PLR2004 (the usual line)
    return hits / there, hits / max(told, 1)


def to_onnx(weights: Weights) -> bytes:
    """Return the network as ONNX, boxes and scores decoded: nothing is left for the car to know."""
    nodes, tensors, name = [], [], MANIFEST.input.name
    kernels = [*LAYERS, (1, LAYERS[-1][2], 4 + len(LABELS), 1)]
    for number, (side, inputs, outputs, stride) in enumerate(kernels):
        kernel = weights[2 * number].reshape(side, side, inputs, outputs).transpose(3, 2, 0, 1)
        tensors += [tensor(f"kernel{number}", kernel), tensor(f"bias{number}", weights[2 * number + 1])]
        before, after = padding(side, stride)
        conv: dict[str, Any] = {"kernel_shape": [side] * 2, "strides": [stride] * 2, "pads": [before] * 2 + [after] * 2}
        nodes.append(node("Conv", [name, f"kernel{number}", f"bias{number}"], f"conv{number}", **conv))
        name = f"conv{number}"
        if number < len(LAYERS):
            nodes.append(node("Relu", [name], f"relu{number}"))
            name = f"relu{number}"
    rows, across = np.mgrid[: CELLS[0], : CELLS[1]]
    cells = np.stack([across, rows], -1).reshape(1, -1, 2).astype(np.float32) + np.float32(0.5)
    tensors += [tensor("cells", cells), tensor("stride", np.float32(STRIDE)), tensor("half", np.float32(STRIDE / 2))]
    tensors += [whole("places", [0, 4 + len(LABELS), -1]), whole("parts", [2, 2, len(LABELS)])]
    nodes += [
        node("Reshape", [name, "places"], "flat"),
        node("Transpose", ["flat"], "values", perm=[0, 2, 1]),
        onnx.helper.make_node("Split", ["values", "parts"], ["aside", "logs", "logits"], axis=2),
        node("Add", ["aside", "cells"], "at"),
        node("Mul", ["at", "stride"], "middle"),
        node("Exp", ["logs"], "sides"),
        node("Mul", ["sides", "half"], "reach"),
        node("Sub", ["middle", "reach"], "first"),
        node("Add", ["middle", "reach"], "last"),
        node("Sigmoid", ["logits"], "scores"),
        node("Concat", ["first", "last", "scores"], MANIFEST.output.name, axis=2),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "drive",
        [onnx.helper.make_tensor_value_info(MANIFEST.input.name, kind, ["N", 3, DOWN, ACROSS])],
        [onnx.helper.make_tensor_value_info(MANIFEST.output.name, kind, ["N", CELLS[0] * CELLS[1], 4 + len(LABELS)])],
        tensors,
    )
    model = onnx.helper.make_model(graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:  # noqa: ANN401 (an operator's)
    """Return one operator with one output."""
    return onnx.helper.make_node(kind, inputs, [output], **attributes)


def whole(name: str, values: list[int]) -> onnx.TensorProto:
    """Return whole numbers as a constant."""
    return onnx.numpy_helper.from_array(np.array(values, np.int64), name)


def golden(weights: Weights, number: int) -> Golden:
    """Return a frame and this program's answer, computed in numpy from the pixels on."""
    file = io.BytesIO()
    Image.fromarray(draw(GOLDEN_SEED, number, 11 * number)).save(file, "PNG")
    taken = reference_input(file.getvalue(), MANIFEST).transpose(0, 2, 3, 1).astype(np.float32)
    found = reference_found(decoded(forward(weights, taken)[0])[0], MANIFEST, LABELS, (WIDTH, HEIGHT))
    answer = GoldenAnswer(
        picture=f"frame{number}.png",
        classes=tuple(LABELS.index(one.label) for one in found),
        labels=tuple(one.label for one in found),
        scores=tuple(round(one.score, 6) for one in found),
        boxes=tuple(one.box for one in found),
    )
    return Golden(answer=answer, content=file.getvalue())


def main() -> None:
    """Draw, train, test, export, compare with onnxruntime, pack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=MODELS / "drive.zip")
    parser.add_argument("--frames", type=int, default=2400)
    parser.add_argument("--epochs", type=int, default=5)
    told = parser.parse_args()
    pictures = [drawn(TRAIN_SEED, number) for number in range(told.frames)]
    weights = train(np.stack([p for p, _ in pictures]), np.stack([w for _, w in pictures]), told.epochs)
    found, right = judged(weights, 500)
    print(f"of the boxes in 500 held-out frames {found:.1%} are found, and {right:.1%} of what is found is right")
    if min(found, right) < RIGHT_MIN:
        message = f"below {RIGHT_MIN:.0%}: nothing is written"
        raise SystemExit(message)
    model = to_onnx(weights)
    content = Content(
        manifest=MANIFEST,
        model=model,
        labels=LABELS,
        goldens=tuple(golden(weights, number) for number in range(4)),
        variants={"fp16": to_half(model)},
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
