import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fleetbatch.resizing import FILTERS, resized

BILINEAR = FILTERS["bilinear"]
SIDES = st.integers(min_value=1, max_value=300)


def noise(width: int, height: int) -> Image.Image:
    """A picture with every level right beside every other."""
    return Image.fromarray(np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8))


def levels_apart(ours: Image.Image, theirs: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    assert (ours.mode, ours.size) == (theirs.mode, theirs.size)
    apart: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = np.abs(
        np.asarray(ours, dtype=np.int64) - np.asarray(theirs)
    )
    return apart


@settings(max_examples=200, deadline=None)
@given(size=st.tuples(SIDES, SIDES), new_size=st.tuples(SIDES, SIDES))
def test_a_picture_made_larger_or_smaller_bilinearly_is_pillows_to_one_level(
    size: tuple[int, int], new_size: tuple[int, int]
) -> None:
    picture = noise(*size)
    assert levels_apart(resized(picture, new_size, "bilinear"), picture.resize(new_size, BILINEAR)).max() <= 1


@pytest.mark.parametrize("size", [(900, 1600), (1600, 900), (3000, 4000), (612, 816), (60_000, 1), (1, 60_000)])
def test_hardly_a_value_of_a_photographs_size_is_another_than_pillows(size: tuple[int, int]) -> None:
    picture = noise(*size)
    apart = levels_apart(resized(picture, (224, 224), "bilinear"), picture.resize((224, 224), BILINEAR))
    assert apart.max() <= 1
    assert apart.mean() < 0.03


@given(size=st.tuples(SIDES, SIDES), new_size=st.tuples(SIDES, SIDES))
def test_what_a_detector_sees_is_pillows_to_the_bit(size: tuple[int, int], new_size: tuple[int, int]) -> None:
    picture = noise(*size)
    exact = resized(picture, new_size, "bilinear", exact=True)
    assert levels_apart(exact, picture.resize(new_size, BILINEAR)).max() == 0


@pytest.mark.parametrize("how", sorted(FILTERS.keys() - {"bilinear"}))
def test_every_other_filter_is_pillows_to_the_bit(how: str) -> None:
    picture = noise(120, 80)
    assert levels_apart(resized(picture, (33, 57), how), picture.resize((33, 57), FILTERS[how])).max() == 0


def test_a_plain_colour_stays_what_it_is() -> None:
    for level in (0, 1, 127, 254, 255):
        plain, small = (Image.new("RGB", size, (level, 255 - level, 9)) for size in ((1234, 77), (224, 224)))
        assert levels_apart(resized(plain, (224, 224), "bilinear"), small).max() == 0


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    picture = noise(30, 20)
    assert resized(picture, (30, 20), "bilinear") is picture


@pytest.mark.parametrize("size", [(1, 5_000_000), (5_000_000, 1)])
def test_one_pixel_by_millions_is_no_large_picture_between_the_passes(size: tuple[int, int]) -> None:
    """Which would be 4,480 MB."""
    told = f"""
import re
from pathlib import Path
from PIL import Image
from fleetbatch.resizing import resized
assert resized(Image.new("RGB", {size}, (1, 2, 3)), (224, 224), "bilinear").getpixel((9, 9)) == (1, 2, 3)
print(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1])
"""
    assert int(python(told)) * 1024 < 500e6  # resource's peak would be that of the process that started it


def test_without_a_wheel_for_the_machine_pillow_resizes() -> None:
    told = """
import sys
sys.modules["cykooz_resizer"] = None  # then importing it raises ImportError
import numpy as np
from PIL import Image
from fleetbatch.resizing import resized
picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (80, 120, 3), dtype=np.uint8))
print(np.array_equal(resized(picture, (33, 57), "bilinear"), picture.resize((33, 57), Image.Resampling.BILINEAR)))
"""
    assert python(told) == "True"


def python(told: str) -> str:
    run = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return run.stdout.strip()
