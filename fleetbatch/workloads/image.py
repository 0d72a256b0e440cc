"""Image recognition: a picture in, the best labels and their scores out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
import pyarrow as pa

from fleetbatch.bundle import Bundle, open_bundle
from fleetbatch.errors import RejectedError
from fleetbatch.inference import check_goldens, open_inference
from fleetbatch.pixels import Floats, Unreadable, decode, prepare, reduced_side
from fleetbatch.workloads.protocol import Answer, AnswerRow, Device, Workload

LABELS_MAX: Final = 5

Scorer: TypeAlias = Callable[[Floats], Floats]
"""[N, ...] inputs to [N, classes] scores; `inference.Inference` is one."""


class ImageWorkload(Workload):
    """Classifies pictures; two answers agree when the scores of the same labels are close."""

    name = "image"
    opener = "fleetbatch.sharding.openers:Pictures"
    options = frozenset({"decode", "precision"})
    score_tolerance: ClassVar[float] = 0.02
    """Hardware, provider and precision may move a score by this much (the bundle's goldens allow the same)."""

    def open(self, model: bytes | None, device: Device, options: Mapping[str, str]) -> Answer:
        """Open the bundle and see that it reproduces its goldens here.

        Two options trade exactness for speed, and each answer says so: `precision` = "int8" computes with the bundle's
        int8 variant, `decode` = "reduced" lets the JPEG decoder scale. Without them nothing is traded.
        """
        bundle, reduced = _bundle(model), _chosen(options, "decode", ("exact", "reduced")) == "reduced"
        precision = _chosen(options, "precision", ("", "int8")) or device.precision
        inference = open_inference(bundle, provider=device.provider, threads=device.threads, precision=precision)
        if precision == "int8" != inference.precision:
            summary = f"the order asks for int8, and bundle {bundle.sha256[:12]} has no such variant"
            raise RejectedError(summary)
        check_goldens(bundle, inference)
        how = {"precision": inference.computes_in, "decode": "exact"}
        how |= {"decode": "reduced"} if reduced else {}
        return classifier(bundle.without_model(), inference, how, at_once=inference.at_once)

    def labels(self, model: bytes | None) -> tuple[str, ...] | None:
        """Return the bundle's labels."""
        return _bundle(model).labels

    def differs(self, ours: AnswerRow, theirs: AnswerRow) -> str:
        """Return why two answers are not the same labels with scores within the tolerance, or nothing."""
        for name, traded in (("decode", "reduced"), ("precision", "int8")):
            if (theirs[name] == traded) != (ours[name] == traded):
                return f"{name} is {theirs[name]!r}, ours is {ours[name]!r}"
        if len(theirs["labels"] or []) != len(ours["labels"]):
            return f"{len(theirs['labels'] or [])} labels, ours has {len(ours['labels'])}"
        return _form_problem(theirs) or _score_difference(_best(ours), _best(theirs), self.score_tolerance)


def classifier(
    bundle: Bundle, scorer: Scorer, how: Mapping[str, str] = MappingProxyType({}), *, at_once: int = 8
) -> Answer:
    """Return what answers pictures with a bundle whose model is open; one that cannot be decoded has an error.

    `how` they were answered stands in the columns of these names; `decode` = "reduced" is done here. `at_once` are
    decoded and run together.
    """
    schema = ImageWorkload().answer_schema
    side = reduced_side(bundle.manifest) if how.get("decode") == "reduced" else 0

    def answer(rows: pa.Table) -> pa.Table:
        answers = [
            {"item_id": item_id, **answer, **({} if answer.get("error") else how)}
            for start in range(0, rows.num_rows, at_once)
            for item_id, answer in _answer_some(rows.slice(start, at_once), bundle, scorer, side)
        ]
        return pa.Table.from_pylist(answers, schema=schema)

    return answer


def _bundle(model: bytes | None) -> Bundle:
    if model is None:
        summary = "pictures need a model: name a bundle made with `fleetbatch model pack`"
        raise RejectedError(summary)
    bundle = open_bundle(model, expected_sha256=None)
    if bundle.manifest.workload != ImageWorkload.name:
        summary = f"the bundle is for workload {bundle.manifest.workload!r}; the order is for {ImageWorkload.name!r}"
        raise RejectedError(summary)
    return bundle


def _chosen(options: Mapping[str, str], name: str, known: Sequence[str]) -> str:
    """Return an option's value, the first known one where it is not given; raise RejectedError for any other."""
    value = options.get(name, known[0])
    if value not in known:
        summary = f"option `{name}` is {value!r}; known are {', '.join(repr(one) for one in known if one)}"
        raise RejectedError(summary)
    return value


def _answer_some(rows: pa.Table, bundle: Bundle, scorer: Scorer, side: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (item_id, answer columns) in order; only the readable pictures meet the model."""
    items: list[dict[str, Any]] = rows.select(["item_id", "bytes"]).to_pylist()
    opened = [_open(item["bytes"], bundle, side) for item in items]
    inputs = [picture for picture in opened if not isinstance(picture, Unreadable)]
    answered = iter(scorer(np.stack(inputs)) if inputs else ())
    for item, picture in zip(items, opened, strict=True):
        if isinstance(picture, Unreadable):
            yield item["item_id"], {"error": picture.reason}
        else:
            yield item["item_id"], _best_labels(next(answered), bundle)


def _open(content: bytes, bundle: Bundle, side: int) -> Floats | Unreadable:
    picture = decode(content, reduced_to=side)
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
