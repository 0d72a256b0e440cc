"""A detector's output becomes detections, and two answers for one picture are compared box by box. Pure."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fleetbatch.bundle.manifest import DETECTIONS_MAX, Box, Boxes, GoldenAnswer, Manifest
from fleetbatch.bundle.placing import Placement, placement

CANDIDATES_MAX: Final = 2000
"""The best so many are looked at: a model that finds something everywhere must not cost the square of it."""
SIDE_MIN: Final = 0.1
"""Pixels of the picture: what is narrower is no box, and would not even overlap with itself."""
OVERLAP_SAME: Final = 0.7
"""Two boxes with one label are the same detection when their intersection over union is at least this."""
OVERLAP_DOUBLE: Final = 0.35
"""Detectors drop one of two boxes that overlap by some 0.45 or more; from here on hardware may decide which."""
DOUBLES_MAX: Final = 3
"""So many boxes without a partner one box may excuse; copies of one box are no answer for a picture with many."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One detection, its box in pixels of the picture; it may reach over the picture's edge."""

    label: str
    score: float
    box: Box


def found_in(raw: Floats, manifest: Manifest, labels: Sequence[str], size: tuple[int, int]) -> tuple[Found, ...]:
    """Return what a detector's output for one picture says, [places, values], best first.

    `size` is the picture's width and height. Values that are no numbers are no detections.
    """
    rules = manifest.boxes
    assert rules is not None, "only detectors come here"
    values = raw[:, 4:]
    scores = values[:, 1:] * values[:, :1] if rules.objectness else values
    places, classes = np.nonzero(scores >= rules.score_min)
    likely = scores[places, classes]
    best = np.argsort(-likely, kind="stable")[:CANDIDATES_MAX]
    places, classes, likely = places[best], classes[best], likely[best]
    boxes = _in_picture(_corners(raw[places, :4], places, rules, manifest), placement(*size, manifest))
    sound = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] - boxes[:, :2] >= SIDE_MIN).all(axis=1)
    boxes, classes, likely = boxes[sound], classes[sound], likely[sound]
    return tuple(
        Found(label=labels[classes[i]], score=min(float(likely[i]), 1.0), box=_box(boxes[i]))
        for i in _without_doubles(boxes, classes, rules)
    )


def golden_found(answer: GoldenAnswer) -> tuple[Found, ...]:
    """Return the detections that a golden names."""
    named = zip(answer.labels, answer.scores, answer.boxes, strict=True)
    return tuple(Found(label=label, score=score, box=box) for label, score, box in named)


