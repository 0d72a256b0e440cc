"""A trained ensemble as an ONNX file: features and L1's log-odds in, log S at the intervals' ends out. Pure."""

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fleetbatch.windows.network import CLIP, LEAST, ODDS_CLIP, Ensemble, Float32, Network

OPSET: Final = 17
IR_VERSION: Final = 8
INPUTS: Final = ("features", "base")
OUTPUT: Final = "log_survival"


class _Graph:
    """Nodes and constants in the order in which they were added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operation: str, *inputs: str) -> str:
        name = f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [name]))
        return name

    def constant(self, value: Float32 | float) -> str:
        name = f"constant_{len(self.constants)}"
        array = np.asarray(value, dtype=np.int64 if isinstance(value, int) else np.float32)
        self.constants.append(numpy_helper.from_array(array, name))
        return name


def as_onnx(ensemble: Ensemble) -> bytes:
    """Return the ensemble as the bytes of an ONNX model with a free batch; the same ensemble, the same bytes."""
    graph = _Graph()
    shifted = graph.add("Sub", "features", graph.constant(ensemble.mean))
    scaled = graph.add("Mul", shifted, graph.constant(ensemble.scale))
    inputs = graph.add("Clip", scaled, graph.constant(-CLIP), graph.constant(CLIP))
    curves = [_curve(graph, network, inputs) for network in ensemble.networks]
    mean = graph.add("Mean", *curves)
    graph.nodes.append(helper.make_node("Log", [graph.add("Max", mean, graph.constant(LEAST))], [OUTPUT]))
    features, intervals = len(ensemble.mean), len(ensemble.networks[0].base_share)
    widths = dict(zip(INPUTS, (features, intervals), strict=True))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "idle_windows",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["moments", widths[n]]) for n in INPUTS],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["moments", intervals])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="fleetbatch",
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _curve(graph: _Graph, network: Network, inputs: str) -> str:
    """Add one network; its survival is the exponent of the summed log(1 - hazard) = -softplus(log-odds)."""
    value = inputs
    for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
        total = graph.add("Gemm", value, graph.constant(weight), graph.constant(bias))
        value = graph.add("Mul", total, graph.add("Sigmoid", total))
    own = graph.add("Gemm", value, graph.constant(network.weights[-1]), graph.constant(network.biases[-1]))
    odds = graph.add("Add", own, graph.add("Mul", "base", graph.constant(network.base_share)))
    held = graph.add("Clip", odds, graph.constant(-ODDS_CLIP), graph.constant(ODDS_CLIP))
    summed = graph.add("CumSum", graph.add("Softplus", held), graph.constant(1))
    return graph.add("Exp", graph.add("Neg", summed))
