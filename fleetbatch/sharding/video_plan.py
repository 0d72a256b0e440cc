"""Which pieces of a video become rows: closed groups of frames, those with a wanted frame, joined to segments. Pure."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from itertools import pairwise
from typing import Final, NamedTuple

from fleetbatch.errors import RejectedError
from fleetbatch.units import MIB
from fleetbatch.workloads.segments import Segment

_NUMBER_DIGITS: Final = 30
_NUMBER_LEAST: Final = Fraction(1, 10**9)
_NUMBER_MOST: Final = 10**12
"""Frames, seconds and bytes beyond are a slip of the pen, and cost memory to compute with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoDials:
    """What an order's options say of a video."""

    every_frames: int = 0
    """Every so manyth frame is looked at, the first one included; 0: `every_s` says which."""
    every_s: Fraction = Fraction(1)
    """The first frame at or after every multiple of so many seconds."""
    segment_s: Fraction = Fraction(2)
    """A segment takes in another group of frames while it is shorter."""
    segment_bytes: int = 16 * MIB
    """A group larger than this is not cut: a car holds a segment in memory."""
    reencode: bool = False
    """What cannot be cut as it is, is decoded and encoded anew, and its rows say so."""


class Coded(NamedTuple):
    """One packet of a video, in the order of decoding."""

    pts: int
    size: int
    idr: bool
    hidden: bool
    """By the file's edit list it is decoded and never shown."""
    damaged: bool = False
    """Bytes of it, or before it, are lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A run of frames that becomes a row: a segment, or a dead letter that says why not."""

    frame_start: int
    frames: int
    """0 when the file ends before they can be counted."""
    error: str | None = None
    mendable: bool = False
    """Encoding the video anew would take these frames."""
    segment: Segment | None = None
    packets: tuple[Coded, ...] = ()
    """The segment's, the IDR frame first."""
    edge: bool = False
    """It is the video's first or last segment."""


class _Group(NamedTuple):
    """The packets from one IDR frame to the next, and the number of the first frame that they show."""

    packets: tuple[Coded, ...]
    frame_start: int
    frames: int

    @property
    def size_bytes(self) -> int:
        """Return the bytes of its packets."""
        return sum(packet.size for packet in self.packets)

    @property
    def alone(self) -> bool:
        """Whether it cannot go on in the segment of another group: what is wrong with one is not the other's."""
        return not self.packets[0].idr or any(packet.damaged or packet.hidden for packet in self.packets)


def read_dials(options: Mapping[str, str]) -> VideoDials:
    """Return the dials among an order's options; raise RejectedError with every mistake in them."""
    problems: list[str] = []
    if "every_frames" in options and "every_s" in options:
        problems.append("`options` say both every_frames and every_s; say one")
    dials = VideoDials(
        every_frames=int(_number(options, "every_frames", Fraction(0), problems, whole=True)),
        every_s=_number(options, "every_s", Fraction(1), problems),
        segment_s=_number(options, "segment_s", Fraction(2), problems),
        segment_bytes=int(_number(options, "segment_bytes", Fraction(16 * MIB), problems, whole=True)),
        reencode=options.get("reencode", "false") == "true",
    )
    if options.get("reencode", "false") not in {"true", "false"}:
        problems.append(f"`options.reencode` is {options['reencode']!r}; expected true or false")
    if problems:
        summary = "the options are not those of a video order"
        raise RejectedError(summary, problems)
    return dials


