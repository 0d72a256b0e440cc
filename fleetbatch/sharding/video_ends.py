"""Whether a video file ends in the midst of what its container says it holds; nothing but the container is read.

An index of frames (MP4's, AVI's) tells more and is looked at where packets are read. A bare end cannot be told from a
recording that was stopped there: MPEG-TS and fragmented MP4 cut exactly between two packets or fragments, and Matroska
that was written without its length.
"""

import os
from typing import BinaryIO, Final

_SEGMENT: Final = 0x18538067
"""Matroska's element that holds everything but the head (RFC 9559)."""
_SYNC: Final = 0x47
_PACKETS: Final = {188: 0, 192: 4, 204: 0}
"""MPEG-TS: bytes of a packet, and of what stands before its sync byte (Blu-ray's has a clock there)."""
_IN_A_ROW: Final = 4
"""Sync bytes at the same distance, so that none of them is one by chance."""
_BOX_HEAD, _BOX_HEAD_LARGE = 8, 16


def ends_early(file: BinaryIO, container: str) -> bool:
    """Return whether the file's end is not its container's; `container` is FFmpeg's name of its format."""
    size = file.seek(0, os.SEEK_END)
    if "matroska" in container:
        return _matroska_end(file) > size
    if container == "mpegts":
        return not _ends_with_a_packet(file, size)
    return "mp4" in container and _fragment_is_cut(file, size)


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


def _ends_with_a_packet(file: BinaryIO, size: int) -> bool:
    for packet_bytes, before in _PACKETS.items():
        places = [size - number * packet_bytes + before for number in range(1, _IN_A_ROW + 1)]
        if all(_byte(file, place) == _SYNC for place in places if place >= 0):
            return True
    return False


def _byte(file: BinaryIO, place: int) -> int:
    file.seek(place)
    return file.read(1)[0]


def _fragment_is_cut(file: BinaryIO, size: int) -> bool:
    """Walk the boxes of the file; those of an MP4 without fragments have an index that tells more."""
    place, fragments = 0, False
    while place < size:
        file.seek(place)
        head = file.read(_BOX_HEAD_LARGE)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:  # it goes on to the end, wherever that is
            return False
        fragments = fragments or head[4:8] == b"moof"
        place += max(length, _BOX_HEAD)
    return fragments and place > size
