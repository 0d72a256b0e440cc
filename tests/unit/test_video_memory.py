"""What a segment takes to decode is known before it is begun, and is enough."""

import io
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import av
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from videos import Film, film_file, light_bundle

from fleetbatch.contracts import contract
from fleetbatch.errors import RejectedError
from fleetbatch.runner.memory import refuse_too_large
from fleetbatch.sharding.openers import open_input
from fleetbatch.sharding.video_file import Video, read_video
from fleetbatch.units import MIB
from fleetbatch.workloads import Device, workload
from fleetbatch.workloads.protocol import PIXEL_BYTES
from fleetbatch.workloads.sps import BESIDE, FRAMES_MAX, decoder_bytes

FRAME = 96 * 64


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
@pytest.mark.parametrize(
    ("settings", "frames", "bytes_a_pixel"),
    [
        ({}, FRAMES_MAX, 1.5),  # the lowest level lets so small a picture refer to the most
        ({"x264-params": "level=1b:ref=2"}, FRAMES_MAX, 1.5),
        ({"x264-params": "cqm=jvt"}, FRAMES_MAX, 1.5),
    ],
)
def test_a_stream_says_how_many_pictures_its_decoder_holds(
    container: str, settings: dict[str, str], frames: int, bytes_a_pixel: float
) -> None:
    found = read_video(film_file(Film(frames=12, container=container, settings=settings)))
    assert isinstance(found, Video)
    assert found.decoder_bytes == (frames + BESIDE) * FRAME * bytes_a_pixel


@pytest.mark.parametrize(
    ("pixels", "bytes_a_pixel"), [("yuv420p", 1.5), ("yuv420p10le", 3), ("yuv422p", 2), ("yuv444p10le", 6)]
)
def test_finer_samples_and_more_colour_take_more(pixels: str, bytes_a_pixel: float) -> None:
    held = wide_film(640, 320, pixels=pixels, references=3)
    found = read_video(held)
    assert isinstance(found, Video)
    level_3_frames = 8100 // (40 * 20)
    assert found.decoder_bytes == (level_3_frames + BESIDE) * 640 * 320 * bytes_a_pixel


def test_a_stream_that_does_not_say_counts_for_the_most() -> None:
    most = (FRAMES_MAX + BESIDE) * 1000 * 1.5
    for extradata in (
        None,
        b"",
        b"\x01",
        b"\x01\x64\x00\x1e\xff\xe1\x00\x01\x67",
        b"\0\0\x01\x67",
        b"\0\0\x01\x68\x64",
    ):
        assert decoder_bytes(extradata, 1000) == most


def wide_film(width: int, height: int, *, pixels: str = "yuv420p", references: int = 16, level: str = "3") -> bytes:
    file = io.BytesIO()
    settings = {"preset": "ultrafast", "x264-params": f"ref={references}:level={level}:bframes=3:keyint=40:weightp=0"}
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options=settings)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.thread_count = 1
        for number in range(22):
            shown = np.full((height, width, 3), number * 9, np.uint8)
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24").reformat(format=pixels)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def rows_of(folder: Path, content: bytes) -> pa.Table:
    """The film's one row, as a shard holds it."""
    folder.mkdir()
    (folder / "film.mp4").write_bytes(content)
    found = open_input("video", str(folder), {"every_frames": "4"})
    [entry] = found.entries()
    row = found.row(entry, bytes_max=64 * MIB)
    assert row.error is None
    told = {"item_id": "film", "bytes": row.content, "width": row.width, "height": row.height}
    return pa.Table.from_pylist([told | {"attributes": row.attributes}], schema=contract("shard").schema)


def peak_bytes(bundle: bytes, small: pa.Table, large: pa.Table) -> int:
    """Return by how much a process grows at most that answers the large rows, after it has answered the small ones."""
    answer = workload("video").open(bundle, Device(provider="CPUExecutionProvider"), {})
    assert answer(small)["error"].null_count == 6
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = told_kb("VmRSS")
    assert answer(large)["error"].null_count == 6
    return (told_kb("VmHWM") - before) * 1024


def told_kb(name: str) -> int:
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(name)]
    return int(line.split()[1])


def test_a_film_of_many_references_takes_no_more_than_is_counted_and_a_car_without_it_does_not_begin(
    tmp_path: Path,
) -> None:
    small = rows_of(tmp_path / "small", wide_film(96, 64))
    large = rows_of(tmp_path / "large", wide_film(1600, 1600, level="5.2"))
    counted = workload("video").row_bytes(large)
    with get_context("spawn").Pool(1) as pool:
        peak = pool.apply(peak_bytes, (light_bundle(), small, large))
    pixels = 1600 * 1600
    assert 25 * pixels < peak < counted < 50 * pixels, (peak / pixels, counted / pixels)
    refuse_too_large(400 * MIB, model_bytes=0, group_bytes=large.nbytes, row_bytes=counted)
    with pytest.raises(RejectedError, match="largest row"):
        refuse_too_large(200 * MIB, model_bytes=0, group_bytes=large.nbytes, row_bytes=counted)


def test_an_older_segment_that_does_not_say_counts_for_its_pixels() -> None:
    segment = {"frame_start": 0, "frames": 1, "wanted": [0], "pts_zero": 0, "pts_start": 0, "pts_end": 0}
    told = msgspec.json.encode(segment | {"time_base": [1, 25]}).decode()
    row = {"item_id": "a", "bytes": b"", "width": 100, "height": 10, "attributes": told}
    rows = pa.Table.from_pylist([row, {"item_id": "b", "error": "dead"}], schema=contract("shard").schema)
    assert 12_000 <= workload("video").row_bytes(rows) < 13_000


def test_a_stream_that_grows_is_counted_by_its_largest_picture() -> None:
    small = Film(container="mpegts", frames=20)
    large = replace(small, size=(960, 640), pts=range(100, 120))
    found = read_video(film_file(small) + film_file(large))
    alone = read_video(film_file(large))
    assert isinstance(found, Video)
    assert isinstance(alone, Video)
    assert (found.width, found.height, found.pixels) == (96, 64, 960 * 640)
    assert found.decoder_bytes == alone.decoder_bytes + PIXEL_BYTES * (960 * 640 - FRAME)
    assert alone.pixels == 960 * 640
