from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_bundles import Shape, manifest
from msgspec.structs import replace
from PIL import Image
from scenes import saved, scene

from fleetbatch.bundle import Input, Normalise, Resize
from fleetbatch.packing.reference import reference_input
from fleetbatch.picture_heads import PIXELS_MAX, Header
from fleetbatch.pixels import Unreadable, decode, look, prepare, reduced_side


def pixels(content: bytes) -> np.ndarray[Any, Any]:
    picture = decode(content)
    assert isinstance(picture, Image.Image), picture
    assert picture.mode == "RGB"
    return np.asarray(picture)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
def test_every_format_that_we_take_is_read_and_named(kind: str) -> None:
    content = saved(scene(), kind, quality=95)
    assert look(content) == Header(format=kind, width=40, height=24)
    near = 0 if kind in {"PNG", "BMP"} else 25
    assert np.abs(pixels(content).astype(int) - np.asarray(scene()).astype(int)).max() <= near


def test_a_palette_is_resolved() -> None:
    flat = scene().quantize(16)
    assert np.array_equal(pixels(saved(flat)), np.asarray(flat.convert("RGB")))


def test_transparent_pixels_show_white_however_transparency_is_told() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (pixels(saved(clear)) == 255).all()
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert np.abs(pixels(saved(half))[0, 0].astype(int) - (255, 127, 127)).max() <= 1
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert (pixels(saved(palette, transparency=0)) == 255).all()
    grey = Image.new("LA", (4, 4), (0, 0))
    assert (pixels(saved(grey)) == 255).all()


def test_sixteen_bits_keep_their_upper_eight() -> None:
    deep = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    shown = pixels(saved(Image.fromarray(deep)))
    assert np.array_equal(shown[:, :, 0], deep >> 8)
    assert np.array_equal(shown[:, :, 0], shown[:, :, 2])


