"""The same model in half precision, for hardware classes that compute so."""

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from fleetbatch.errors import RejectedError


def to_half(model: bytes) -> bytes:
    """Return an ONNX model whose input, weights and output are float16 where they were float.

    Raises RejectedError for a model with branches or loops inside. Whether the precision is enough is not decided
    here: a bundle with this variant is packed only if the variant reproduces the goldens.
    """
    half = onnx.load_model_from_string(model)
    inner = sorted({node.op_type for node in half.graph.node for a in node.attribute if a.HasField("g") or a.graphs})
    if inner:
        summary = f"a model with {', '.join(inner)} is not turned into half precision; give the variant yourself"
        raise RejectedError(summary)
    for weight in half.graph.initializer:
        _halve(weight)
    for value in (*half.graph.input, *half.graph.output, *half.graph.value_info):
        kind = value.type.tensor_type
        kind.elem_type = TensorProto.FLOAT16 if kind.elem_type == TensorProto.FLOAT else kind.elem_type
    for node in half.graph.node:
        for attribute in node.attribute:
            _halve(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    return bytes(half.SerializeToString(deterministic=True))


def _halve(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        values = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