def sampled(pts: Sequence[int], time_base: Fraction, dials: VideoDials) -> list[int]:
    """Return the numbers of the frames to look at, given every shown frame's time, ascending."""
    if dials.every_frames:
        return list(range(0, len(pts), dials.every_frames))
    per_pts = time_base / dials.every_s
    turns = [(at - pts[0]) * per_pts.numerator // per_pts.denominator for at in pts]
    return [number for number in range(len(pts)) if number == 0 or turns[number] > turns[number - 1]]


def plan_pieces(packets: Sequence[Coded], time_base: Fraction, dials: VideoDials, *, complete: bool) -> list[Piece]:
    """Return the pieces of a video in the order in which they are shown; every wanted frame is in exactly one.

    Groups without a wanted frame are in none. With `complete` false the file ends in the midst of its last group.
    """
    groups = _groups(packets)
    assert sum(len(group.packets) for group in groups) == len(packets), "every packet is in one group"
    if not complete and groups:
        groups.pop()
    pts = [at for group in groups for at in sorted(packet.pts for packet in group.packets if not packet.hidden)]
    if any(later <= earlier for earlier, later in pairwise(pts)):
        why = (
            "its frames' times are not in order from one IDR frame to the next (a clock that begins anew?): "
            "convert it, or say options.reencode"
        )
        return [Piece(frame_start=0, frames=len(pts), error=why, mendable=True)]
    if not pts and complete:
        return [Piece(frame_start=0, frames=0, error="its edit list shows no frame")]
    wanted = sampled(pts, time_base, dials) if pts else []
    runs = _runs(groups, wanted, pts, dials.segment_s / time_base, dials.segment_bytes)
    pieces = [_piece(run, wanted, pts, time_base, dials) for run in runs]
    for end in (0, -1):
        if pieces:
            pieces[end] = replace(pieces[end], edge=True)
    if not complete:
        why = "the file is cut short: the group of frames that begins here is not whole"
        pieces.append(Piece(frame_start=len(pts), frames=0, error=why))
    return pieces


def _groups(packets: Sequence[Coded]) -> list[_Group]:
    """Part the packets before every IDR frame; what comes before the first one is a group too."""
    starts = [number for number, packet in enumerate(packets) if packet.idr or number == 0]
    groups, shown = [], 0
    for start, stop in pairwise([*starts, len(packets)]):
        ours = tuple(packets[start:stop])
        frames = sum(not packet.hidden for packet in ours)
        groups.append(_Group(packets=ours, frame_start=shown, frames=frames))
        shown += frames
    return groups


def _runs(
    groups: Sequence[_Group], wanted: Sequence[int], pts: Sequence[int], long: Fraction, bytes_max: int
) -> Iterator[list[_Group]]:
    """Yield neighbouring groups with wanted frames; a run goes on while it is small and shorter than `long` (pts)."""
    run: list[_Group] = []
    for group in groups:
        needed = bool(_between(wanted, group.frame_start, group.frames))
        if run and (
            not needed
            or pts[group.frame_start] - pts[run[0].frame_start] >= long
            or sum(one.size_bytes for one in run) + group.size_bytes > bytes_max
            or run[-1].alone
            or group.alone
        ):
            yield run
            run = []
        if needed:
            run.append(group)
    if run:
        yield run


def _piece(
    run: Sequence[_Group], wanted: Sequence[int], pts: Sequence[int], time_base: Fraction, dials: VideoDials
) -> Piece:
    first, frames = run[0].frame_start, sum(group.frames for group in run)
    why, mendable = _uncuttable(run, pts[first], pts[first + frames - 1], dials)
    if why:
        error = f"frames {first} to {first + frames - 1} {why}"
        return Piece(frame_start=first, frames=frames, error=error, mendable=mendable)
    packets = tuple(packet for group in run for packet in group.packets)
    segment = Segment(
        frame_start=first,
        frames=frames,
        wanted=tuple(number - first for number in _between(wanted, first, frames)),
        hidden=sum(packet.hidden and packet.pts < pts[first] for packet in packets),
        pts_zero=pts[0],
        pts_start=pts[first],
        pts_end=pts[first + frames - 1],
        time_base=(time_base.numerator, time_base.denominator),
    )
    return Piece(frame_start=first, frames=frames, segment=segment, packets=packets)


def _uncuttable(run: Sequence[_Group], first: int, last: int, dials: VideoDials) -> tuple[str, bool]:
    """Return why a run is no segment that decodes by itself, or nothing; and whether encoding it anew would help.

    `first` and `last` are the times of what it shows.
    """
    packets = [packet for group in run for packet in group.packets]
    size_bytes = sum(group.size_bytes for group in run)
    if any(packet.damaged for packet in packets):
        return "are damaged: bytes of the file are lost among them, or another recording was put behind", False
    if not packets[0].idr:
        return "come before the first IDR frame: they cannot be decoded exactly", True
    if any(packet.hidden and first <= packet.pts <= last for packet in packets):
        return "are parted by the edit list in the midst of a group: say options.reencode", True
    if size_bytes > dials.segment_bytes:
        why = f"hold no IDR frame but the first and have {size_bytes} bytes; at most {dials.segment_bytes} are cut: "
        return why + "raise options.segment_bytes" + ("" if dials.reencode else ", or say options.reencode"), True
    return "", False


def _between(numbers: Sequence[int], first: int, count: int) -> Sequence[int]:
    """Return those of the ascending numbers that lie in [first, first + count)."""
    return numbers[bisect_left(numbers, first) : bisect_left(numbers, first + count)]


def _number(
    options: Mapping[str, str], name: str, default: Fraction, problems: list[str], *, whole: bool = False
) -> Fraction:
    """Return a positive number among the options; a mistake is told, and the default returned."""
    if name not in options:
        return default
    found = _fraction(options[name])
    if not _NUMBER_LEAST <= found <= _NUMBER_MOST or (whole and found.denominator != 1):
        kind = "a whole number from 1" if whole else f"a number from {float(_NUMBER_LEAST)}"
        problems.append(f"`options.{name}` is {options[name]!r}; expected {kind} to {_NUMBER_MOST:,}")
        return default
    return found


def _fraction(text: str) -> Fraction:
    """Return the number that a text says, 0 where it says none; one with a large exponent is never worked out."""
    over, slash, under = text.partition("/")
    if len(text) > _NUMBER_DIGITS:
        return Fraction(0)
    try:
        parts = [Decimal(over), Decimal(under if slash else "1")]
        if not all(part.is_finite() and abs(part.adjusted()) <= _NUMBER_DIGITS for part in parts):
            return Fraction(0)
        return Fraction(parts[0]) / Fraction(parts[1])
    except (InvalidOperation, ZeroDivisionError):
        return Fraction(0)
