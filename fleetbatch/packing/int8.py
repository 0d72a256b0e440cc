"""A model in eight bits: what lies between its layers is scaled by what pictures like the real ones bring there."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from fleetbatch.bundle import Bundle, build_bundle, open_bundle
from fleetbatch.errors import RejectedError
from fleetbatch.inference import check_goldens, open_inference
from fleetbatch.packing.answers import raised
from fleetbatch.pixels import Unreadable, decode, prepare

PICTURES_MIN: Final = 8
"""Fewer do not show what a layer's values are like."""
PICTURES_MAX: Final = 64
"""More only take longer."""
_IN_FLOAT: Final = frozenset({"Softmax", "GlobalAveragePool"})
"""Scores of a thousand classes do not fit on 256 steps; these two take no time."""


def with_int8(bundle: Bundle, pictures: Sequence[Path]) -> bytes:
    """Return the bundle with an int8 variant that reproduces its goldens within `int8_tolerance`.

    Raises RejectedError when it does not, or when there are too few pictures to calibrate it with.
    """
    decoded = [decode(path.read_bytes()) for path in pictures[:PICTURES_MAX]]
    inputs = [prepare(one, bundle.manifest) for one in decoded if not isinstance(one, Unreadable)]
    int8 = to_int8(bundle.model(), bundle.manifest.input.name, inputs)
    data = build_bundle(replace(bundle.content, variants={**bundle.content.variants, "int8": int8}))
    made = open_bundle(data, expected_sha256=None)
    check_goldens(made, open_inference(made, provider="CPUExecutionProvider", threads=1, precision="int8"))
    return data


def to_int8(model: bytes, input_name: str, inputs: Sequence[npt.NDArray[np.float32]]) -> bytes:
    """Return the model with int8 weights (a scale per channel) and uint8 values between the layers.

    `inputs` are prepared pictures without the batch axis. Raises RejectedError when there are too few of them, or when
    onnxruntime cannot quantize the model.
    """
    from onnxruntime import quantization as quantize  # type: ignore[import-untyped]  # it ships no types
    from onnxruntime.quantization import registry  # type: ignore[import-untyped]  # the same
    from onnxruntime.quantization.shape_inference import quant_pre_process  # type: ignore[import-untyped]  # the same

    if len(inputs) < PICTURES_MIN:
        summary = f"{len(inputs)} pictures to calibrate an int8 model with; at least {PICTURES_MIN} are needed"
        raise RejectedError(summary)

    class Pictures(quantize.CalibrationDataReader):  # type: ignore[misc]  # it has no types
        """Hands over one prepared picture after the other."""

        def __init__(self) -> None:
            self._left: Iterator[npt.NDArray[np.float32]] = iter(inputs)

        def get_next(self) -> dict[str, Any] | None:
            one = next(self._left, None)
            return None if one is None else {input_name: one[np.newaxis]}

    with tempfile.TemporaryDirectory(prefix="fleetbatch-int8-") as folder:
        whole, ready, small = (Path(folder) / name for name in ("whole.onnx", "ready.onnx", "small.onnx"))
        onnx.save(raised(onnx.load_model_from_string(model)), whole)
        try:
            quant_pre_process(whole, ready)
            quantize.quantize_static(
                ready,
                small,
                Pictures(),
                quant_format=quantize.QuantFormat.QDQ,
                activation_type=quantize.QuantType.QUInt8,
                weight_type=quantize.QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=sorted({*registry.QLinearOpsRegistry, *registry.QDQRegistry} - _IN_FLOAT),
            )
        except Exception as error:
            # onnxruntime's tools raise whatever their steps raise
            summary = f"the model cannot be quantized: {type(error).__name__} {error}"
            raise RejectedError(summary) from error
        return small.read_bytes()
