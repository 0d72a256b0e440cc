"""Segments in, detections frame by frame out; and which of two answers an audit takes for the same."""

import io
import json
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from model_bundles import content as colour_content
from PIL import Image
from videos import HEIGHT, WIDTH, Codec, Film, damaged, film_file, light_bundle

from fleetbatch.bundle import (
    Boxes,
    Content,
    Golden,
    GoldenAnswer,
    Input,
    Manifest,
    Normalise,
    Output,
    Resize,
    build_bundle,
)
from fleetbatch.contracts import contract
from fleetbatch.errors import RejectedError
from fleetbatch.sharding.openers import open_input
from fleetbatch.sharding.shard_rows import Row
from fleetbatch.workloads import Device, answer_rows, workload
from fleetbatch.workloads.segments import Segment

VIDEO = workload("video")
HERE = Device(provider="CPUExecutionProvider")


def cut(folder: Path, **options: str) -> list[Row]:
    given = open_input("video", str(folder), options)
    return [given.row(entry, bytes_max=1 << 25) for entry in given.entries()]


def answers(rows: list[Row], bundle: bytes, device: Device = HERE) -> list[dict[str, Any]]:
    table = pa.table(
        {
            "item_id": [f"item-{number}" for number in range(len(rows))],
            "bytes": pa.array([row.content for row in rows], pa.binary()),
            "attributes": pa.array([row.attributes for row in rows], pa.string()),
            "error": pa.array([row.error for row in rows], pa.string()),
        }
    )
    answer = VIDEO.open(bundle, device, {})
    found: list[dict[str, Any]] = answer_rows(VIDEO, answer, table, row_group=3).to_pylist()
    return found


def film(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "film.mp4").write_bytes(content)
    return folder


def test_every_wanted_frame_is_a_row_with_its_number_its_seconds_and_what_is_in_it(tmp_path: Path) -> None:
    rows = cut(film(tmp_path, film_file(Film(between=2))), every_frames="4", segment_s="0.5")
    found = answers(rows, light_bundle())
    assert [row["frame"] for row in found] == list(range(0, 50, 4))
    assert [row["seconds"] for row in found] == pytest.approx([frame / 25 for frame in range(0, 50, 4)])
    assert {row["row_group"] for row in found} == {3}
    eight = next(row for row in found if row["frame"] == 8)  # the block begins at 24: cells 24 and 32
    assert sorted((one["left"], one["top"]) for one in eight["detections"]) == [(24, 24), (24, 32), (32, 24), (32, 32)]
    assert all(one["label"] == "light" and one["score"] > 0.9 for one in eight["detections"])
    assert {(row["score_min"], row["reencoded"], row["error"]) for row in found} == {(0.5, False, None)}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("turned", "middle"), [(0, (8, 48)), (90, (48, 88)), (180, (88, 16)), (-90, (16, 8))])
def test_a_film_that_lies_on_its_side_or_is_mirrored_is_looked_at_as_it_is_shown(
    tmp_path: Path, turned: int, middle: tuple[int, int], *, mirrored: bool
) -> None:
    ways: tuple[tuple[str, Codec], ...] = (("false", "libx264"), ("true", "mpeg4"))
    across, down = middle
    if mirrored:
        across = (WIDTH if turned % 180 == 0 else HEIGHT) - across
    for reencode, codec in ways:
        content = film_file(Film(turned=turned, mirrored=mirrored, codec=codec, down=16))
        [row] = answers(cut(film(tmp_path, content), every_frames="99", reencode=reencode), light_bundle())
        assert row["reencoded"] is (reencode == "true")
        boxes = [[one[side] for side in ("left", "top", "right", "bottom")] for one in row["detections"]]
        left, top, right, bottom = np.mean(boxes, axis=0)
        assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((across, down), abs=8)


def test_a_display_matrix_of_zeros_turns_nothing(tmp_path: Path) -> None:
    content = film_file(Film(turned=90))
    place = content.index(b"tkhd") + 44
    [row] = answers(
        cut(film(tmp_path, content[:place] + bytes(36) + content[place + 36 :]), every_frames="99"), light_bundle()
    )
    assert min(one["left"] for one in row["detections"]) == 0


def test_a_dead_segment_is_one_row_and_a_damaged_one_names_the_frames_that_do_not_come(tmp_path: Path) -> None:
    content = damaged(film_file(Film(settings={"qp": "1"})), 23)
    film(tmp_path, content)
    (tmp_path / "zero.mp4").write_bytes(b"")
    found = answers(cut(tmp_path, every_frames="2", segment_s="0.1"), light_bundle())
    dead = [row for row in found if row["error"] is not None]
    assert [row["frame"] for row in dead] == [24, 26, 28, None]  # frames 20 and 22 come before the damage
    assert all(row["detections"] is None and row["seconds"] is None for row in dead)
    assert len(found) == 26


def test_a_frame_says_what_the_model_computed_in_and_one_that_does_not_decode_says_nothing(tmp_path: Path) -> None:
    rows = cut(film(tmp_path, damaged(film_file(Film(settings={"qp": "1"})), 23)), every_frames="2", segment_s="0.1")
    for precision, computed_in in (("", "fp32"), ("fp16", "fp16"), ("int8", "fp32")):  # it has no int8 variant
        found = answers(rows, light_bundle(half=True), Device(provider=HERE.provider, precision=precision))
        said = {(row["error"] is None, row["precision"]) for row in found}
        assert said == {(True, computed_in), (False, None)}