@pytest.mark.parametrize("mode", ["1", "L", "CMYK"])
def test_other_modes_become_colours(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert pixels(saved(scene().convert(mode), kind)).shape == (24, 40, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_upright_whatever_its_exif_says(orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = scene().transpose(undo[orientation]) if orientation in undo else scene()
    content = saved(lying, exif=exif)
    assert look(content) == Header(format="PNG", width=lying.width, height=lying.height)
    assert np.array_equal(pixels(content), np.asarray(scene()))


def test_a_reduced_jpeg_is_smaller_never_too_small_and_nearly_the_same() -> None:
    content = saved(scene(800, 600), "JPEG", quality=95)
    told = manifest(Shape())
    wanted = replace(told, input=replace(told.input, width=90, height=70), resize=Resize(mode="squash"))
    whole, reduced = decode(content), decode(content, reduced_to=reduced_side(wanted))
    assert isinstance(whole, Image.Image)
    assert isinstance(reduced, Image.Image)
    assert (whole.size, reduced.size) == ((800, 600), (200, 150))
    difference = np.abs(prepare(whole, wanted) - prepare(reduced, wanted))
    assert 0 < difference.mean() < 0.02 * 255
    assert decode(content, reduced_to=600) == whole


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_only_a_jpeg_can_be_reduced(kind: str) -> None:
    picture = decode(saved(scene(), kind), reduced_to=4)
    assert isinstance(picture, Image.Image)
    assert picture.size == (40, 24)


def test_a_torn_picture_an_empty_file_and_a_text_are_unreadable_with_a_reason() -> None:
    torn = saved(scene(200, 200), "JPEG")[:-900]
    for content, why in ((torn, "cannot be decoded"), (b"", "empty"), (b"hello world", "not a JPEG")):
        found = decode(content)
        assert isinstance(found, Unreadable)
        assert why in found.reason


def test_a_very_long_picture_is_cropped_without_growing_first() -> None:
    line = decode(saved(Image.new("RGB", (60_000, 1), (9, 8, 7)), "PNG"))
    assert isinstance(line, Image.Image)
    told = replace(manifest(Shape()), resize=Resize(mode="crop", shorter_side=256), normalise=Normalise())
    assert (prepare(line, told) == np.array([9, 8, 7])[:, np.newaxis, np.newaxis]).all()


def test_other_formats_are_not_taken() -> None:
    assert isinstance(decode(saved(scene(), "GIF")), Unreadable)
    assert isinstance(decode(saved(scene(), "TIFF")), Unreadable)


def test_a_picture_that_would_fill_the_memory_is_not_decoded() -> None:
    side = int(PIXELS_MAX**0.5) + 1
    bomb = saved(Image.new("1", (side, side)))
    assert len(bomb) < 20_000
    for found in (decode(bomb), look(bomb)):
        assert isinstance(found, Unreadable)
        assert "more than" in found.reason


@given(st.binary(max_size=300))
def test_no_bytes_whatever_raise(content: bytes) -> None:
    assert isinstance(decode(content), Unreadable)


changes = st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8)


@given(st.sampled_from(["PNG", "BMP", "WEBP", "JPEG"]), changes, st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_spoiled_pictures_are_read_or_unreadable_but_never_raise(
    kind: str, changes: list[tuple[int, int]], cut: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = bytearray(saved(scene(), kind, **({} if kind == "BMP" else {"exif": exif})))
    for at, value in changes:
        content[at % len(content)] = value
    spoiled = bytes(content[: len(content) - cut])
    found = decode(spoiled)
    assert isinstance(found, Unreadable | Image.Image)
    if isinstance(found, Unreadable):
        assert 0 < len(found.reason) <= 200


smooth = st.sampled_from(["bilinear", "bicubic", "lanczos"])  # the others hang on a hair's breadth
anchors = st.sampled_from(["centre", "top_left"])
modes = st.one_of(
    st.builds(Resize, mode=st.just("squash"), filter=smooth),
    st.builds(Resize, mode=st.just("crop"), shorter_side=st.integers(16, 40), filter=smooth),
    st.builds(Resize, mode=st.just("letterbox"), padding=st.integers(0, 255), anchor=anchors),
)


@given(resize=modes, width=st.integers(3, 60), height=st.integers(3, 60), colour=st.sampled_from(["RGB", "BGR"]),
       layout=st.sampled_from(["NCHW", "NHWC"]))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_two_implementations_prepare_the_same_input(
    resize: Resize, width: int, height: int, colour: Any, layout: Any
) -> None:
    told = replace(
        manifest(Shape()),
        input=Input(name="x", layout=layout, dtype="fp32", batch=0, width=16, height=12, colour=colour),
        resize=resize,
        normalise=Normalise(scale=0.5, mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0)),
    )
    content = saved(scene(width, height))
    picture = decode(content)
    assert isinstance(picture, Image.Image)
    ours, theirs = prepare(picture, told), reference_input(content, told)[0]
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape == ((3, 12, 16) if layout == "NCHW" else (12, 16, 3))
    one_level = 0.5 + 1e-4  # Pillow resizes in 8-bit fixed point: a level, times the scale
    assert np.abs(ours - theirs).max() <= one_level * 2
    assert np.abs(ours - theirs).mean() <= 0.1


@pytest.mark.parametrize("how", ["nearest", "box", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(64, 60), (80, 84), (48, 36), (7, 5)])
def test_two_implementations_agree_on_every_filter(how: Any, size: tuple[int, int]) -> None:
    told = replace(
        manifest(Shape()),
        input=Input(name="x", layout="NCHW", dtype="fp32", batch=0, width=16, height=12, colour="RGB"),
        resize=Resize(mode="squash", filter=how),
        normalise=Normalise(),
    )
    content = saved(scene(*size))
    picture = decode(content)
    assert isinstance(picture, Image.Image)
    assert np.abs(prepare(picture, told) - reference_input(content, told)[0]).max() <= 2
