"""What an ordinary picture's first bytes say, read without a decoder. Pure."""

import re
import struct
import zlib
from typing import Final

import msgspec

PIXELS_MAX: Final = 64_000_000
"""A picture with more pixels is not decoded: 192 MB as RGB is what a car's memory bound allows."""

_SOI: Final = b"\xff\xd8"
_SEGMENT: Final = struct.Struct(">BBH")
_SEGMENT_BYTES: Final = _SEGMENT.size
_FRAME: Final = struct.Struct(">BHHB")
_FRAMES: Final = frozenset((0xC0, 0xC1, 0xC2))
"""Frames as baseline, extended and progressive JPEGs have them."""
_SCAN: Final = 0xDA
_QUANTISATION: Final = 0xDB
_PLAIN: Final = frozenset((0xC4, 0xDD, 0xFE))
"""Huffman tables, restart interval, comment: nobody looks into them."""
_APPLICATION: Final = dict.fromkeys(range(225, 240), (b"", 7)) | {
    0xE0: (b"JFIF\0", 7),
    0xE2: (b"ICC_PROFILE\0", 14),
}
"""How ordinary application segments begin and how long they are: others may make it another format, or be refused."""
_USUAL: Final = re.compile(
    rb"""\xff\xd8
    \xff\xe0\0\x10JFIF\0(?!.{3}8BIM).{9}
    (?:\xff\xdb\0\x43[\0-\x0f].{64})++
    \xff[\xc0-\xc2]\0(?:\x0b\x08(..)(..)\x01.{3}|\x11\x08(..)(..)\x03.{9})
    (?:\xff\xc4\0(?:\x1f.{29}|\xb5.{179}))*+
    \xff\xda\0(?:\x08.{6}|\x0c.{10})""",
    re.DOTALL | re.VERBOSE,
)
"""The segments that half of all JPEGs have: JFIF, tables, one frame, tables, the first scan."""
_CUT_OFF: Final = b"8BIM"
"""Pillow stumbles over a Photoshop segment whose last resource ends behind its two bytes of code."""

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_CHUNK: Final = struct.Struct(">I4s")
_CHECKSUM: Final = struct.Struct(">I")
_CANVAS: Final = struct.Struct(">IIBBBBB")
"""Width, height, bits, colour, and the methods of compression, filter and interlace, of which 0 is the plain one."""
_FIRST_CHUNK: Final = frozenset([(_CANVAS.size, b"IHDR")])
_PLAIN_CHUNKS: Final = frozenset(
    [(4, b"gAMA"), (1, b"sRGB"), (9, b"pHYs"), (32, b"cHRM"), *((3 * colours, b"PLTE") for colours in range(1, 257))]
)
_PIXELS: Final = b"IDAT"
_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits that the samples of each kind of colour may have (PNG, 11.2.1)."""


class Header(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a picture's first bytes say; nothing was decoded. Made for every picture of a cut, so no dataclass."""

    format: str
    width: int
    height: int
    """Pixels before any turn."""


def ordinary_header(content: bytes | memoryview) -> Header | None:
    """Return what the picture claims to be; None where a decoder must say it, which takes ten times as long."""
    return _usual_header(content) or _jpeg_header(content) or _png_header(content)


def _usual_header(content: bytes | memoryview) -> Header | None:
    """Return what the most usual JPEG's head says, which `_jpeg_header` would say after four times as long."""
    if (usual := _USUAL.match(content)) is None:
        return None
    height, width = (int.from_bytes(side, "big") for side in usual.groups() if side is not None)
    return Header(format="JPEG", width=width, height=height) if 0 < width * height <= PIXELS_MAX else None


def _jpeg_header(content: bytes | memoryview) -> Header | None:
    """Return what an ordinary JPEG's segments say, up to its first scan; None for whatever is not ordinary.

    Most pictures are such JPEGs, and this takes a tenth of Pillow's time. ITU-T T.81, B.2: every segment has a marker,
    a length and content; an ordinary JPEG has one frame, and nothing that Pillow would refuse or call another format.
    """
    size_bytes, place, frame = len(content), len(_SOI), None
    if content[:place] != _SOI:
        return None
    unpack_from = _SEGMENT.unpack_from
    while place + _SEGMENT_BYTES <= size_bytes:
        mark, kind, length = unpack_from(content, place)
        start, place = place + _SEGMENT_BYTES, place + 2 + length
        if mark != 0xFF or length < 2 or place > size_bytes:  # noqa: PLR2004 (a marker; a length counts itself)
            return None
        if kind == _SCAN:
            return _header_of(frame)
        if kind in _PLAIN:
            continue
        if (frame is not None and kind in _FRAMES) or not _is_ordinary(kind, bytes(content[start:place])):
            return None
        if kind in _FRAMES:
            frame = _FRAME.unpack_from(content, start)
    return None


def _is_ordinary(kind: int, segment: bytes) -> bool:
    """Return whether a segment that is not plain is one that every reader takes alike."""
    if kind in _FRAMES:
        return len(segment) > _FRAME.size and (len(segment) - _FRAME.size) % 3 == 0
    if kind == _QUANTISATION:
        return _holds_whole_tables(segment)
    if kind in _APPLICATION:
        name, size_bytes = _APPLICATION[kind]
        return len(segment) >= size_bytes and segment.startswith(name) and segment[-6:-2] != _CUT_OFF
    return False


def _holds_whole_tables(segment: bytes) -> bool:
    place = 0
    while place < len(segment):
        place += 65 if segment[place] < 16 else 129  # noqa: PLR2004 (64 values of one byte or of two)
    return place == len(segment)


def _header_of(frame: tuple[int, int, int, int] | None) -> Header | None:
    if frame is None:
        return None
    bits, height, width, layers = frame
    if bits != 8 or layers not in (1, 3, 4) or not 0 < width * height <= PIXELS_MAX:  # noqa: PLR2004 (per sample)
        return None
    return Header(format="JPEG", width=width, height=height)


def _png_header(content: bytes | memoryview) -> Header | None:
    """Return what an ordinary PNG's chunks say, up to its first pixels; None for whatever is not ordinary.

    A chunk has a length, a name, content and a checksum of the two (PNG, 5.3); an ordinary PNG has none that Pillow
    might refuse, or call an animation.
    """
    place, ordinary = len(_PNG), _FIRST_CHUNK
    if content[:place] != _PNG:
        return None
    while place + _CHUNK.size <= len(content):
        length, name = _CHUNK.unpack_from(content, place)
        if name == _PIXELS and ordinary is _PLAIN_CHUNKS:
            return _header_over(content)
        if (length, name) not in ordinary or not _is_whole(content, place + 4, place + _CHUNK.size + length):
            return None
        place, ordinary = place + _CHUNK.size + length + _CHECKSUM.size, _PLAIN_CHUNKS
    return None


def _is_whole(content: bytes | memoryview, start: int, stop: int) -> bool:
    """Return whether the checksum behind a chunk's name and content is theirs."""
    if stop + _CHECKSUM.size > len(content):
        return False
    [checksum] = _CHECKSUM.unpack_from(content, stop)
    return bool(zlib.crc32(content[start:stop]) == checksum)


def _header_over(content: bytes | memoryview) -> Header | None:
    width, height, bits, colour, *methods = _CANVAS.unpack_from(content, len(_PNG) + _CHUNK.size)
    if bits not in _DEPTHS.get(colour, ()) or any(methods) or not 0 < width * height <= PIXELS_MAX:
        return None
    return Header(format="PNG", width=width, height=height)