def test_a_segment_that_holds_less_than_it_says_is_dead_frame_by_frame(tmp_path: Path) -> None:
    [row] = cut(film(tmp_path, film_file(Film(frames=10))), every_frames="5", segment_s="9")
    assert row.attributes is not None
    more = msgspec.structs.replace(msgspec.json.decode(row.attributes, type=Segment), frames=11)
    lying = Row(content=row.content, attributes=msgspec.json.encode(more).decode())
    found = answers([lying], light_bundle())
    assert [(one["frame"], one["error"]) for one in found] == [
        (0, "10 frames are in the segment, 11 should be"),
        (5, "10 frames are in the segment, 11 should be"),
    ]


def test_answers_of_another_machine_agree_and_invented_ones_do_not(tmp_path: Path) -> None:
    found = answers(cut(film(tmp_path, film_file(Film())), every_frames="10"), light_bundle())

    def compared(theirs: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
        schema = contract(VIDEO.answers_contract).schema
        ours, others = (pa.Table.from_pylist(side, schema=schema) for side in (found, theirs))
        return VIDEO.compare(ours, others).disagreements

    def with_first(**changed: Any) -> list[dict[str, Any]]:
        return [found[0] | changed, *found[1:]]

    detections = found[0]["detections"]
    nudged = [{**one, "score": one["score"] - 0.01, "left": one["left"] + 0.5} for one in detections]
    assert compared(with_first(detections=nudged)) == ()
    assert compared(with_first(detections=detections[1:])) != ()
    assert compared(with_first(detections=[{**detections[0], "label": "dark"}, *detections[1:]])) != ()
    assert compared(with_first(detections=[{**detections[0], "score": None}, *detections[1:]])) != ()
    assert compared(with_first(detections=None)) != ()
    assert compared(with_first(detections=[{**one, "score": 1.5} for one in detections])) != ()
    assert compared(with_first(seconds=0.5)) != ()
    assert compared(with_first(precision="fp16")) == ()
    assert compared(with_first(precision="int8")) != ()
    assert compared(with_first(frame=1)) != ()
    assert compared(with_first(error="tired", detections=None, seconds=None)) != ()
    assert compared(found[1:]) != ()


def test_a_bundle_without_boxes_and_an_order_without_a_bundle_are_refused() -> None:
    with pytest.raises(RejectedError, match="videos need a model"):
        VIDEO.open(None, HERE, {})
    with pytest.raises(RejectedError, match="needs a detector"):
        VIDEO.open(build_bundle(colour_content()), HERE, {})


def test_a_real_drive_with_yolox_nano_gives_the_reference_programs_answers(shared_data: Path) -> None:
    wanted = json.loads((shared_data / "golden_video.json").read_text())[0]["every5"]
    found = answers(cut(shared_data / "video", every_frames="5"), yolox_bundle(shared_data))
    assert [(row["frame"], round(row["seconds"], 6)) for row in found] == [(frame, at) for frame, at, _ in wanted]
    for row, (frame, _, detections) in zip(found, wanted, strict=True):
        assert [one["label"] for one in row["detections"]] == [label for label, *_ in detections], frame
        for one, (_, score, *box) in zip(row["detections"], detections, strict=True):
            assert one["score"] == pytest.approx(score, abs=0.02)
            assert [one[side] for side in ("left", "top", "right", "bottom")] == pytest.approx(box, abs=1.0)


def yolox_bundle(shared_data: Path) -> bytes:
    """YOLOX-nano as its authors say it is fed; its golden is a frame with the reference program's answer."""
    labels = tuple(line for line in (shared_data / "models" / "coco_classes.txt").read_text().splitlines() if line)
    frame, _, detections = json.loads((shared_data / "golden_video.json").read_text())[0]["every5"][4]
    file = io.BytesIO()
    with av.open(str(shared_data / "video" / "lane__solidWhiteRight.mp4"), "r") as container:
        pixels = next(f for n, f in enumerate(container.decode(video=0)) if n == frame).to_ndarray(format="rgb24")
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG")
    answer = GoldenAnswer(
        picture="frame.png",
        classes=tuple(labels.index(label) for label, *_ in detections),
        labels=tuple(label for label, *_ in detections),
        scores=tuple(score for _, score, *_ in detections),
        boxes=tuple((left, top, right, bottom) for _, _, left, top, right, bottom in detections),
    )
    manifest = Manifest(
        name="yolox",
        workload="video",
        input=Input(name="images", layout="NCHW", dtype="fp32", batch=0, width=416, height=416, colour="BGR"),
        resize=Resize(mode="letterbox", padding=114, anchor="top_left"),
        normalise=Normalise(),
        output=Output(name="output", kind="boxes"),
        boxes=Boxes(form="yolox", strides=(8, 16, 32), objectness=True, score_min=0.3, overlap_max=0.45),
    )
    model = (shared_data / "models" / "yolox_nano_dyn.onnx").read_bytes()
    golden = Golden(answer=answer, content=file.getvalue())
    return build_bundle(Content(manifest=manifest, model=model, labels=labels, goldens=(golden,), variants={}))
