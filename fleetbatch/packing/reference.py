"""A second way from a picture to the model's input, written for clearness and not for speed.

It shares nothing with `pixels` but Pillow's decoders: the turn, the resize (a convolution with the filter's kernel,
stretched when shrinking), the padding and the normalisation are written anew, so that a mistake in one shows.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from fleetbatch.bundle import DETECTIONS_MAX, Box, Found, Manifest
from fleetbatch.errors import RejectedError

Array = npt.NDArray[np.float64]
SIDE_MIN: Final = 0.1
"""A box narrower than this many pixels of the picture is none."""
_ORIENTATION_TAG: Final = 0x0112
_TURNS: Final = {
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (-1, True),
    6: (-1, False),
    7: (1, True),
    8: (1, False),
}
"""Orientation to quarter turns against the clock, then mirrored left to right or not."""


def reference_input(content: bytes, manifest: Manifest) -> Array:
    """Return one picture as the model takes it, with the batch axis."""
    pixels = _fitted(_upright(content), manifest)
    channels = {"RGB": (0, 1, 2), "BGR": (2, 1, 0)}[manifest.input.colour]
    planes = [
        (pixels[:, :, channel] * manifest.normalise.scale - mean) / std
        for channel, mean, std in zip(channels, manifest.normalise.mean, manifest.normalise.std, strict=True)
    ]
    return np.stack(planes, axis=0 if manifest.input.layout == "NCHW" else -1)[np.newaxis]


def reference_size(content: bytes) -> tuple[int, int]:
    """Return a picture's width and height once it is upright."""
    height, width = _upright(content).shape[:2]
    return width, height


def _upright(content: bytes) -> Array:
    """Return [height, width, 3] in 0..255, turned as its EXIF says (EXIF 2.32, tag 274), over white."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
        pixels = _over_white(image)
    quarter_turns, mirrored = _TURNS.get(orientation, (0, False))
    turned = np.rot90(pixels, quarter_turns)
    return turned[:, ::-1] if mirrored else turned


def _over_white(image: Image.Image) -> Array:
    if image.mode.startswith("I"):
        grey = np.floor(np.asarray(image, dtype=np.float64) / 256)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"), dtype=np.float64)
    rgba = np.asarray(image.convert("RGBA"), dtype=np.float64)
    share = rgba[:, :, 3:] / 255
    return rgba[:, :, :3] * share + 255 * (1 - share)


def _fitted(pixels: Array, manifest: Manifest) -> Array:
    height, width = pixels.shape[:2]
    want_h, want_w = manifest.input.height, manifest.input.width
    resize = manifest.resize
    if resize.mode == "squash":
        return _resized(pixels, want_h, want_w, resize.filter)
    if resize.mode == "crop":
        larger = resize.shorter_side / min(height, width)
        big = _resized(pixels, round(height * larger), round(width * larger), resize.filter)
        top, left = (big.shape[0] - want_h) // 2, (big.shape[1] - want_w) // 2
        return big[top : top + want_h, left : left + want_w]
    smaller = min(want_h / height, want_w / width)
    small = _resized(pixels, max(1, int(height * smaller)), max(1, int(width * smaller)), resize.filter)
    ground = np.full((want_h, want_w, 3), float(resize.padding))
    top, left = (0, 0) if resize.anchor == "top_left" else ((want_h - len(small)) // 2, (want_w - small.shape[1]) // 2)
    ground[top : top + small.shape[0], left : left + small.shape[1]] = small
    return ground


def _resized(pixels: Array, height: int, width: int, how: str) -> Array:
    """Resize across, then down, rounding to whole levels after each as 8-bit pictures do."""
    across = np.einsum("hwc,ow->hoc", pixels, _weights(pixels.shape[1], width, how), optimize=True)
    down = np.einsum("hwc,oh->owc", _levels(across), _weights(pixels.shape[0], height, how), optimize=True)
    return _levels(down)


def _levels(values: Array) -> Array:
    return np.asarray(np.clip(np.floor(values + 0.5), 0, 255))


def _weights(size: int, wanted: int, how: str) -> Array:
    """Return [wanted, size]: how much of each old pixel is in each new one; rows sum to one."""
    step = size / wanted
    centres = (np.arange(wanted) + 0.5) * step
    if how == "nearest":
        chosen = np.zeros((wanted, size))
        chosen[np.arange(wanted), np.minimum(centres.astype(int), size - 1)] = 1
        return chosen
    reach, kernel = _KERNELS[how]
    stretch = max(step, 1.0)
    distance = (np.arange(size) + 0.5 - centres[:, np.newaxis]) / stretch
    weights = np.where(np.abs(distance) <= reach, kernel(distance), 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _bicubic(x: Array) -> Array:
    """Keys' cubic convolution (1981) with a = -0.5."""
    near, a = np.abs(x), -0.5
    inner = ((a + 2) * near - (a + 3)) * near**2 + 1
    outer = ((near - 5) * near + 8) * near * a - 4 * a
    return np.where(near < 1, inner, np.where(near < 2, outer, 0.0))  # noqa: PLR2004 (the kernel's reach)


