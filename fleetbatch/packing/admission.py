"""Which ONNX files are admitted, and what they say of their input and output."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]  # stubs are a package apart

from fleetbatch.bundle import BUNDLE_BYTES

DOMAINS: Final = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Operators of other domains would need code that a car does not have."""

_DTYPES: Final = {onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.UINT8: "uint8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A picture classifier's one input and one output, as its ONNX file says."""

    input: str
    dtype: str
    shape: tuple[int, ...]
    """0 where an axis is free."""
    layout: str
    output: str

    def input_fields(self) -> dict[str, Any]:
        """Return what the manifest's [input] need not say; sizes only where they are fixed."""
        height, width = self.shape[2:] if self.layout == "NCHW" else self.shape[1:3]
        sizes = {name: side for name, side in (("height", height), ("width", width)) if side}
        return {"name": self.input, "layout": self.layout, "dtype": self.dtype, "batch": self.shape[0], **sizes}

    def output_fields(self) -> dict[str, Any]:
        """Return what the manifest's [output] need not say."""
        return {"name": self.output}


def admit(data: bytes, name: str, problems: list[str]) -> Signature | None:
    """Return what an ONNX file says of itself, or None with the reasons why it is refused added to `problems`."""
    before = len(problems)
    model = admit_graph(data, name, problems)
    signature = _signature(model, name, problems) if model is not None and model.graph.node else None
    return signature if len(problems) == before else None


def admit_graph(data: bytes, name: str, problems: list[str]) -> onnx.ModelProto | None:
    """Return the graph of an ONNX file whatever it takes and gives, with the reasons against it added to `problems`."""
    if len(data) > BUNDLE_BYTES:
        problems.append(f"{name} has {len(data)} bytes; at most {BUNDLE_BYTES} are taken")
        return None
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError:
        problems.append(f"{name} is not an ONNX file")
        return None
    if not model.graph.node:
        problems.append(f"{name} is not an ONNX file, or its graph is empty")
    domains = {node.domain for node in _messages(model, onnx.NodeProto)} - set(DOMAINS)
    problems += [f"{name}: operators of domain {domain!r} are not taken" for domain in sorted(domains)]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _messages(model, onnx.TensorProto)):
        problems.append(f"{name} keeps tensors in other files; save it with its weights inside")
    return model


def _signature(model: onnx.ModelProto, name: str, problems: list[str]) -> Signature | None:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    outputs = list(model.graph.output)
    if len(inputs) != 1:
        problems.append(f"{name} takes {[value.name for value in inputs]}; a picture model takes one input")
        return None
    if not outputs:
        problems.append(f"{name} has no output")
        return None
    taken = inputs[0].type.tensor_type
    shape = tuple(axis.dim_value for axis in taken.shape.dim)
    layout = _layout(shape)
    if taken.elem_type not in _DTYPES:
        problems.append(f"{name}: input {inputs[0].name!r} is neither float, float16 nor uint8")
    if not layout:
        problems.append(f"{name}: input {inputs[0].name!r} is {list(shape)}; expected [N,3,H,W] or [N,H,W,3]")
    return Signature(
        input=inputs[0].name,
        dtype=_DTYPES.get(taken.elem_type, ""),
        shape=shape,
        layout=layout,
        output=outputs[0].name,
    )


def _layout(shape: tuple[int, ...]) -> str:
    match shape:
        case (_, 3, _, _):
            return "NCHW"
        case (_, _, _, 3):
            return "NHWC"
        case _:
            return ""


def _messages(message: Message, kind: type[Any]) -> Iterator[Any]:
    """Yield every message of that kind, however deep (subgraphs hide in attributes, tensors in functions)."""
    if isinstance(message, kind):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if isinstance(value, list) or hasattr(value, "__len__") else (value,):
                yield from _messages(inner, kind)
