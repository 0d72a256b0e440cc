"""Whether an MPEG-TS file is packet after packet, from its start to its end (ISO/IEC 13818-1); no packet is parsed.

A recorder that went on after a crash leaves half a packet in the midst of a file. FFmpeg looks for the next one and
tells what is lost by a counter of four bits: one time in sixteen it puts the pieces of two pictures together.
"""

import os
from typing import BinaryIO, Final

_SYNC: Final = b"\x47"
_PACKETS: Final = {188: 0, 192: 4, 204: 0}
"""Bytes of a packet, and of what stands before its sync byte (Blu-ray's has a clock there)."""
_IN_A_ROW: Final = 4
"""Sync bytes at the same distance, so that none of them is one by chance."""
_AT_FIRST: Final = 16
_AT_MOST: Final = 4096
"""Packets that are read together, more from time to time: a file that breaks everywhere is not read for every break."""


def ends_with_a_packet(file: BinaryIO) -> bool:
    """Return whether the file's end is that of a packet."""
    size = file.seek(0, os.SEEK_END)
    for packet_bytes, before in _PACKETS.items():
        places = [size - number * packet_bytes + before for number in range(1, _IN_A_ROW + 1)]
        if all(_byte(file, place) == _SYNC for place in places if place >= 0):
            return True
    return False


def breaks(file: BinaryIO) -> list[int]:
    """Return the places, ascending, at which no packet begins though one ends there."""
    found: list[int] = []
    for packet_bytes, before in _PACKETS.items():
        if all(_byte(file, before + number * packet_bytes) == _SYNC for number in range(_IN_A_ROW)):
            place = _end_of_packets(file, 0, packet_bytes, before)
            while place is not None:
                found.append(place)
                again = _begin_again(file, place + 1, packet_bytes, before)
                place = None if again is None else _end_of_packets(file, again, packet_bytes, before)
            break
    return found


def _end_of_packets(file: BinaryIO, place: int, packet_bytes: int, before: int) -> int | None:
    """Return where packet after packet comes to an end; None when that is the file's."""
    file.seek(place)
    packets = _AT_FIRST
    while block := file.read(packet_bytes * packets):
        marks = block[before::packet_bytes]
        whole = len(marks) - len(marks.lstrip(_SYNC))
        if whole < len(marks):
            return place + whole * packet_bytes
        place += len(block)
        packets = min(2 * packets, _AT_MOST)
    return None


def _begin_again(file: BinaryIO, place: int, packet_bytes: int, before: int) -> int | None:
    """Return where packets in a row begin again, None when nowhere."""
    row_bytes, packets = packet_bytes * (_IN_A_ROW - 1) + 1, _AT_FIRST
    while True:
        file.seek(place)
        block = file.read(packet_bytes * packets)
        at = block.find(_SYNC, before)
        while 0 <= at <= len(block) - row_bytes:
            if block[at : at + row_bytes : packet_bytes] == _SYNC * _IN_A_ROW:
                return place + at - before
            at = block.find(_SYNC, at + 1)
        if len(block) < packet_bytes * packets:
            return None
        place += len(block) - row_bytes - before
        packets = min(2 * packets, _AT_MOST)


def _byte(file: BinaryIO, place: int) -> bytes:
    file.seek(place)
    return file.read(1)
