"""The only file that imports onnxruntime, to open models: a bundle becomes a function from inputs to scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from fleetbatch.bundle import (
    Bundle,
    Golden,
    GoldenAnswer,
    Input,
    Manifest,
    difference,
    found_in,
    golden_found,
    places_of,
)
from fleetbatch.errors import RejectedError
from fleetbatch.pixels import Floats, Unreadable, decode, prepare

if TYPE_CHECKING:
    import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types

RUN_PICTURES: Final = 8
"""Pictures a run takes when the model's batch is free."""
_CPU: Final = "CPUExecutionProvider"
"""One picture a run: what lies between two layers stays in a core's cache (6 % faster with SqueezeNet)."""

_HEAP_PIXELS: Final = 416 * 416
"""Of an input whose layers fit into the heap; measured with 32 to 96 channels at half its width and height."""
_ERRORS_ONLY: Final = 3
_DTYPES: Final[dict[str, tuple[str, npt.DTypeLike]]] = {
    "tensor(float)": ("fp32", np.float32),
    "tensor(float16)": ("fp16", np.float16),
    "tensor(uint8)": ("uint8", np.uint8),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """An opened model: call it with [N, ...] inputs for [N, classes] scores between 0 and 1, in the labels' order.

    A detector gives [N, places, values] as they are, for `found_in`.
    """

    session: "ort.InferenceSession"
    manifest: Manifest
    classes: int
    dtype: npt.DTypeLike
    batch: int
    provider: str
    precision: str

    @property
    def at_once(self) -> int:
        """Return how many inputs it does best with; more only cost memory."""
        return self.batch or (1 if self.provider == _CPU else RUN_PICTURES)

    @property
    def computes_in(self) -> str:
        """Return the precision that its answers tell of: the variant's, else that of the main model's input."""
        return self.precision or self.manifest.input.dtype

    def __call__(self, inputs: Floats) -> Floats:
        """Return the scores of any number of inputs; a fixed batch is filled up with zeros that are cut off again."""
        step = self.at_once
        pieces = [self._run(inputs[start : start + step]) for start in range(0, len(inputs), step)]
        return np.concatenate(pieces) if pieces else np.empty((0, self.classes), dtype=np.float32)

    def _run(self, inputs: Floats) -> Floats:
        rows = len(inputs)
        if rows < self.batch:
            inputs = np.concatenate([inputs, np.zeros((self.batch - rows, *inputs.shape[1:]), inputs.dtype)])
        output = self.manifest.output
        [raw] = self.session.run([output.name], {self.manifest.input.name: inputs.astype(self.dtype, copy=False)})
        if output.kind == "boxes":
            return np.asarray(raw, dtype=np.float32)[:rows]
        scores = np.asarray(raw, dtype=np.float32).reshape(len(inputs), -1)[:rows]
        if output.kind == "logits":
            scores = _softmax(scores)
        if output.background is not None:
            scores = np.delete(scores, output.background, axis=1)
        return scores


def load_runtime() -> None:
    """Load onnxruntime before it is needed: what is forked from this process then has it already."""
    import onnxruntime  # noqa: F401


def open_inference(bundle: Bundle, *, provider: str, threads: int, precision: str = "") -> Inference:
    """Open the bundle's model from its verified bytes; raise RejectedError when it cannot run here.

    `threads` is onnxruntime's intra_op: 1 when a process per core runs. `precision` picks a variant of the bundle
    ("fp16", ...), the main model where there is none.
    """
    import onnxruntime as ort

    if provider not in ort.get_available_providers():
        summary = f"provider {provider} is not here; onnxruntime offers {', '.join(ort.get_available_providers())}"
        raise RejectedError(summary)
    model = bundle.model(precision)
    try:
        options = _options(threads, arena=wants_arena(bundle.manifest.input))
        session = ort.InferenceSession(model, sess_options=options, providers=[provider])
    except Exception as error:
        # onnxruntime's errors share no base class but Exception
        summary = f"model.onnx of bundle {bundle.sha256[:12]} is not a model that onnxruntime can run"
        raise RejectedError(summary, [_first_line(error)]) from error
    if provider not in session.get_providers():
        summary = f"bundle {bundle.sha256[:12]} cannot run on {provider}: onnxruntime fell back to another provider"
        raise RejectedError(summary, session.get_providers())
    _check_signature(session, bundle, main=model is bundle.content.model)
    [taken] = [i for i in session.get_inputs() if i.name == bundle.manifest.input.name]
    return Inference(
        session=session,
        manifest=bundle.manifest,
        classes=len(bundle.labels),
        dtype=_DTYPES[taken.type][1],
        batch=taken.shape[0] if isinstance(taken.shape[0], int) else 0,
        provider=provider,
        precision=precision if model is not bundle.content.model else "",
    )


def open_network(model: bytes, *, threads: int) -> Callable[[Mapping[str, Floats]], Floats]:
    """Open a model without preprocessing or labels: a function from its named inputs to its only output.

    Raises RejectedError when the bytes are not a model with one output that onnxruntime can run here.
    """
    import onnxruntime as ort

    try:
        session = ort.InferenceSession(model, sess_options=_options(threads), providers=[_CPU])
        [output] = [o.name for o in session.get_outputs()]
    except Exception as error:
        # onnxruntime's errors share no base class but Exception
        summary = "the bytes are not a model with one output that onnxruntime can run"
        raise RejectedError(summary, [_first_line(error)]) from error

    def run(inputs: Mapping[str, Floats]) -> Floats:
        [answer] = session.run([output], dict(inputs))
        return np.asarray(answer, dtype=np.float32)

    return run


def check_goldens(bundle: Bundle, inference: Inference) -> None:
    """Return when every golden comes out as its second implementation said; else raise RejectedError naming each.

    A golden fits when each of its classes has its score within the tolerance, and no other class beats them by more.
    """
    problems = [problem for golden in bundle.content.goldens for problem in _golden_problems(bundle, inference, golden)]
    if problems:
        summary = f"bundle {bundle.sha256[:12]} does not reproduce its goldens on {inference.provider}; it is not used"
        raise RejectedError(summary, problems)


def _golden_problems(bundle: Bundle, inference: Inference, golden: Golden) -> list[str]:
    answer, manifest = golden.answer, bundle.manifest
    tolerance = manifest.int8_tolerance if inference.precision == "int8" else manifest.golden_tolerance
    picture = decode(golden.content)
    if isinstance(picture, Unreadable):
        return [f"{answer.picture}: {picture.reason}"]
    [raw] = inference(prepare(picture, bundle.manifest)[np.newaxis])
    if bundle.manifest.boxes is not None:
        return _box_problems(bundle, raw, answer, picture.size)
    return _class_problems(raw.astype(np.float64), answer, tolerance)


def _box_problems(bundle: Bundle, raw: Floats, answer: GoldenAnswer, size: tuple[int, int]) -> list[str]:
    manifest = bundle.manifest
    assert manifest.boxes is not None
    if manifest.boxes.strides and len(raw) != places_of(manifest):
        return [f"{answer.picture}: the model answers {len(raw)} places, `boxes.strides` make {places_of(manifest)}"]
    why = difference(
        golden_found(answer),
        found_in(raw, manifest, bundle.labels, size),
        score_min=manifest.boxes.score_min,
        tolerance=manifest.golden_tolerance,
    )
    return [f"{answer.picture}: {why} (ours is the golden)"] if why else []


def _class_problems(scores: npt.NDArray[np.float64], answer: GoldenAnswer, tolerance: float) -> list[str]:
    classes = list(answer.classes)
    found, told = scores[classes], np.asarray(answer.scores)
    wrong = ~(np.abs(found - told) <= tolerance)  # written so that NaN is wrong
    problems = [
        f"{answer.picture}: {answer.labels[i]!r} scores {found[i]:.4f}, the golden says {told[i]:.4f}"
        for i in np.flatnonzero(wrong)
    ]
    others = np.delete(scores, classes)
    if others.size and not others.max() <= told.min() + tolerance:
        problems.append(f"{answer.picture}: class {int(scores.argmax())} is better than the golden's")
    return problems


def wants_arena(told: Input) -> bool:
    """Return whether a run takes more at once than the C library keeps for the next one (at most 32 MiB).

    Then onnxruntime had better keep it: with 640 x 640 inputs a run of 32 channels took twice the CPU time when all its
    pages were new. Smaller inputs leave what they took to the next picture's decoding, at the same price.
    """
    return max(told.batch, 1) * told.width * told.height > _HEAP_PIXELS


def _options(threads: int, *, arena: bool = False) -> "ort.SessionOptions":
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = arena
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _check_signature(session: "ort.InferenceSession", bundle: Bundle, *, main: bool) -> None:
    """Raise RejectedError unless the model takes and gives what the manifest says."""
    told, output = bundle.manifest.input, bundle.manifest.output
    inputs = {i.name: i for i in session.get_inputs()}
    outputs = {o.name: o for o in session.get_outputs()}
    problems = []
    if set(inputs) != {told.name}:
        problems.append(f"the model takes {sorted(inputs)}, the manifest says only {told.name!r}")
    if output.name not in outputs:
        problems.append(f"the model gives {sorted(outputs)}, the manifest says {output.name!r}")
    if not problems:
        problems += _input_problems(inputs[told.name], bundle.manifest, main=main)
        problems += _output_problems(outputs[output.name], bundle)
    if problems:
        summary = f"model.onnx of bundle {bundle.sha256[:12]} is not what its manifest says"
        raise RejectedError(summary, problems)


def _input_problems(taken: Any, manifest: Manifest, *, main: bool) -> list[str]:  # noqa: ANN401 (onnxruntime ships no types)
    told = manifest.input
    size = (told.height, told.width)
    wanted = (told.batch, 3, *size) if told.layout == "NCHW" else (told.batch, *size, 3)
    problems = []
    if taken.type not in _DTYPES:
        problems.append(f"input {told.name!r} is {taken.type}; known are {', '.join(_DTYPES)}")
    elif main and _DTYPES[taken.type][0] != told.dtype:
        problems.append(f"input {told.name!r} is {_DTYPES[taken.type][0]}, the manifest says {told.dtype}")
    fits = len(taken.shape) == len(wanted) and all(
        not isinstance(axis, int) or axis == want for axis, want in zip(taken.shape[1:], wanted[1:], strict=True)
    )
    batch = taken.shape[0] if taken.shape and isinstance(taken.shape[0], int) else 0
    if not fits or (main and batch != told.batch):
        problems.append(f"input {told.name!r} is {taken.shape}, the manifest says {list(wanted)} (batch 0 is any)")
    return problems


def _output_problems(given: Any, bundle: Bundle) -> list[str]:  # noqa: ANN401 (onnxruntime ships no types)
    output, boxes = bundle.manifest.output, bundle.manifest.boxes
    if boxes is not None:
        values = 4 + boxes.objectness + len(bundle.labels)
        match given.shape:
            case [_, _, str() | None]:
                return []
            case [_, _, int(found)] if found == values:
                return []
        return [f"output {output.name!r} is {given.shape}; a box and the labels make {values} values a place"]
    classes = len(bundle.labels) + (output.background is not None)
    problems = []
    if output.background is not None and output.background >= classes:
        problems.append(f"`output.background` {output.background} is outside the {classes} classes")
    axes = [axis for axis in given.shape[1:] if axis != 1]
    if len(axes) != 1 or (isinstance(axes[0], int) and axes[0] != classes):
        problems.append(f"output {output.name!r} is {given.shape}; labels and background make {classes} classes")
    return problems


def _softmax(logits: Floats) -> Floats:
    shifted: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
