"""What a packet of H.264 holds, by its first slice (ITU-T H.264, 7.3.1 and 7.4.1). Pure."""

from dataclasses import dataclass
from typing import Final

_IDR: Final = 5
_SPS: Final = 7
_SLICES: Final = range(1, 6)
"""nal_unit_type of coded slices; the others are parameter sets, delimiters and messages."""
_AVCC_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """What kind of picture a packet holds."""

    idr: bool
    """Decoding may begin here, and nothing after it refers to anything before it."""
    reference: bool
    """Other pictures may need it."""


def length_bytes(extradata: bytes | None) -> int:
    """Return how many bytes say a NAL unit's length (MP4, Matroska); 0 when start codes part them (Annex B)."""
    avcc = extradata is not None and len(extradata) > 4 and extradata[0] == _AVCC_VERSION  # noqa: PLR2004 (the lengths' byte)
    return (extradata[4] & 3) + 1 if avcc and extradata is not None else 0


def first_slice(packet: bytes, length: int) -> Slice | None:
    """Return what the packet's picture is, None when it holds no slice. `length` is `length_bytes` of its stream."""
    place = _start_code(packet, 0) if length == 0 else length
    while 0 < place < len(packet):
        head = packet[place]
        if head & 31 in _SLICES:
            return Slice(idr=head & 31 == _IDR, reference=head >> 5 & 3 > 0)
        if length:
            place += int.from_bytes(packet[place - length : place], "big") + length
        else:
            place = _start_code(packet, place)
    return None


def parameter_set(packet: bytes, length: int) -> bytes:
    """Return the sequence parameter set that stands before the packet's first slice, empty when there is none."""
    place = _start_code(packet, 0) if length == 0 else length
    while 0 < place < len(packet) and packet[place] & 31 not in _SLICES:
        if length:
            end = place + int.from_bytes(packet[place - length : place], "big")
            following = end + length
        else:
            following = _start_code(packet, place)
            end = following - 3 if following else len(packet)
        if packet[place] & 31 == _SPS:
            return packet[place:end]
        place = following
    return b""


def _start_code(packet: bytes, place: int) -> int:
    """Return where the next NAL unit begins, 0 when there is none."""
    found = packet.find(b"\x00\x00\x01", place)
    return found + 3 if found >= 0 else 0