_KERNELS: Final[dict[str, tuple[float, Callable[[Array], Array]]]] = {
    "box": (0.5, lambda x: ((x > -0.5) & (x <= 0.5)).astype(np.float64)),  # noqa: PLR2004 (half a pixel)
    "bilinear": (1.0, lambda x: np.maximum(1 - np.abs(x), 0.0)),
    "bicubic": (2.0, _bicubic),
    "lanczos": (3.0, lambda x: np.sinc(x) * np.sinc(x / 3)),
}


def reference_scores(raw: Array, manifest: Manifest) -> Array:
    """Return one picture's scores from the model's raw output."""
    values = [float(value) for value in np.ravel(raw)]
    if manifest.output.kind == "logits":
        top = max(values)
        powers = [math.exp(value - top) for value in values]
        values = [power / math.fsum(powers) for power in powers]
    if manifest.output.background is not None:
        values.pop(manifest.output.background)
    return np.asarray(values)


def reference_found(raw: Array, manifest: Manifest, labels: Sequence[str], size: tuple[int, int]) -> list[Found]:
    """Return the detections in a detector's output for one picture of that width and height, best first."""
    rules = manifest.boxes
    assert rules is not None, "only detectors come here"
    found = []
    for place, values in enumerate(np.asarray(raw, np.float64)):
        scores = values[5:] * values[4] if rules.objectness else values[4:]
        for score, label in zip(scores, labels, strict=True):
            if score >= rules.score_min:
                box = _reference_box(values[:4].tolist(), place, manifest, size)
                if min(box[2] - box[0], box[3] - box[1]) >= SIDE_MIN:
                    found.append(Found(label=label, score=min(1.0, float(score)), box=box))
    found.sort(key=lambda one: -one.score)
    kept: list[Found] = []
    for one in found:
        rivals = [better for better in kept if better.label == one.label]
        if all(_shared(one.box, better.box) <= rules.overlap_max for better in rivals):
            kept.append(one)
    return kept[:DETECTIONS_MAX]


def _reference_box(values: list[float], place: int, manifest: Manifest, size: tuple[int, int]) -> Box:
    """Return left, top, right, bottom in the picture's pixels."""
    rules = manifest.boxes
    assert rules is not None
    if rules.form == "yolox":
        column, row, stride = _cell(place, manifest)
        middle, sides = (values[0] + column, values[1] + row), (math.exp(values[2]), math.exp(values[3]))
        values = [stride * value for value in (*middle, *sides)]
    if rules.form != "corners":
        x, y, wide, high = values
        values = [x - wide / 2, y - high / 2, x + wide / 2, y + high / 2]
    (aside, across), (above, down) = (
        _axis(whole, want, manifest, min(want / other for want, other in zip(_input_size(manifest), size, strict=True)))
        for whole, want in zip(size, _input_size(manifest), strict=True)
    )
    left, top, right, bottom = values
    return (left - aside) / across, (top - above) / down, (right - aside) / across, (bottom - above) / down


def _input_size(manifest: Manifest) -> tuple[int, int]:
    return manifest.input.width, manifest.input.height


def _axis(whole: int, want: int, manifest: Manifest, smaller: float) -> tuple[int, float]:
    """Return for width or height where the picture begins in the input, and its scale; `smaller` is a letterbox's."""
    if manifest.resize.mode == "squash":
        return 0, want / whole
    if manifest.resize.mode == "letterbox":
        centred = manifest.resize.anchor == "centre"
        return (want - max(1, int(whole * smaller))) // 2 if centred else 0, smaller
    summary = "a detector sees whole pictures: `resize.mode` is squash or letterbox"
    raise RejectedError(summary)


def _cell(place: int, manifest: Manifest) -> tuple[int, int, int]:
    """Return column, row and stride of a place in the grids, which follow each other."""
    assert manifest.boxes is not None
    for stride in manifest.boxes.strides:
        across, down = manifest.input.width // stride, manifest.input.height // stride
        if place < across * down:
            return place % across, place // across, stride
        place -= across * down
    summary = "the model answers more places than the grids of `boxes.strides` have"
    raise RejectedError(summary)


def _shared(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    common = max(wide, 0.0) * max(high, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common) if sum(areas) > common else 0.0
