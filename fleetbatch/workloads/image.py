"""Image recognition: a picture in, the best labels and their scores out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from fleetbatch.bundle import Bundle
from fleetbatch.contracts import conform, contract
from fleetbatch.pixels import Floats, Unreadable, decode, prepare
from fleetbatch.workloads import Comparison, Scorer

LABELS_MAX: Final = 5
DECODED_AT_ONCE: Final = 8
"""Pictures that are held as inputs at a time: the memory bound of a row group's work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageWorkload:
    """Classifies pictures; two answers agree when the scores of the same labels are close."""

    name: str = "image"
    answers_contract: str = "answers_image"
    results_contract: str = "results_image"
    score_tolerance: float = 0.02
    """Hardware, provider and precision may move a score by this much (the bundle's goldens allow the same)."""

    def answer(self, rows: pa.Table, bundle: Bundle, inference: Scorer, *, row_group: int) -> pa.Table:
        """Return one answer per row, in order; a picture that cannot be decoded, or was dead before, has an error."""
        answers = [
            {"item_id": item_id, "row_group": row_group, **answer}
            for start in range(0, rows.num_rows, DECODED_AT_ONCE)
            for item_id, answer in _answer_some(rows.slice(start, DECODED_AT_ONCE), bundle, inference)
        ]
        return conform(
            pa.Table.from_pylist(answers, schema=contract(self.answers_contract).schema), self.answers_contract
        )

    def compare(self, ours: pa.Table, theirs: pa.Table) -> Comparison:
        """Return, for each row of ours, whether theirs has it with the same labels and scores within the tolerance."""
        found: dict[str, dict[str, Any]] = {row["item_id"]: row for row in theirs.to_pylist()}
        disagreements = []
        for row in ours.to_pylist():
            why = self._difference(row, found.get(row["item_id"]))
            if why:
                disagreements.append((row["item_id"], why))
        return Comparison(rows=ours.num_rows, disagreements=tuple(disagreements))

    def _difference(self, ours: dict[str, Any], theirs: dict[str, Any] | None) -> str:
        if theirs is None:
            return "no answer"
        if (ours["error"] is None) != (theirs["error"] is None):
            return f"error is {theirs['error']!r}, ours is {ours['error']!r}"
        if ours["error"] is not None:
            return ""  # both found it unreadable; the wording may differ between versions
        if len(theirs["labels"] or []) != len(ours["labels"]):
            return f"{len(theirs['labels'] or [])} labels, ours has {len(ours['labels'])}"
        return _form_problem(theirs) or _score_difference(_best(ours), _best(theirs), self.score_tolerance)


def _answer_some(rows: pa.Table, bundle: Bundle, inference: Scorer) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (item_id, answer columns) in order; only the readable pictures meet the model."""
    items: list[dict[str, Any]] = rows.select(["item_id", "bytes", "error"]).to_pylist()
    opened = [_open(item["bytes"], item["error"], bundle) for item in items]
    inputs = [picture for picture in opened if not isinstance(picture, Unreadable)]
    answered = iter(inference(np.stack(inputs)) if inputs else ())
    for item, picture in zip(items, opened, strict=True):
        if isinstance(picture, Unreadable):
            yield item["item_id"], {"error": picture.reason}
        else:
            yield item["item_id"], _best_labels(next(answered), bundle)


def _open(content: bytes | None, error: str | None, bundle: Bundle) -> Floats | Unreadable:
    if error is not None or content is None:
        return Unreadable(reason=error or "the row has no bytes")
    picture = decode(content)
    return picture if isinstance(picture, Unreadable) else prepare(picture, bundle.manifest)


def _best_labels(scores: Floats, bundle: Bundle) -> dict[str, Any]:
    """Return the columns of one answer: best first, equal scores in the order of the classes."""
    if not np.isfinite(scores).all():
        return {"error": "the model gave no number"}
    best = np.argsort(-scores, kind="stable")[: bundle.manifest.output.top_k]
    labels = [bundle.labels[i] for i in best]
    values = [float(min(max(scores[i], 0.0), 1.0)) for i in best]  # fp16 may give 1.0005
    return {"label": labels[0], "score": values[0], "labels": labels, "scores": values}


def _form_problem(answer: dict[str, Any]) -> str:
    """Return what no honest runner would write, or nothing."""
    labels, scores = answer["labels"] or [], answer["scores"] or []
    if not labels or len(labels) != len(scores) or len(labels) > LABELS_MAX:
        return f"{len(labels)} labels with {len(scores)} scores"
    if any(label is None for label in labels) or any(score is None or not 0 <= score <= 1 for score in scores):
        return "a label is missing or a score is outside 0 to 1"
    if (answer["label"], answer["score"]) != (labels[0], scores[0]) or scores != sorted(scores, reverse=True):
        return "the best label is not the first of its labels"
    return ""


def _best(answer: dict[str, Any]) -> dict[str, float]:
    """Return label to score; of two classes with one name the better."""
    return dict(reversed(list(zip(answer["labels"], answer["scores"], strict=True))))


def _score_difference(ours: dict[str, float], theirs: dict[str, float], tolerance: float) -> str:
    """Return the first label whose scores differ by more; a label that one side lacks counts as its last one."""
    floor_ours, floor_theirs = min(ours.values()), min(theirs.values())
    for label in ours.keys() | theirs.keys():
        our, their = ours.get(label), theirs.get(label)
        if our is None or their is None:
            apart = (their - floor_ours if their is not None else (our or 0.0) - floor_theirs) > tolerance
        else:
            apart = not abs(our - their) <= tolerance
        if apart:
            return f"{label!r} scores {their}, ours {our}"
    return ""
