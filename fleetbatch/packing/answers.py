"""What a second implementation answers for the golden pictures: onnx's reference evaluator, or a user's file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import version_converter
from onnx.reference import ReferenceEvaluator

from fleetbatch.bundle import GoldenAnswer, Manifest
from fleetbatch.errors import RejectedError, in_one_line
from fleetbatch.packing.reference import Array, reference_found, reference_input, reference_scores, reference_size

OPSET: Final = 13
"""Older models are raised to this: the reference evaluator knows Softmax only as it is since then."""
_DTYPES: Final = {"fp32": np.float32, "fp16": np.float16, "uint8": np.uint8}


def reference_answers(
    model: bytes, manifest: Manifest, labels: Sequence[str], pictures: Mapping[str, bytes]
) -> dict[str, GoldenAnswer]:
    """Return what the reference evaluator answers; raise RejectedError when it cannot run the model."""
    try:
        evaluator = ReferenceEvaluator(raised(onnx.load_model_from_string(model)))
        return {name: _answer(evaluator, manifest, labels, name, content) for name, content in pictures.items()}
    except RejectedError:
        raise
    except Exception as error:
        # the evaluator raises whatever its operators raise
        summary = "onnx's reference evaluator cannot run this model; give answers of another implementation (--answers)"
        raise RejectedError(summary, [in_one_line(error)]) from error


def told_answers(
    path: Path, labels: Sequence[str], pictures: Sequence[str], *, boxes: bool = False
) -> dict[str, GoldenAnswer]:
    """Return a user's answers: JSON {picture: [[label or class, score], ...]}; raise RejectedError for mistakes.

    With `boxes`, a detector's, left, top, right and bottom follow each score, and a picture may have none.
    """
    try:
        told = json.loads(path.read_bytes())
    except OSError as error:
        summary = f"cannot read {path}: {error.strerror}"
        raise RejectedError(summary) from error
    except ValueError as error:
        summary = f"{path} is not JSON: {error}"
        raise RejectedError(summary) from error
    problems: list[str] = []
    if not isinstance(told, dict):
        told = {}
        problems.append('expected {"picture.jpg": [["label", score], ...]}')
    answers = {name: _told(name, told.get(name), labels, problems, boxes=boxes) for name in pictures}
    if problems:
        summary = f"{path} does not answer the golden pictures"
        raise RejectedError(summary, problems)
    return {name: answer for name, answer in answers.items() if answer is not None}


def raised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model in an operator set that the tools here understand."""
    own = max((opset.version for opset in model.opset_import if opset.domain in {"", "ai.onnx"}), default=OPSET)
    return version_converter.convert_version(model, OPSET) if own < OPSET else model


def _answer(
    evaluator: ReferenceEvaluator, manifest: Manifest, labels: Sequence[str], name: str, content: bytes
) -> GoldenAnswer:
    one = reference_input(content, manifest)
    batch = np.concatenate([one] * max(1, manifest.input.batch))
    fed = {manifest.input.name: batch.astype(_DTYPES[manifest.input.dtype])}
    outputs = evaluator.run([manifest.output.name], fed)
    assert isinstance(outputs, list)
    raw = np.asarray(outputs[0])[0]
    if manifest.boxes is not None:
        return _detected(name, raw, manifest, labels, content)
    scores = reference_scores(raw, manifest)
    if len(scores) != len(labels):
        summary = f"the model answers {len(scores)} classes besides the background; labels.txt has {len(labels)}"
        raise RejectedError(summary)
    return _best(name, scores, labels, manifest.output.top_k)


def _detected(name: str, raw: Array, manifest: Manifest, labels: Sequence[str], content: bytes) -> GoldenAnswer:
    assert manifest.boxes is not None
    classes = raw.shape[-1] - 4 - manifest.boxes.objectness
    if classes != len(labels):
        summary = f"the model answers {classes} classes beside each box; labels.txt has {len(labels)}"
        raise RejectedError(summary)
    found = reference_found(raw, manifest, labels, reference_size(content))
    return GoldenAnswer(
        picture=name,
        classes=tuple(list(labels).index(one.label) for one in found),
        labels=tuple(one.label for one in found),
        scores=tuple(round(one.score, 6) for one in found),
        boxes=tuple(one.box for one in found),
    )


def _best(name: str, scores: Array, labels: Sequence[str], count: int) -> GoldenAnswer:
    best = [int(index) for index in np.argsort(-scores, kind="stable")[:count]]
    return GoldenAnswer(
        picture=name,
        classes=tuple(best),
        labels=tuple(labels[index] for index in best),
        scores=tuple(min(1.0, max(0.0, round(float(scores[index]), 6))) for index in best),
    )


def _told(name: str, rows: Any, labels: Sequence[str], problems: list[str], *, boxes: bool) -> GoldenAnswer | None:  # noqa: ANN401 (parsed JSON)
    expected, columns = "[[label or class, score], ...]", 2
    if boxes:
        expected, columns = "[[label or class, score, left, top, right, bottom], ...]", 6
    if not isinstance(rows, list) or not (rows or boxes) or not all(_is_row(row, columns) for row in rows):
        problems.append(f"{name}: expected {expected}")
        return None
    classes = [_class_of(row[0], labels) for row in rows]
    if None in classes:
        problems.append(f"{name}: {rows[classes.index(None)][0]!r} is no label or class of the model, or several")
        return None
    if not all(0 <= row[1] <= 1 for row in rows):
        problems.append(f"{name}: a score is a number from 0 to 1")
        return None
    found = [index for index in classes if index is not None]
    return GoldenAnswer(
        picture=name,
        classes=tuple(found),
        labels=tuple(labels[index] for index in found),
        scores=tuple(float(row[1]) for row in rows),
        boxes=tuple((float(row[2]), float(row[3]), float(row[4]), float(row[5])) for row in rows) if boxes else (),
    )


def _is_row(row: Any, columns: int) -> bool:  # noqa: ANN401 (parsed JSON)
    """Return whether it is a label or class, and so many numbers in all."""
    return (
        isinstance(row, list)
        and len(row) == columns
        and all(isinstance(value, int | float) and not isinstance(value, bool) for value in row[1:])
    )


def _class_of(who: Any, labels: Sequence[str]) -> int | None:  # noqa: ANN401 (parsed JSON)
    """Return the class of a number or of a label that only one class has."""
    if isinstance(who, int) and not isinstance(who, bool) and 0 <= who < len(labels):
        return who
    return labels.index(who) if isinstance(who, str) and labels.count(who) == 1 else None
