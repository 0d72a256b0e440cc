"""What a decoder of H.264 holds, by the stream's sequence parameter set (ITU-T H.264, 7.3.2.1.1 and A.3.1). Pure."""

from typing import Final

from fleetbatch.workloads.h264 import length_bytes

_SPS: Final = 7
_WITH_CHROMA: Final = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
"""profile_idc whose parameter sets say chroma format, bit depth and scaling."""
_DPB_MACROBLOCKS: Final = {
    10: 396, 11: 900, 12: 2376, 13: 2376, 20: 2376, 21: 4752, 22: 8100, 30: 8100, 31: 18_000, 32: 20_480, 40: 32_768,
    41: 32_768, 42: 34_816, 50: 110_400, 51: 184_320, 52: 184_320, 60: 696_320, 61: 696_320, 62: 696_320,
}  # fmt: skip
"""MaxDpbMbs by level_idc (table A-1)."""
FRAMES_MAX: Final = 16
BESIDE: Final = 4
"""Frames that a decoder has beside those that it may refer to: the one in work, and what waits to be taken."""
_SAMPLES: Final = (1.5, 1.5, 2.0, 3.0)
"""Of all planes for a pixel, by chroma_format_idc; pictures without colour are held with empty planes of it."""
_BITS_OF_A_BYTE: Final = 8
MACROBLOCK: Final = 16


class _Bits:
    """Reads a parameter set's numbers from the front; raises IndexError or ValueError at the end."""

    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data.replace(b"\0\0\x03", b"\0\0"))
        self._at = 0

    def number(self, bits: int = 1) -> int:
        """Return u(n)."""
        told = self._bits[self._at : self._at + bits]
        if len(told) < bits:
            raise IndexError
        self._at += bits
        return int(told, 2)

    def coded(self) -> int:
        """Return ue(v), or se(v) before its sign is looked at."""
        zeros = self._bits.index("1", self._at) - self._at
        self._at += zeros
        return self.number(zeros + 1) - 1

    def signed(self) -> int:
        """Return se(v)."""
        code = self.coded()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def decoder_bytes(extradata: bytes | None, pixels: int) -> int:
    """Return the bytes of all pictures that decoding a stream keeps at a time.

    `pixels` are those of a picture, for a stream that does not say how many it refers to: then the most are counted.
    """
    try:
        return _told(_Bits(_parameter_set(extradata or b"")[1:]))[1]
    except (IndexError, ValueError):
        return round((FRAMES_MAX + BESIDE) * pixels * _SAMPLES[1])


def told_by(unit: bytes) -> tuple[int, int]:
    """Return the pixels of a picture, in whole macroblocks, and the bytes of all that are kept, by one parameter set.

    (0, 0) for one that says neither: no decoder takes it either.
    """
    try:
        return _told(_Bits(unit[1:]))
    except (IndexError, ValueError):
        return 0, 0


def _parameter_set(extradata: bytes) -> bytes:
    """Return the first sequence parameter set, of an avcC box or between start codes; ValueError when there is none."""
    if length_bytes(extradata):
        size = int.from_bytes(extradata[6:8], "big")
        return extradata[8 : 8 + size]
    for unit in extradata.split(b"\0\0\x01")[1:]:
        if unit and unit[0] & 31 == _SPS:
            return unit
    raise ValueError


def _told(bits: _Bits) -> tuple[int, int]:
    """Return the pixels of a picture, and the bytes of all that are held."""
    profile, _, level = bits.number(8), bits.number(8), bits.number(8)
    bits.coded()  # seq_parameter_set_id
    samples, sample_bytes = _colour(bits) if profile in _WITH_CHROMA else (_SAMPLES[1], 1)
    bits.coded()  # log2_max_frame_num_minus4
    _skip_order(bits)
    refers_to = bits.coded()
    bits.number()  # gaps_in_frame_num_value_allowed_flag
    across, down = bits.coded() + 1, bits.coded() + 1
    macroblocks = across * down * (2 - bits.number())
    dpb = _DPB_MACROBLOCKS.get(level, FRAMES_MAX * macroblocks) // macroblocks
    frames = min(max(refers_to, dpb), FRAMES_MAX) + BESIDE
    pixels = macroblocks * MACROBLOCK**2
    return pixels, round(frames * pixels * samples * sample_bytes)


def _colour(bits: _Bits) -> tuple[float, int]:
    """Return samples of a pixel and bytes of a sample, and go past the scaling lists."""
    chroma = bits.coded()
    planes = bits.number() if chroma == len(_SAMPLES) - 1 else 0
    depth = _BITS_OF_A_BYTE + max(bits.coded(), bits.coded())
    bits.number()  # qpprime_y_zero_transform_bypass_flag
    if bits.number():
        for number in range(12 if chroma == len(_SAMPLES) - 1 else 8):
            if bits.number():
                _skip_scaling(bits, 16 if number < 6 else 64)  # noqa: PLR2004 (4 x 4 lists come first)
    return _SAMPLES[chroma] if not planes else _SAMPLES[-1], 2 if depth > _BITS_OF_A_BYTE else 1


def _skip_scaling(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed() + 256) % 256
        last = following or last


def _skip_order(bits: _Bits) -> None:
    kind = bits.coded()
    if kind == 0:
        bits.coded()  # log2_max_pic_order_cnt_lsb_minus4
    elif kind == 1:
        bits.number()  # delta_pic_order_always_zero_flag
        for _ in range(2):
            bits.signed()
        for _ in range(bits.coded()):
            bits.signed()
