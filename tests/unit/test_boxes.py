"""What a detector finds, and when two answers are the same; checked against the plain second implementation."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed
from PIL import Image
from videos import LABELS, light_bundle, light_manifest

from fleetbatch.bundle import (
    Boxes,
    Content,
    Found,
    Golden,
    Manifest,
    Resize,
    build_bundle,
    difference,
    found_in,
    open_bundle,
    overlap,
    placement,
)
from fleetbatch.errors import RejectedError
from fleetbatch.inference import check_goldens, open_inference
from fleetbatch.packing.reference import reference_found
from fleetbatch.pixels import prepare

GOOD = open_bundle(light_bundle(), expected_sha256=None).content
CAR = Found(label="car", score=0.8, box=(10.0, 10.0, 50.0, 40.0))
SIDES = st.tuples(*[st.floats(-20, 120, width=32)] * 4)


def manifest(boxes: Boxes, **resize: Any) -> Manifest:
    return changed(light_manifest(), boxes=boxes, resize=Resize(mode="letterbox", **resize))


def differs(ours: list[Found], theirs: list[Found]) -> str:
    return difference(ours, theirs, score_min=0.3, tolerance=0.02)


def moved(found: Found, by: float = 0.0, **other: Any) -> Found:
    left, top, right, bottom = found.box
    values = {"label": found.label, "score": found.score, "box": (left + by, top + by, right + by, bottom + by)}
    return Found(**{**values, **other})


def test_a_box_of_the_input_is_found_where_it_lies_in_the_picture() -> None:
    raw = np.array([[24, 16, 48, 32, 0.9, 0.0]], np.float32)
    corners = Boxes(form="corners", score_min=0.5)
    [found] = found_in(raw, manifest(corners), LABELS, (192, 128))  # twice the input
    assert (found.label, found.box) == ("light", (48, 32, 96, 64))
    assert found.score == pytest.approx(0.9)
    [found] = found_in(raw, manifest(corners), LABELS, (96, 32))  # half as high: 16 pixels of padding above
    assert found.box == (24, 0, 48, 16)
    [found] = found_in(raw, manifest(corners, anchor="top_left"), LABELS, (96, 32))
    assert found.box == (24, 16, 48, 32)
    squashed = changed(light_manifest(), boxes=corners, resize=Resize(mode="squash"))
    assert found_in(raw, squashed, LABELS, (192, 32))[0].box == (48, 8, 96, 16)


def test_yolox_counts_from_its_cells_in_strides_and_weighs_with_objectness() -> None:
    grids = Boxes(form="yolox", strides=(16, 32), objectness=True, score_min=0.3)
    raw = np.zeros((6 * 4 + 3 * 2, 7), np.float32)
    raw[6 + 2] = (0.5, 0.25, np.log(2), np.log(1), 0.9, 0.0, 0.5)  # column 2, row 1 of the first grid
    raw[24 + 1] = (0, 0, 0, 0, 0.5, 0.8, 0.0)  # column 1, row 0 of the second
    found = found_in(raw, manifest(grids), LABELS, (96, 64))
    assert [(one.label, round(one.score, 4)) for one in found] == [("dark", 0.45), ("light", 0.4)]
    assert found[0].box == pytest.approx((40 - 16, 20 - 8, 40 + 16, 20 + 8))
    assert found[1].box == pytest.approx((32 - 16, -16, 32 + 16, 16))


def test_of_boxes_that_overlap_the_best_stays_label_by_label() -> None:
    raw = np.array(
        [[0, 0, 20, 20, 0.7, 0], [1, 1, 21, 21, 0.9, 0], [1, 1, 21, 21, 0, 0.6], [40, 0, 60, 20, 0.5, 0]], np.float32
    )
    found = found_in(raw, manifest(Boxes(form="corners", score_min=0.4)), LABELS, (96, 64))
    assert [(one.label, round(one.score, 2)) for one in found] == [("light", 0.9), ("dark", 0.6), ("light", 0.5)]


def test_values_that_are_no_numbers_are_no_detections() -> None:
    raw = np.array([[np.nan, 0, 9, 9, 0.9, 0], [0, 0, 9, 9, np.nan, 0], [0, 0, np.inf, 9, 0.9, 0]], np.float32)
    assert found_in(raw, manifest(Boxes(form="corners")), LABELS, (96, 64)) == ()


def test_what_has_no_breadth_is_no_detection() -> None:
    raw = np.array([[5, 5, 5, 9, 0.9, 0], [9, 5, 5, 9, 0.9, 0]], np.float32)
    assert found_in(raw, manifest(Boxes(form="corners")), LABELS, (96, 64)) == ()


@settings(max_examples=40, deadline=None)
@given(
    boxes=st.lists(st.tuples(SIDES, st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3)), max_size=12),
    form=st.sampled_from(["corners", "centres", "yolox"]),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    anchor=st.sampled_from(["centre", "top_left"]),
)
def test_two_implementations_find_the_same(
    boxes: list[tuple[tuple[float, ...], list[float]]], form: Any, size: tuple[int, int], anchor: Any
) -> None:
    rules = Boxes(form=form, strides=(32,) if form == "yolox" else (), objectness=True, score_min=0.2)
    raw = np.array([[*(np.array(box) / (40 if form == "yolox" else 1)), *scores] for box, scores in boxes])
    raw = raw.reshape(-1, 7).astype(np.float32)[: 3 * 2]
    ours = found_in(raw, manifest(rules, anchor=anchor), LABELS, size)
    theirs = reference_found(raw.astype(np.float64), manifest(rules, anchor=anchor), LABELS, size)
    assert difference(ours, theirs, score_min=0.2, tolerance=1e-4) == ""


@settings(deadline=None, max_examples=60)
@given(width=st.integers(1, 2000), height=st.integers(1, 2000), anchor=st.sampled_from(["centre", "top_left"]))
def test_a_letterboxed_picture_lies_within_the_input(width: int, height: int, anchor: Any) -> None:
    place = placement(width, height, manifest(Boxes(form="corners"), anchor=anchor))
    assert 0 <= place.left <= place.left + place.width <= 96
    assert 0 <= place.top <= place.top + place.height <= 64
    assert max(place.width / 96, place.height / 64) > 0.98


def test_what_is_prepared_lies_where_its_placement_says() -> None:
    black = Image.new("RGB", (48, 48))
    place = placement(48, 48, light_manifest())
    values = prepare(black, changed(light_manifest(), resize=Resize(mode="letterbox", padding=200)))
    rows, columns = np.nonzero(values[0] == 0)
    assert (columns.min(), rows.min()) == (place.left, place.top)
    assert (columns.max() + 1 - place.left, rows.max() + 1 - place.top) == (place.width, place.height)


def test_overlap_is_intersection_over_union() -> None:
    found = overlap([(0, 0, 2, 2), (0, 0, 0, 0)], [(1, 0, 3, 2), (0, 0, 2, 2), (5, 5, 6, 6)])
    assert found == pytest.approx(np.array([[1 / 3, 1, 0], [0, 0, 0]]))


def test_two_answers_agree_within_a_pixel_and_the_tolerance() -> None:
    assert differs([CAR], [moved(CAR, 1.0, score=0.81)]) == ""
    assert "scores 0.7700" in differs([CAR], [moved(CAR, score=0.77)])
    assert "was not found" in differs([CAR], [])
    assert "not in ours" in differs([], [CAR])
    assert "was not found" in differs([CAR], [moved(CAR, 30.0)])
    assert differs([CAR], [moved(CAR, label="truck")]) != ""
    assert differs([CAR], [moved(CAR, score=float("nan"))]) != ""


def test_what_hardware_may_decide_is_forgiven_and_no_more() -> None:
    faint = moved(CAR, 100.0, score=0.31)
    assert differs([CAR, faint], [CAR]) == differs([CAR], [CAR, faint]) == ""
    assert differs([CAR, moved(faint, score=0.33)], [CAR]) != ""
    half = moved(CAR, 8.0, score=0.79)  # one of the two may be dropped as the other's double
    assert 0.35 < overlap([CAR.box], [half.box])[0, 0] < 0.7
    assert differs([CAR], [half]) == differs([CAR, half], [CAR]) == ""


def test_copies_of_one_box_do_not_hide_that_the_others_were_not_looked_for() -> None:
    ours = [moved(CAR, by=60.0 * number, score=0.99 - 0.02 * number) for number in range(20)]
    assert "is not in ours" in differs(ours, [ours[0]] * 64) or "was not found" in differs(ours, [ours[0]] * 64)
    assert differs(ours, [ours[0], *ours]) == ""


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(SIDES, st.floats(0.3, 1)), max_size=8))
def test_an_answer_agrees_with_itself_in_any_order(drawn: list[tuple[tuple[float, ...], float]]) -> None:
    found = [
        Found(label="car", score=score, box=(min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1))
        for (a, b, c, d), score in drawn
    ]
    assert differs(found, found) == ""


def test_a_detector_reproduces_its_golden_and_another_answer_is_refused() -> None:
    bundle = open_bundle(light_bundle(), expected_sha256=None)
    inference = open_inference(bundle, provider="CPUExecutionProvider", threads=1)
    check_goldens(bundle, inference)
    [golden] = GOOD.goldens
    boxes = tuple((a + 30, b, c + 30, d) for a, b, c, d in golden.answer.boxes)
    aside = Golden(answer=changed(golden.answer, boxes=boxes), content=golden.content)
    wrong = open_bundle(build_bundle(_content(goldens=(aside,))), expected_sha256=None)
    with pytest.raises(RejectedError, match="does not reproduce its goldens"):
        check_goldens(wrong, inference)


def test_a_detector_that_answers_in_another_shape_than_its_manifest_is_refused() -> None:
    bundle = open_bundle(build_bundle(_content(labels=("light", "dark", "third"))), expected_sha256=None)
    with pytest.raises(RejectedError, match="not what its manifest says"):
        open_inference(bundle, provider="CPUExecutionProvider", threads=1)


@pytest.mark.parametrize(
    ("manifest_change", "why"),
    [
        ({"boxes": None}, "output.kind"),
        ({"boxes": Boxes(form="yolox")}, "strides"),
        ({"boxes": Boxes(form="yolox", strides=(7,))}, "divide"),
        ({"resize": Resize(mode="crop", shorter_side=96)}, "whole pictures"),
    ],
)
def test_a_bundle_whose_boxes_make_no_sense_is_not_built(manifest_change: dict[str, Any], why: str) -> None:
    with pytest.raises(RejectedError, match=why):
        build_bundle(_content(manifest=changed(GOOD.manifest, **manifest_change)))


def test_a_golden_in_which_nothing_is_to_be_found_does_not_stand_alone() -> None:
    [golden] = GOOD.goldens
    nothing = changed(golden.answer, classes=(), labels=(), scores=(), boxes=())
    with pytest.raises(RejectedError, match="anything to find"):
        build_bundle(_content(goldens=(Golden(answer=nothing, content=golden.content),)))


def _content(**other: Any) -> Content:
    values = {name: getattr(GOOD, name) for name in ("manifest", "model", "labels", "goldens", "variants")}
    return Content(**{**values, **other})
