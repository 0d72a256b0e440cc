"""Whether a video file ends where its container does: neither in the midst of it, nor after another one behind it.

Nothing but the container is read.

An index of frames (MP4's, AVI's) tells more and is looked at where packets are read. A bare end cannot be told from a
recording that was stopped there: MPEG-TS and fragmented MP4 cut exactly between two packets or fragments, and Matroska
that was written without its length.
"""

import os
from collections.abc import Iterator
from typing import BinaryIO, Final

from fleetbatch.sharding.transport_stream import breaks, ends_with_a_packet

_SEGMENT: Final = 0x18538067
"""Matroska's element that holds everything but the head (RFC 9559)."""
_BOX_HEAD, _BOX_HEAD_LARGE = 8, 16


def ends_early(file: BinaryIO, container: str) -> bool:
    """Return whether the file's end is not its container's; `container` is FFmpeg's name of its format."""
    size = file.seek(0, os.SEEK_END)
    if "matroska" in container:
        return _matroska_end(file) > size
    if container == "mpegts":
        return not ends_with_a_packet(file)
    return "mp4" in container and _fragment_is_cut(file, size)


def further_recording(file: BinaryIO, container: str) -> int:
    """Return where in the file the index of a second recording begins, 0 when there is none.

    MP4 files that were put one behind the other: nobody reads on beyond the first. The other containers are read on.
    """
    if "mp4" not in container:
        return 0
    indexes = [place for place, kind, _ in _boxes(file, file.seek(0, os.SEEK_END)) if kind == b"moov"]
    return indexes[1] if len(indexes) > 1 else 0


def lost_places(file: BinaryIO, container: str) -> list[int]:
    """Return the places in the file, ascending, at which bytes of it are lost, as its container shows by itself."""
    return breaks(file) if container == "mpegts" else []


def _matroska_end(file: BinaryIO) -> int:
    """Return where the first segment ends; 0 when the file does not say."""
    place = 0
    while True:
        file.seek(place)
        head = file.read(12)
        name, told = _coded(head, keep_length=True)
        length, more = _coded(head[told:], keep_length=False)
        if not told or not more:
            return 0
        place += told + more + length
        if name == _SEGMENT:
            return 0 if length == (1 << 7 * more) - 1 else place  # all ones: unknown


def _coded(data: bytes, *, keep_length: bool) -> tuple[int, int]:
    """Return EBML's number of a variable length and how many bytes it takes, (0, 0) when there is none."""
    length = 9 - data[0].bit_length() if data else 9
    if length > len(data) or length > 8:  # noqa: PLR2004 (EBML's longest)
        return 0, 0
    number = int.from_bytes(data[:length], "big")
    return (number if keep_length else number - (1 << 7 * length)), length


def _fragment_is_cut(file: BinaryIO, size: int) -> bool:
    """Return whether the last box of an MP4 with fragments is not whole; others have an index that tells more."""
    fragments, end = False, 0
    for place, kind, length in _boxes(file, size):
        fragments, end = fragments or kind == b"moof", place + length
    return fragments and end > size


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield (place, kind, bytes) of the boxes of an MP4 file, as each says; the last may go on to the end."""
    place = 0
    while place < size:
        file.seek(place)
        head = file.read(_BOX_HEAD_LARGE)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:  # it goes on to the end, wherever that is
            length = size - place
        length = max(length, _BOX_HEAD)
        yield place, head[4:8], length
        place += length
