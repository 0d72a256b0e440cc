"""Video recognition: segments of a video in, what a detector finds in their wanted frames out.

The decoder is imported when a segment is answered: whoever only asks what this workload is does not pay for it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
from PIL import Image

from fleetbatch.bundle import DETECTIONS_MAX, Bundle, Found, difference, found_in, open_bundle
from fleetbatch.errors import RejectedError
from fleetbatch.inference import check_goldens, open_inference
from fleetbatch.pixels import Floats, prepare
from fleetbatch.workloads.protocol import Answer, AnswerRow, Device, Workload

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from fleetbatch.workloads.segments import Segment

_SIDES: Final = ("left", "top", "right", "bottom")
Detector: TypeAlias = Callable[[Floats], Floats]
"""[N, ...] inputs to [N, places, values]; `inference.Inference` is one."""
Size: TypeAlias = tuple[int, int]


class VideoWorkload(Workload):
    """Looks at the frames that the order names; two answers agree when their boxes and scores do."""

    name = "video"
    needs = ("av",)
    opener = "fleetbatch.sharding.video:Videos"
    options = frozenset({"every_frames", "every_s", "segment_s", "segment_bytes", "reencode"})
    rows_per_s = 3.0
    """Segments of 2 s, of which two frames are looked at."""
    score_tolerance: ClassVar[float] = 0.02
    """Hardware, provider and precision may move a score by this much (the bundle's goldens allow the same)."""

    def open(self, model: bytes | None, device: Device, options: Mapping[str, str]) -> Answer:  # noqa: ARG002 (a row says which frames)
        """Open the bundle and see that it reproduces its goldens here."""
        bundle = _bundle(model)
        inference = open_inference(bundle, provider=device.provider, threads=device.threads, precision=device.precision)
        check_goldens(bundle, inference)
        return frame_detector(bundle, inference, precision=inference.computes_in)

    def row_bytes(self, rows: pa.Table) -> int:
        """Return what a frame takes, the pictures that its decoder holds, and the segments as they are taken apart."""
        from fleetbatch.workloads.segments import Segment

        told = [one for one in rows["attributes"].to_pylist() if one]
        held = max((msgspec.json.decode(one, type=Segment).decoder_bytes for one in told), default=0)
        return super().row_bytes(rows) + held + rows.nbytes

    def labels(self, model: bytes | None) -> tuple[str, ...]:
        """Return the bundle's labels."""
        return _bundle(model).labels

    def differs(self, ours: AnswerRow, theirs: AnswerRow) -> str:
        """Return why two answers for one frame are not the same, or nothing."""
        for name in ("seconds", "score_min", "reencoded"):
            if ours[name] != theirs[name]:
                return f"{name} is {theirs[name]!r}, ours is {ours[name]!r}"
        if (theirs["precision"] == "int8") != (ours["precision"] == "int8"):
            return f"precision is {theirs['precision']!r}, ours is {ours['precision']!r}"
        return _form_problem(theirs) or difference(
            _found(ours), _found(theirs), score_min=ours["score_min"], tolerance=self.score_tolerance
        )


def frame_detector(bundle: Bundle, detector: Detector, *, precision: str) -> Answer:
    """Return what answers segments with a bundle whose model is open; a frame that does not decode has an error.

    Every frame that was looked at says what `precision` the model computed in.
    """
    schema = VideoWorkload().answer_schema
    how = {"precision": precision}

    def answer(rows: pa.Table) -> pa.Table:
        items = rows.select(["item_id", "bytes", "attributes"]).to_pylist()
        answers = [
            {"item_id": item["item_id"], **one, **({} if one.get("error") else how)}
            for item in items
            for one in _answers(item, bundle, detector)
        ]
        return pa.Table.from_pylist(answers, schema=schema)

    return answer


def _bundle(model: bytes | None) -> Bundle:
    if model is None:
        summary = "videos need a model: name a detector's bundle made with `fleetbatch model pack`"
        raise RejectedError(summary)
    bundle = open_bundle(model, expected_sha256=None)
    if bundle.manifest.workload != VideoWorkload.name or bundle.manifest.boxes is None:
        kind = bundle.manifest.output.kind
        summary = (
            f"the bundle is for workload {bundle.manifest.workload!r}, output {kind}; a video order needs a detector"
        )
        raise RejectedError(summary)
    return bundle


def _answers(item: dict[str, Any], bundle: Bundle, detector: Detector) -> Iterator[dict[str, Any]]:
    """Yield the answer columns of a segment's wanted frames; from the first that fails on they have an error.

    The model sees one frame at a time: two together fall out of a core's cache, take a seventh longer each, and a copy.
    """
    from fleetbatch.workloads.segments import Segment

    segment = msgspec.json.decode(item["attributes"], type=Segment)
    opened = _Frames(item["bytes"], segment, bundle)
    numbers = (segment.frame_start + offset for offset in segment.wanted)
    for seconds, size, values in opened:
        [raw] = detector(values[np.newaxis])
        known = {"frame": next(numbers), "seconds": seconds, "reencoded": segment.reencoded}
        yield {**known, **_detections(raw, bundle, size)}
    for number in numbers:
        yield {"frame": number, "error": opened.why}


@dataclass(slots=True)
class _Frames:
    """The wanted frames of a segment as inputs of a model; no other frame is converted."""

    content: bytes
    segment: "Segment"
    bundle: Bundle
    why: str = ""
    """Why they ended early."""

    def __iter__(self) -> Iterator[tuple[float, Size, Floats]]:
        """Yield (seconds, size in pixels, input), until one does not decode."""
        from fleetbatch.workloads.segments import Undecodable, wanted_frames

        try:
            for pts, frame in wanted_frames(self.content, self.segment):
                picture = _upright(frame)
                yield self.segment.seconds(pts), picture.size, prepare(picture, self.bundle.manifest)
        except Undecodable as error:
            self.why = str(error)


def _upright(frame: "VideoFrame") -> Image.Image:
    """Return the frame as RGB, turned and mirrored as the file's display matrix says."""
    from fleetbatch.workloads.orientation import orientation_of

    return Image.fromarray(orientation_of(frame).shown(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)))


def _detections(raw: Floats, bundle: Bundle, size: Size) -> dict[str, Any]:
    assert bundle.manifest.boxes is not None
    found = found_in(raw, bundle.manifest, bundle.labels, size)
    return {
        "detections": [
            dict(
                zip(("label", "score", "left", "top", "right", "bottom"), (one.label, one.score, *one.box), strict=True)
            )
            for one in found
        ],
        "score_min": bundle.manifest.boxes.score_min,
    }


def _form_problem(answer: AnswerRow) -> str:
    """Return what no honest runner would write, or nothing."""
    detections = answer["detections"]
    if detections is None or any(one is None or None in one.values() for one in detections):
        return "it has neither detections nor an error, or a detection lacks a value"
    if len(detections) > DETECTIONS_MAX:
        return f"it has {len(detections)} detections; a picture has {DETECTIONS_MAX} at most"
    scores = [one["score"] for one in detections]
    if scores != sorted(scores, reverse=True) or any(not 0 <= score <= 1 for score in scores):
        return "its scores are not 0 to 1, best first"
    return ""


def _found(answer: AnswerRow) -> list[Found]:
    return [
        Found(label=one["label"], score=one["score"], box=tuple(one[side] for side in _SIDES))
        for one in answer["detections"]
    ]
