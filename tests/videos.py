"""Videos of every kind that a folder may hold, made with PyAV's own encoders; a test changes one word."""

import contextlib
import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fleetbatch.bundle import (
    Boxes,
    Content,
    Golden,
    GoldenAnswer,
    Input,
    Manifest,
    Normalise,
    Output,
    Precision,
    Resize,
    build_bundle,
)
from fleetbatch.packing.half import to_half

WIDTH, HEIGHT = 96, 64
RATE = 25


CELL = 8
LABELS = ("light", "dark")


Pixels = npt.NDArray[np.uint8]
Codec = Literal["libx264", "libx265", "mpeg4"]


@dataclass(frozen=True, kw_only=True)
class Film:
    """A white block that walks to the right over grey, a group of `group` frames after the other."""

    frames: int = 50
    group: int = 10
    between: int = 0
    """B frames between two others."""
    codec: Codec = "libx264"
    container: str = "mp4"
    pts: Sequence[int] | None = None
    """In 1/25 s; None: one after the other."""
    sound: bool = False
    size: tuple[int, int] = (WIDTH, HEIGHT)
    turned: int = 0
    """Degrees against the clock by which a player turns it."""
    mirrored: bool = False
    """Whether a player mirrors it then."""
    down: int = 0
    """Pixels by which the block walks below the middle."""
    settings: Mapping[str, str] = field(default_factory=dict)
    muxing: Mapping[str, str] = field(default_factory=dict)


def picture(number: int, down: int = 0) -> npt.NDArray[np.uint8]:
    """Return what frame `number` of every film shows."""
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    left = number * 3 % (WIDTH - 16)
    pixels[24 + down : 40 + down, left : left + 16] = 240
    return pixels


def film_file(film: Film) -> bytes:
    """Return the film as a file."""
    file = io.BytesIO()
    with av.open(file, "w", format=film.container, options=dict(film.muxing)) as container:
        quiet = {"x265-params": f"log-level=none:keyint={film.group}"} if film.codec == "libx265" else {}
        settings = {"g": str(film.group), "bf": str(film.between), "sc_threshold": "0", **quiet, **film.settings}
        stream = container.add_stream(film.codec, rate=RATE, options=settings)
        (stream.width, stream.height), stream.pix_fmt = film.size, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, RATE)
        stream.set_display_rotation(film.turned, hflip=film.mirrored)
        sound = container.add_stream("aac", rate=16_000) if film.sound else None
        for number in range(film.frames):
            frame = av.VideoFrame.from_ndarray(picture(number, film.down), format="rgb24")
            frame.pts = number if film.pts is None else film.pts[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            container.mux(sound.encode(silence()))
            container.mux(sound.encode(None))
    return file.getvalue()


def several_tracks(*films: Film, cover: bool = False) -> bytes:
    """Return an MP4 file with a video track for every film and, if so told, a cover picture."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container, contextlib.ExitStack() as opened:
        sources = [opened.enter_context(av.open(io.BytesIO(film_file(film)), "r")) for film in films]
        tracks = [container.add_stream_from_template(source.streams.video[0]) for source in sources]
        picture_track = container.add_stream("mjpeg", rate=RATE) if cover else None
        if picture_track is not None:
            picture_track.width, picture_track.height, picture_track.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            picture_track.disposition = av.stream.Disposition.attached_pic
            container.mux(picture_track.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
        for source, track in zip(sources, tracks, strict=True):
            for packet in (packet for packet in source.demux(video=0) if packet.size):
                packet.stream = track
                container.mux(packet)
    return file.getvalue()


def silence() -> av.AudioFrame:
    """Return a second of nothing to be heard."""
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
    frame.sample_rate = 16_000
    return frame


def sound_only() -> bytes:
    """Return an MP4 file without pictures."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000)
        container.mux(stream.encode(silence()))
        container.mux(stream.encode(None))
    return file.getvalue()


def index_first(content: bytes, folder: Path) -> bytes:
    """Return the same MP4 file with its index before its frames, made in a folder."""
    target = folder / "index-first.mp4"
    with av.open(io.BytesIO(content), "r") as source, av.open(target, "w", options={"movflags": "faststart"}) as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    found = target.read_bytes()
    target.unlink()
    return found


def edited(content: bytes, *, later: int, milliseconds: int) -> bytes:
    """Return an MP4 file whose edit list begins `later` frames later and shows so many milliseconds."""
    place = content.index(b"elst")
    changed = bytearray(content)
    (media_time,) = struct.unpack(">i", changed[place + 16 : place + 20])
    changed[place + 12 : place + 16] = struct.pack(">i", milliseconds)
    changed[place + 16 : place + 20] = struct.pack(">i", media_time + later * 512)  # 1/12800 s each
    return bytes(changed)


def damaged(content: bytes, number: int) -> bytes:
    """Return an MP4 file in which the end of packet `number` is other bytes."""
    with av.open(io.BytesIO(content), "r") as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
        assert packet.pos is not None
        start, stop = packet.pos + packet.size * 3 // 4, packet.pos + packet.size
    return content[:start] + bytes(0xA5 ^ byte for byte in content[start:stop]) + content[stop:]


def packet_place(content: bytes, number: int) -> int:
    """Return where in the file packet `number` begins."""
    with av.open(io.BytesIO(content), "r") as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][number]
        assert place is not None
        return place


