"""What happens to a picture before a model sees it: decoded exactly, turned upright, resized, normalised.

Preprocessing is part of the model: everything here is said by the bundle's manifest, nothing is guessed.
"""

import io
import struct
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from fleetbatch.bundle import Manifest, placement
from fleetbatch.picture_heads import PIXELS_MAX, Header, ordinary_header
from fleetbatch.resizing import FILTERS, resized

FORMATS: Final = ("JPEG", "PNG", "BMP", "WEBP")
RESIZED_PIXELS_MAX: Final = 16_000_000
REASON_CHARACTERS: Final = 200
WHITE: Final = (255, 255, 255)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Bytes that are no picture; a planned end, not an exception: the row goes on with this reason."""

    reason: str


def look(content: bytes | memoryview) -> Header | Unreadable:
    """Return what the picture claims to be, at the price of its first bytes.

    EXIF is not opened: a picture that nothing but its EXIF spoils is found out when it is decoded.
    """
    return ordinary_header(content) or _look_closely(content)


def _look_closely(content: bytes | memoryview) -> Header | Unreadable:
    """Ask Pillow, which knows every format and every oddity, and takes 50 us."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _open(content) as image:
                return Header(format=str(image.format), width=image.width, height=image.height)
    except _BROKEN as error:
        return _unreadable(content, error)


def decode(content: bytes, *, reduced_to: int = 0) -> Image.Image | Unreadable:
    """Return the whole picture, upright (EXIF orientation applied), as RGB; never raise for what is in the bytes.

    Transparent pixels show white, 16 bits become the upper 8, an animation is its first frame. `reduced_to` lets the
    JPEG decoder scale by 1/2, 1/4 or 1/8 while no side gets shorter than that: faster, and not the same pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd but readable files; they are read
            with _open(content) as image:
                if reduced_to:
                    image.draft(None, (reduced_to, reduced_to))
                image.load()
                ImageOps.exif_transpose(image, in_place=True)  # a copy only where it has to turn
                return _as_rgb(image)
    except _BROKEN as error:
        return _unreadable(content, error)


def reduced_side(manifest: Manifest) -> int:
    """Return what `decode` may reduce a picture to, so that it is only ever made smaller afterwards."""
    return max(manifest.input.width, manifest.input.height, manifest.resize.shorter_side)


def prepare(picture: Image.Image, manifest: Manifest) -> Floats:
    """Return the picture as one input of the model without the batch axis: [3, H, W] for NCHW, [H, W, 3] for NHWC."""
    fitted = np.asarray(_fit(picture, manifest))
    if manifest.input.colour == "BGR":
        fitted = fitted[:, :, ::-1]
    normalise, layout = manifest.normalise, manifest.input.layout
    std = np.asarray(normalise.std, dtype=np.float32)
    factor, mean = np.float32(normalise.scale) / std, np.asarray(normalise.mean, dtype=np.float32) / std
    if layout == "NCHW":
        fitted, factor, mean = fitted.transpose(2, 0, 1), factor.reshape(3, 1, 1), mean.reshape(3, 1, 1)
    values: Floats = np.multiply(fitted, factor, order="C", dtype=np.float32)
    if mean.any():
        values -= mean
    return values


class _TooLargeError(ValueError):
    """More pixels than a car may decode."""


_BROKEN: Final = (
    *(OSError, ValueError, EOFError, MemoryError, Image.DecompressionBombError),
    *(SyntaxError, struct.error, KeyError, IndexError, TypeError, ZeroDivisionError, OverflowError),
)
"""What Pillow raises for broken files; the second line comes out of its PNG, EXIF and TIFF readers."""


def _open(content: bytes | memoryview) -> Image.Image:
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.width * image.height > PIXELS_MAX:
        message = f"{image.width} x {image.height} pixels are more than the {PIXELS_MAX} that are decoded"
        raise _TooLargeError(message)
    return image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it to white
        grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layered = image.convert("RGBA")
    ground = Image.new("RGBA", layered.size, (*WHITE, 255))
    return Image.alpha_composite(ground, layered).convert("RGB")


def _unreadable(content: bytes | memoryview, error: BaseException) -> Unreadable:
    if not content:
        return Unreadable(reason="the file is empty")
    if isinstance(error, UnidentifiedImageError):
        return Unreadable(reason="not a JPEG, PNG, BMP or WebP picture")
    text = " ".join(str(error).split()) or type(error).__name__
    return Unreadable(reason=f"cannot be decoded: {text}"[:REASON_CHARACTERS])


def _crop(picture: Image.Image, shorter_side: int, size: tuple[int, int], how: str) -> Image.Image:
    """Return the centre of the picture resized to the shorter side.

    A very long picture (one pixel by a million) would fill the memory: of it only the centre is resized, which may
    differ by a level of 255 here and there.
    """
    factor = shorter_side / min(picture.size)
    large = (round(picture.width * factor), round(picture.height * factor))
    left, top = ((big - side) // 2 for big, side in zip(large, size, strict=True))
    right, bottom = left + size[0], top + size[1]
    if large[0] * large[1] <= RESIZED_PIXELS_MAX:
        return resized(picture, large, how).crop((left, top, right, bottom))
    across, down = picture.width / large[0], picture.height / large[1]
    return picture.resize(size, FILTERS[how], box=(left * across, top * down, right * across, bottom * down))


def _fit(picture: Image.Image, manifest: Manifest) -> Image.Image:
    resize, size = manifest.resize, (manifest.input.width, manifest.input.height)
    match resize.mode:
        case "squash":
            return _resized(picture, size, manifest)
        case "crop":
            return _crop(picture, resize.shorter_side, size, resize.filter)
        case "letterbox":
            place = placement(picture.width, picture.height, manifest)
            small = _resized(picture, (place.width, place.height), manifest)
            ground = Image.new("RGB", size, (resize.padding,) * 3)
            ground.paste(small, (place.left, place.top))
            return ground


def _resized(picture: Image.Image, size: tuple[int, int], manifest: Manifest) -> Image.Image:
    return resized(picture, size, manifest.resize.filter, exact=manifest.boxes is not None)
