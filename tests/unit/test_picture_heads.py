"""What a picture's first bytes claim is what Pillow reads in them, for whatever bytes."""

import io
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scenes import saved, scene

from fleetbatch.picture_heads import Header
from fleetbatch.pixels import FORMATS, Unreadable, look


def assert_as_pillow_reads(content: bytes, kind: str) -> None:
    claimed = look(memoryview(content))
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            assert claimed == Header(format=kind, width=image.width, height=image.height)
    except (OSError, ValueError):
        assert isinstance(claimed, Unreadable)


places = st.lists(st.tuples(st.integers(0, 900), st.sampled_from([0, 1, 8, 0xC0, 0xDA, 0xE2, 0xFF])), max_size=4)


@given(
    st.sampled_from(["RGB", "L", "CMYK"]),
    st.sampled_from([{}, {"progressive": True}]),
    st.sampled_from([{}, {"icc_profile": b"profile" * 20, "comment": b"a comment"}]),
    places,
    st.integers(20, 2000),
)
@settings(max_examples=500, deadline=None)
def test_what_a_jpeg_without_exif_claims_is_what_pillow_reads_in_it(
    mode: str, how: dict[str, bool], extras: dict[str, bytes], changes: list[tuple[int, int]], kept: int
) -> None:
    content = bytearray(saved(scene().convert(mode), "JPEG", **how, **extras))
    for at, value in changes:
        content[at % len(content)] = value
    spoiled = bytes(content[:kept])
    assert_as_pillow_reads(spoiled, "JPEG")


png_places = st.lists(st.tuples(st.integers(0, 200), st.sampled_from([0, 1, 3, 8, 13, 0xFF])), max_size=4)


@given(
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]),
    st.sampled_from([{}, {"dpi": (72, 72)}, {"icc_profile": b"profile" * 20}]),
    png_places,
    st.integers(20, 2000),
)
@settings(max_examples=300, deadline=None)
def test_what_a_png_claims_is_what_pillow_reads_in_it(
    mode: str, how: dict[str, Any], changes: list[tuple[int, int]], kept: int
) -> None:
    content = bytearray(saved(scene().convert("L").convert(mode), "PNG", **how))
    for at, value in changes:
        content[at % len(content)] = value
    spoiled = bytes(content[:kept])
    assert_as_pillow_reads(spoiled, "PNG")


def chunk(name: bytes, content: bytes, *, checksum: int | None = None) -> bytes:
    told = zlib.crc32(name + content) if checksum is None else checksum
    return len(content).to_bytes(4, "big") + name + content + told.to_bytes(4, "big")


CANVAS = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 24, 8, 2, 0, 0, 0))
PIXELS = chunk(b"IDAT", b"")


@pytest.mark.parametrize(
    "chunks",
    [
        [CANVAS, PIXELS],
        [CANVAS, chunk(b"gAMA", bytes(4)), chunk(b"sRGB", b"\0"), chunk(b"PLTE", bytes(768)), PIXELS],
        [CANVAS, chunk(b"gAMA", bytes(4), checksum=1), PIXELS],
        [CANVAS, chunk(b"gAMA", bytes(3)), PIXELS],
        [CANVAS, chunk(b"PLTE", bytes(4)), PIXELS],
        [CANVAS, chunk(b"acTL", struct.pack(">II", 2, 0)), PIXELS],
        [CANVAS, CANVAS, PIXELS],
        [chunk(b"gAMA", bytes(4)), CANVAS, PIXELS],
        [PIXELS, CANVAS],
        [CANVAS],
        [CANVAS, chunk(b"gAMA", bytes(4))[:-1]],
        [chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 24, 3, 2, 0, 0, 0)), PIXELS],
        [chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 24, 8, 2, 0, 1, 0)), PIXELS],
        [chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 24, 8, 2, 0, 0, 1)), PIXELS],
        [chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 24, 8, 2, 0, 0, 0)), PIXELS],
    ],
)
def test_chunks_of_a_png_mean_to_us_what_they_mean_to_pillow(chunks: list[bytes]) -> None:
    content = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    assert_as_pillow_reads(content, "PNG")


def test_a_jpeg_with_a_second_picture_inside_is_asked_of_pillow() -> None:
    file = io.BytesIO()
    scene().save(file, "MPO", save_all=True, append_images=[scene(seed=2)])
    assert look(file.getvalue()) == Header(format="MPO", width=40, height=24)
