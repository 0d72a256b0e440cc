"""A picture is what its first bytes and its header say it is, whatever its name. Pure."""

import io
import warnings
from dataclasses import dataclass
from typing import Final

from PIL import Image, UnidentifiedImageError

PIXELS_MAX: Final = 64_000_000
"""A picture with more pixels is not computed: 200 MB once decoded, more than a car may spare."""

_MAGIC: Final = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"BM", "BMP"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a header says: format JPEG, PNG, BMP or WEBP, and pixels before any turn."""

    format: str
    width: int
    height: int


def look(content: bytes) -> Picture | str:
    """Return what the picture is, or why it can never be one; pixels are not decoded."""
    if not content:
        return "the file is empty (0 bytes)"
    kind = _kind(content)
    if kind is None:
        return f"not a JPEG, PNG, BMP or WebP picture (begins with {content[:8].hex(' ')})"
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content), formats=[kind]) as picture:
            width, height = picture.size
    except UnidentifiedImageError:
        return f"begins like a {kind}, but its header cannot be read"
    except Exception as error:  # noqa: BLE001 # a file from anywhere makes a decoder raise anything
        return f"begins like a {kind}, but its header is broken: {error}"
    if not 0 < width * height <= PIXELS_MAX:
        return f"{width} x {height} pixels; computed are pictures of 1 to {PIXELS_MAX} pixels: make it smaller"
    return Picture(format=kind, width=width, height=height)


def _kind(content: bytes) -> str | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for magic, kind in _MAGIC if content.startswith(magic)), None)
