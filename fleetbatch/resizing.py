"""Pictures in another size for a classifier, by the filters that a bundle's manifest can name.

The bilinear filter, which most models were trained with, is computed by vector instructions where there is a wheel for
the machine: Pillow takes one value at a time, 3.0 of the 11.3 ms from a photograph's bytes to its answer (.9 million
pixels, SqueezeNet at 224 x 224); with AVX2 it is .7. Two values in a thousand differ, by one level of 255, which moved
no score of 126 photographs by more than .0042, and of 2,000 pictures by .0091; audits and goldens allow .02. So cars
with and without the wheel agree.

That holds because both make the same pass first, across or down: it decides one value in ten. Pillow 13 chooses by how
much each side changes, versions before went across first; here the choice is made once for all. Filters with negative
lobes overshoot, and what is cut off between the passes differs by more: they are Pillow's. So is what a detector sees,
whose boxes jump with single levels.
"""

from typing import Final

from PIL import Image

try:
    from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer  # type: ignore[import-untyped]
except ImportError:  # Linux on ARM: there is no wheel of it yet
    Resizer = None

FILTERS: Final = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_BILINEAR: Final = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.bilinear)) if Resizer else None


def resized(picture: Image.Image, size: tuple[int, int], how: str, *, exact: bool = False) -> Image.Image:
    """Return an RGB picture in another (width, height), or itself; `how` is a filter's name in the manifest.

    What is `exact` is Pillow's to the bit.
    """
    if how != "bilinear":
        return picture.resize(size, FILTERS[how])
    between = (picture.width, size[1]) if _down_first(picture.size, size) else (size[0], picture.height)
    return _along_one_side(_along_one_side(picture, between, exact=exact), size, exact=exact)


def _down_first(size: tuple[int, int], new_size: tuple[int, int]) -> bool:
    """Return whether the height shrinks by more than twice what the width does: Pillow 13's rule. Pure.

    So the picture between the passes has no more pixels than the larger of the two beside it.
    """
    (width, height), (new_width, new_height) = size, new_size
    return new_height < height and height - new_height > 2 * (width - new_width)


def _along_one_side(picture: Image.Image, size: tuple[int, int], *, exact: bool) -> Image.Image:
    if picture.size == size:
        return picture
    if exact or Resizer is None:
        return picture.resize(size, Image.Resampling.BILINEAR)
    target = Image.new(picture.mode, size)
    Resizer().resize_pil(picture, target, _BILINEAR)
    return target
