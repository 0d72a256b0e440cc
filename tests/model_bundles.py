"""Model bundles for tests, each one word away from a plain one: any shape of input and output, and a slow one."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fleetbatch.bundle import (
    Bundle,
    Content,
    Dtype,
    Golden,
    GoldenAnswer,
    Input,
    Layout,
    Manifest,
    Normalise,
    Output,
    Resize,
    build_bundle,
    open_bundle,
)

COLOURS = ("red", "green", "blue")
SIDE = 8
MOSTLY_RED = (255, 230, 220)
"""The model says red, and is not so sure that a wrong scale would go unnoticed."""
DTYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model that says which of red, green and blue a picture has most of, in one of many dresses."""

    layout: Layout = "NCHW"
    dtype: Dtype = "fp32"
    batch: int = 0
    output: str = "NC"
    """NC, NC11 or N11C."""
    kind: Literal["softmax", "logits"] = "logits"
    background: bool = False
    slowness: int = 0
    """Multiplications of 1024 x 1024 that change nothing."""
    hangs: bool = False
    """Whether the greenest picture there can be takes hours."""


def colour_model(shape: Shape) -> bytes:
    """An ONNX file that averages the channels (red, green, blue in this order) and scales them to logits."""
    axes = [3, SIDE, SIDE] if shape.layout == "NCHW" else [SIDE, SIDE, 3]
    taken = helper.make_tensor_value_info("picture", DTYPES[shape.dtype], [shape.batch or "n", *axes])
    nodes = [helper.make_node("Cast", ["picture"], ["floats"], to=TensorProto.FLOAT)]
    over = [2, 3] if shape.layout == "NCHW" else [1, 2]
    nodes.append(helper.make_node("ReduceMean", ["floats"], ["means"], axes=over, keepdims=0))
    last = "means"
    if shape.slowness or shape.hangs:
        nodes += _waste_time(_hours_for_green() if shape.hangs else [_times(shape.slowness)])
        last = "slow"
    if shape.background:
        nodes.append(helper.make_node("Pad", [last, "pads", "nothing"], ["padded"]))  # class 0 is no answer
        last = "padded"
    if shape.kind == "softmax":
        nodes.append(helper.make_node("Softmax", [last], ["soft"], axis=1))
        last = "soft"
    classes = 3 + shape.background
    dims = {"NC": [0, classes], "NC11": [0, classes, 1, 1], "N11C": [0, 1, 1, classes]}[shape.output]
    nodes.append(helper.make_node("Reshape", [last, "dims"], ["shaped"]))
    floats_out = "uint8" if shape.dtype == "uint8" else shape.dtype
    to = TensorProto.FLOAT16 if floats_out == "fp16" else TensorProto.FLOAT
    nodes.append(helper.make_node("Cast", ["shaped"], ["scores"], to=to))
    given = helper.make_tensor_value_info("scores", to, [shape.batch or "n", *dims[1:]])
    weights = [
        numpy_helper.from_array(np.array(dims, np.int64), "dims"),
        numpy_helper.from_array(np.array([0, 1, 0, 0], np.int64), "pads"),
        numpy_helper.from_array(np.array(-1.0, np.float32), "nothing"),
    ]
    graph = helper.make_graph(nodes, "colours", [taken], [given], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def manifest(shape: Shape, **changed: Any) -> Manifest:
    """A manifest that fits the shape; floats are scaled so that 255 is ten."""
    normalise = Normalise() if shape.dtype == "uint8" else Normalise(scale=1 / 25.5)
    fields: dict[str, Any] = {
        "name": "colours",
        "workload": "image",
        "input": Input(
            name="picture",
            layout=shape.layout,
            dtype=shape.dtype,
            batch=shape.batch,
            width=SIDE,
            height=SIDE,
            colour="RGB",
        ),
        "resize": Resize(mode="squash"),
        "normalise": normalise,
        "output": Output(
            name="scores",
            kind=shape.kind,
            background=0 if shape.background else None,
            top_k=3,
        ),
    }
    return Manifest(**{**fields, **changed})


def plain_picture(rgb: tuple[int, int, int] = MOSTLY_RED, size: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    """A PNG of one colour; its logits are the colour over 25.5."""
    file = io.BytesIO()
    Image.new("RGB", size, rgb).save(file, "PNG")
    return file.getvalue()


def colour_scores(rgb: Sequence[int], shape: Shape) -> tuple[float, ...]:
    """What the model should say of a picture of one colour, by hand."""
    logits = np.array(rgb, np.float64) / (1.0 if shape.dtype == "uint8" else 25.5)
    logits = np.concatenate([[-1.0], logits]) if shape.background else logits
    powers = np.exp(logits - logits.max())
    scores = powers / powers.sum()
    return tuple(float(score) for score in (scores[1:] if shape.background else scores))


def content(shape: Shape | None = None, *, wrong: bool = False) -> Content:
    """The content of a valid bundle; `wrong` swaps the golden's answer."""
    shape = shape or Shape()
    scores = colour_scores(MOSTLY_RED, shape)
    classes = (2, 1, 0) if wrong else (0, 1, 2)
    answer = GoldenAnswer(picture="red.png", classes=classes, labels=tuple(COLOURS[c] for c in classes), scores=scores)
    return Content(
        manifest=manifest(shape),
        model=colour_model(shape),
        labels=COLOURS,
        goldens=(Golden(answer=answer, content=plain_picture()),),
        variants={},
    )


def colour_bundle(shape: Shape | None = None, **changed: Any) -> Bundle:
    """A valid bundle, opened."""
    fitting = replace(content(shape), manifest=manifest(shape or Shape(), **changed))
    return open_bundle(build_bundle(fitting), expected_sha256=None)


def _times(times: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["count"], value=numpy_helper.from_array(np.array(times, np.int64)))


def _hours_for_green() -> list[onnx.NodeProto]:
    """Count to ten million for a picture of pure green, and not at all for others."""
    numbers: dict[str, np.ndarray[Any, Any]] = {
        "second": np.array(1, np.int64),
        "nearly": np.array(9.99, np.float32),
        "many": np.array(1e9, np.float32),
    }
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
        for name, value in numbers.items()
    ]
    return [
        *constants,
        helper.make_node("Gather", ["means", "second"], ["green"], axis=1),
        helper.make_node("ReduceMax", ["green"], ["greenest"], keepdims=0),
        helper.make_node("Sub", ["greenest", "nearly"], ["above"]),
        helper.make_node("Relu", ["above"], ["excess"]),
        helper.make_node("Mul", ["excess", "many"], ["turns"]),
        helper.make_node("Cast", ["turns"], ["count"], to=TensorProto.INT64),
    ]


def _waste_time(counting: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Multiply large matrices in a loop, `count` times, and add a ten-billionth of the outcome."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["before", "before"], ["after"]),
        ],
        "again",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [1024, 1024]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, [1024, 1024]),
        ],
    )
    size = numpy_helper.from_array(np.array([1024, 1024], np.int64))
    tiny = numpy_helper.from_array(np.array([1e-30], np.float32))
    return [
        helper.make_node("Constant", [], ["size"], value=size),
        *counting,
        helper.make_node("ConstantOfShape", ["size"], ["zeros"], value=tiny),
        helper.make_node("ReduceMean", ["means"], ["one"], keepdims=0),
        helper.make_node("Mul", ["zeros", "one"], ["begin"]),  # depends on the input, or it would be folded away
        helper.make_node("Loop", ["count", "", "begin"], ["ended"], body=body),
        helper.make_node("ReduceMean", ["ended"], ["nought"], keepdims=0),
        helper.make_node("Add", ["means", "nought"], ["slow"]),
    ]