def frames_of(content: bytes) -> dict[int, tuple[int, npt.NDArray[np.uint8]]]:
    """Return number to (pts, RGB) of all frames, as a plain loop decodes them."""
    with av.open(io.BytesIO(content), "r") as container:
        return {
            number: (frame.pts or 0, frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False))
            for number, frame in enumerate(container.decode(video=0))
        }


def same(found: dict[int, tuple[int, Pixels]], wanted: dict[int, tuple[int, Pixels]]) -> bool:
    """Return whether the same frames are there, at the same times and equal to the bit."""
    return found.keys() == wanted.keys() and all(
        found[number][0] == wanted[number][0] and np.array_equal(found[number][1], wanted[number][1])
        for number in wanted
    )


def light_manifest() -> Manifest:
    """Say of every 8 x 8 pixels of a film whether they are light."""
    return Manifest(
        name="light",
        workload="video",
        input=Input(name="frame", layout="NCHW", dtype="fp32", batch=0, width=WIDTH, height=HEIGHT, colour="RGB"),
        resize=Resize(mode="letterbox"),
        normalise=Normalise(),
        output=Output(name="found", kind="boxes"),
        boxes=Boxes(form="corners", score_min=0.5, overlap_max=0.45),
    )


def light_bundle(*, half: bool = False) -> bytes:
    """A detector of light cells; its golden is frame 0 of every film, in which it finds four, by hand.

    It has a variant in half precision where that is asked for.
    """
    file = io.BytesIO()
    Image.fromarray(picture(0)).save(file, "PNG")
    boxes = [(left, top, left + CELL, top + CELL) for top in (24, 32) for left in (0, 8)]
    answer = GoldenAnswer(
        picture="first.png",
        classes=(0,) * 4,
        labels=("light",) * 4,
        scores=(float(1 / (1 + np.exp(-(240 - 160) / 20))),) * 4,
        boxes=tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in boxes),
    )
    golden = Golden(answer=answer, content=file.getvalue())
    model = _light_model()
    variants: dict[Precision, bytes] = {"fp16": to_half(model)} if half else {}
    return build_bundle(
        Content(manifest=light_manifest(), model=model, labels=LABELS, goldens=(golden,), variants=variants)
    )


def _light_model() -> bytes:
    """An ONNX file: the mean of each cell, its score sigmoid((mean - 160) / 20), nothing dark, the cells as boxes."""
    rows, columns = np.mgrid[: HEIGHT // CELL, : WIDTH // CELL]
    corner = np.stack([columns, rows], -1).reshape(1, -1, 2).astype(np.float32) * CELL
    constants = {
        "cells": np.concatenate([corner, corner + CELL], -1),
        "rest": np.zeros((1, rows.size, 4), np.float32),
        "middle": np.array(160, np.float32),
        "step": np.array(20, np.float32),
        "third": np.full((1, 3, 1, 1), 1 / 3, np.float32),
        "flat": np.array([0, rows.size, 1], np.int64),
        "nothing": np.zeros((1, 1, 1), np.float32),
    }
    nodes = [
        helper.make_node("AveragePool", ["frame"], ["means"], kernel_shape=[CELL] * 2, strides=[CELL] * 2),
        helper.make_node("Conv", ["means", "third"], ["grey"]),
        helper.make_node("Reshape", ["grey", "flat"], ["places"]),
        helper.make_node("Sub", ["places", "middle"], ["above"]),
        helper.make_node("Div", ["above", "step"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["light"]),
        helper.make_node("Mul", ["light", "nothing"], ["dark"]),
        helper.make_node("Mul", ["light", "rest"], ["zeros"]),  # one row a picture, however many there are
        helper.make_node("Add", ["zeros", "cells"], ["boxes"]),
        helper.make_node("Concat", ["boxes", "light", "dark"], ["found"], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "light",
        [helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["n", 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, ["n", rows.size, 4 + len(LABELS)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
