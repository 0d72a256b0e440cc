"""A driving policy becomes a bundle: its goldens are what onnx's reference evaluator makes of some observations."""

from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator

from fleetbatch.bundle.policy import PolicyGolden, PolicyManifest, build_policy, open_policy
from fleetbatch.errors import RejectedError
from fleetbatch.packing.admission import admit_graph
from fleetbatch.workloads.scenario import open_driver

GOLDENS: Final = 8

Floats = npt.NDArray[np.float32]


def pack_policy(model: bytes, name: str, *, observations: Floats | None = None) -> bytes:
    """Return the bundle of an ONNX policy, already checked as a car will check it.

    `observations` [n, values] become goldens; without any, seeded noise does. Raises RejectedError with every problem.
    """
    problems: list[str] = []
    graph = admit_graph(model, name, problems)
    taken = _input(graph, name, problems) if graph is not None else None
    if problems or graph is None or taken is None:
        summary = f"no policy bundle can be made of {name}"
        raise RejectedError(summary, problems)
    values = taken.type.tensor_type.shape.dim[1].dim_value
    if observations is None:
        observations = np.random.default_rng(0).uniform(-1, 1, (GOLDENS, values)).astype(np.float32)
    try:
        evaluator = ReferenceEvaluator(graph)
        goldens = tuple(_golden(evaluator, taken.name, one) for one in observations)
    except Exception as error:
        # the evaluator raises whatever its operators raise
        summary = f"onnx's reference evaluator cannot run {name}: {type(error).__name__}: {error}"
        raise RejectedError(summary) from error
    data = build_policy(PolicyManifest(name=name, input=taken.name, values=values), model, goldens)
    open_driver(open_policy(data), threads=1)
    return data


def _input(graph: onnx.ModelProto, name: str, problems: list[str]) -> onnx.ValueInfoProto | None:
    weights = {tensor.name for tensor in graph.graph.initializer}
    inputs = [value for value in graph.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(graph.graph.output) != 1:
        problems.append(f"{name} has {len(inputs)} inputs and {len(graph.graph.output)} outputs; a policy has one each")
        return None
    taken = inputs[0].type.tensor_type
    shape = [axis.dim_value for axis in taken.shape.dim]
    if taken.elem_type != onnx.TensorProto.FLOAT or len(shape) != 2 or shape[1] < 1:  # noqa: PLR2004 (rows and values)
        problems.append(f"{name}: input {inputs[0].name!r} is {shape}; expected float32 [1, values of an observation]")
    found: onnx.ValueInfoProto = inputs[0]
    return found


def _golden(evaluator: ReferenceEvaluator, name: str, observation: Floats) -> PolicyGolden:
    outputs = evaluator.run(None, {name: observation[np.newaxis]})
    assert isinstance(outputs, list)
    output = np.asarray(outputs[0], np.float32).reshape(-1)
    return PolicyGolden(observation=tuple(map(float, observation)), output=tuple(map(float, output)))
