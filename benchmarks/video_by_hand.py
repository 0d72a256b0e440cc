"""What somebody writes who has a folder of films and a detector: PyAV, Pillow, numpy, onnxruntime, one Parquet file."""

import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

EVERY = 5
Told = dict[str, Any]
Floats = npt.NDArray[np.float32]


def main(given: Path, target: Path) -> None:
    manifest, labels = (
        json.loads((given / "manifest.json").read_text()),
        json.loads((given / "labels.json").read_text()),
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(given / "model.onnx"), options, providers=["CPUExecutionProvider"])
    rows = [row for film in sorted((given / "pictures").iterdir()) for row in look(film, session, manifest, labels)]
    pq.write_table(pa.Table.from_pylist(rows), target)
    print(len(rows))


def look(film: Path, session: ort.InferenceSession, manifest: Told, labels: list[str]) -> list[Told]:
    rows = []
    with av.open(str(film), "r") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(stream)):
            if number % EVERY:
                continue
            picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
            values, factor, corner = prepared(picture, manifest)
            [raw] = session.run([manifest["output"]["name"]], {manifest["input"]["name"]: values})
            found = detections(raw[0], manifest, labels, factor, corner)
            rows.append({"film": film.name, "frame": number, "seconds": frame.time, "detections": found})
    return rows


def prepared(picture: Image.Image, manifest: Told) -> tuple[Any, float, tuple[int, int]]:
    wide, high = manifest["input"]["width"], manifest["input"]["height"]
    factor = min(wide / picture.width, high / picture.height)
    small = picture.resize((int(picture.width * factor), int(picture.height * factor)), Image.Resampling.BILINEAR)
    ground = np.full((high, wide, 3), manifest["resize"]["padding"], np.uint8)
    corner = (0, 0)
    if manifest["resize"]["anchor"] == "centre":
        corner = ((wide - small.width) // 2, (high - small.height) // 2)
    ground[corner[1] : corner[1] + small.height, corner[0] : corner[0] + small.width] = np.asarray(small)
    pixels = ground[:, :, ::-1] if manifest["input"]["colour"] == "BGR" else ground
    normalise = manifest["normalise"]
    values = pixels.transpose(2, 0, 1)[np.newaxis].astype(np.float32)
    if (normalise["scale"], *normalise["mean"], *normalise["std"]) != (1, 0, 0, 0, 1, 1, 1):
        mean, std = (np.array(normalise[name], np.float32).reshape(3, 1, 1) for name in ("mean", "std"))
        values = (values * np.float32(normalise["scale"]) - mean) / std
    return values, factor, corner


def detections(raw: Floats, manifest: Told, labels: list[str], factor: float, corner: tuple[int, int]) -> list[Told]:
    rules = manifest["boxes"]
    scores = raw[:, 5:] * raw[:, 4:5] if rules["objectness"] else raw[:, 4:]
    places, classes = np.nonzero(scores >= rules["score_min"])
    boxes, likely = raw[places, :4], scores[places, classes]
    if rules["form"] == "yolox":
        cells, strides = grid(rules["strides"], manifest["input"]["width"], manifest["input"]["height"])
        middle = (boxes[:, :2] + cells[places]) * strides[places]
        half = np.exp(boxes[:, 2:]) * strides[places] / 2
        boxes = np.concatenate([middle - half, middle + half], axis=1)
    boxes = (boxes - np.array([*corner, *corner])) / factor
    kept: list[int] = []
    for number in np.argsort(-likely):
        rivals = [other for other in kept if classes[other] == classes[number]]
        if all(overlap(boxes[number], boxes[other]) <= rules["overlap_max"] for other in rivals):
            kept.append(int(number))
    sides = ("left", "top", "right", "bottom")
    return [
        {"label": labels[classes[n]], "score": float(likely[n]), **dict(zip(sides, boxes[n].tolist(), strict=True))}
        for n in kept
    ]


GRIDS: dict[tuple[int, ...], tuple[Any, Any]] = {}


def grid(strides: list[int], wide: int, high: int) -> tuple[Any, Any]:
    if tuple(strides) not in GRIDS:
        cells, sizes = [], []
        for stride in strides:
            down, across = np.mgrid[: high // stride, : wide // stride]
            cells.append(np.stack([across.ravel(), down.ravel()], 1))
            sizes.append(np.full((down.size, 1), stride))
        GRIDS[tuple(strides)] = (np.concatenate(cells).astype(np.float32), np.concatenate(sizes).astype(np.float32))
    return GRIDS[tuple(strides)]


def overlap(one: Floats, other: Floats) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    common = max(wide, 0) * max(high, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(common / (sum(areas) - common))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