def places_of(manifest: Manifest) -> int:
    """Return how many places the grids of a yolox detector have; 0 for other forms, whose places are free."""
    strides = manifest.boxes.strides if manifest.boxes is not None else ()
    return sum((manifest.input.width // stride) * (manifest.input.height // stride) for stride in strides)


def overlap(ours: npt.ArrayLike, theirs: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the intersection over union of every box of ours with every box of theirs, [ours, theirs]."""
    one = np.asarray(ours, np.float64).reshape(-1, 1, 4)
    other = np.asarray(theirs, np.float64).reshape(1, -1, 4)
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    common = sides.clip(min=0).prod(axis=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clip(min=0).prod(axis=-1) for boxes in (one, other)]
    return np.asarray(common / np.maximum(areas[0] + areas[1] - common, np.finfo(np.float64).tiny))


def difference(ours: Sequence[Found], theirs: Sequence[Found], *, score_min: float, tolerance: float) -> str:
    """Return in words the first detection that is not in both answers with the same label, place and score, or nothing.

    Boxes are matched label by label, the best overlap first. One without a partner is forgiven where hardware may have
    decided: its score lies within the tolerance of `score_min`, below which nothing is a detection, or of the last one
    that had room, or a box of its label overlaps with it so much that one of the two may be dropped (DOUBLES_MAX).
    """
    floors = [_floor(side, score_min) + tolerance for side in (ours, theirs)]
    for label in dict.fromkeys(found.label for found in (*ours, *theirs)):
        our, their = ([found for found in side if found.label == label] for side in (ours, theirs))
        pairs = _pairs(our, their)
        for i, j in pairs:
            if not abs(our[i].score - their[j].score) <= tolerance:
                return f"{label!r} scores {their[j].score:.4f}, ours {our[i].score:.4f}"
        lost = _alone(our, their, {i for i, _ in pairs}, floors[1])
        if lost is not None:
            return f"{label!r} at {_at(lost)} with score {lost.score:.4f} was not found"
        extra = _alone(their, our, {j for _, j in pairs}, floors[0])
        if extra is not None:
            return f"{label!r} at {_at(extra)} with score {extra.score:.4f} is not in ours"
    return ""


def _floor(side: Sequence[Found], score_min: float) -> float:
    """Return the score that an answer had room for."""
    return min(found.score for found in side) if len(side) >= DETECTIONS_MAX else score_min


def _pairs(ours: Sequence[Found], theirs: Sequence[Found]) -> list[tuple[int, int]]:
    """Return matching boxes of one label, greedily by overlap; each is in one pair at most."""
    if not ours or not theirs:
        return []
    shared = overlap([found.box for found in ours], [found.box for found in theirs])
    pairs = []
    while shared.max() >= OVERLAP_SAME:
        i, j = (int(place) for place in np.unravel_index(shared.argmax(), shared.shape))
        pairs.append((i, j))
        shared[i, :], shared[:, j] = -1, -1
    return pairs


def _alone(some: Sequence[Found], others: Sequence[Found], paired: set[int], floor: float) -> Found | None:
    """Return the first box without a partner that nothing forgives."""
    room = np.full(len(others), DOUBLES_MAX)
    for number, found in enumerate(some):
        if number not in paired and found.score >= floor:
            shared = overlap([found.box], [other.box for other in others])[0] * (room > 0)
            if not shared.size or shared.max() < OVERLAP_DOUBLE:
                return found
            room[shared.argmax()] -= 1
    return None


def _corners(boxes: Floats, places: npt.NDArray[np.intp], rules: Boxes, manifest: Manifest) -> Floats:
    """Return left, top, right, bottom in the input's pixels."""
    if rules.form == "corners":
        return boxes
    middle, sides = boxes[:, :2], boxes[:, 2:]
    if rules.form == "yolox":
        cells, strides = _grid(rules.strides, manifest.input.width, manifest.input.height)
        middle = (middle + cells[places]) * strides[places]
        with np.errstate(over="ignore"):  # infinite sides are no box
            sides = np.exp(sides) * strides[places]
    return np.concatenate([middle - sides / 2, middle + sides / 2], axis=1)


@functools.lru_cache(maxsize=4)
def _grid(strides: tuple[int, ...], width: int, height: int) -> tuple[Floats, Floats]:
    """Return each place's cell (x, y) and stride, [places, 2] and [places, 1]."""
    cells, sizes = [], []
    for stride in strides:
        down, across = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([across.ravel(), down.ravel()], axis=1))
        sizes.append(np.full((down.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(sizes).astype(np.float32)


def _in_picture(boxes: Floats, place: Placement) -> npt.NDArray[np.float64]:
    corner = np.array([place.left, place.top] * 2, np.float64)
    scale = np.array([place.across, place.down] * 2, np.float64)
    return np.asarray((boxes - corner) / scale)


def _without_doubles(boxes: npt.NDArray[np.float64], classes: npt.NDArray[np.intp], rules: Boxes) -> list[int]:
    """Return the places of what stays, best first: non-maximum suppression, label by label."""
    dropped = np.zeros(len(boxes), bool)
    kept = []
    for number in range(len(boxes)):
        if dropped[number]:
            continue
        kept.append(number)
        if len(kept) == DETECTIONS_MAX:
            break
        rest = np.flatnonzero(~dropped & (classes == classes[number]))
        rest = rest[rest > number]
        dropped[rest[overlap(boxes[number], boxes[rest])[0] > rules.overlap_max]] = True
    return kept


def _box(sides: npt.NDArray[np.float64]) -> Box:
    left, top, right, bottom = (float(side) for side in sides)
    return left, top, right, bottom


def _at(found: Found) -> str:
    return "(" + ", ".join(f"{side:.0f}" for side in found.box) + ")"
