"""A segment is a piece of a video that decodes by itself: an MP4 file that begins with an IDR frame, and what it holds.

Frames are numbered in the order in which they are shown. A car decodes with one thread, leaves out what no wanted frame
needs, and stops after the last wanted one.
"""

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain
from typing import Annotated, Final, TypeAlias

import av
import msgspec
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fleetbatch.workloads.h264 import first_slice, length_bytes

Packet: TypeAlias = "av.Packet[VideoStream]"
Count = Annotated[int, msgspec.Meta(ge=0)]
STRICT: Final = {"err_detect": "explode"}
"""A damaged picture is an error; FFmpeg would otherwise paint over the damage and say nothing."""
BROKEN: Final = (av.error.FFmpegError, ValueError, IndexError, OverflowError)
"""What PyAV raises for broken files; the others come where FFmpeg's own tables are odd."""


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside a segment's bytes in its row; presentation times (pts) are those of the source."""

    frame_start: Count
    """The number of its first frame in the video."""
    frames: Count
    wanted: tuple[Count, ...]
    """The frames to look at, counted from frame_start; ascending, at least one."""
    hidden: Count = 0
    """Frames before the first one that are decoded but, by the source's edit list, never shown."""
    pts_zero: int
    """Of the video's first frame: its second 0."""
    pts_start: int
    pts_end: int
    """Of the segment's first and last frame."""
    time_base: tuple[int, int]
    """Seconds of one pts, as a fraction."""
    reencoded: bool = False
    """It was decoded and encoded anew, because the source could not be cut as it is."""
    sha256: str = ""
    """Of the bytes."""
    decoder_bytes: Count = 0
    """Of the pictures that decoding it holds at a time (sps.py)."""

    def seconds(self, pts: Fraction | int) -> float:
        """Return the place in the video of a frame with that pts."""
        return float((pts - self.pts_zero) * Fraction(*self.time_base))


class Undecodable(Exception):  # noqa: N818 (a planned end of one segment, caught where its row is answered)
    """A segment's bytes do not give the frames that it should hold."""


def why_broken(error: Exception) -> str:
    """Return what PyAV says of a broken file, in words."""
    said = error.strerror if isinstance(error, av.error.FFmpegError) else None
    return said or f"{type(error).__name__}: {error}"


def wanted_frames(content: bytes, segment: Segment) -> Iterator[tuple[Fraction, VideoFrame]]:
    """Yield (pts in the source, frame) of the wanted frames, in the order in which they are shown.

    Raises Undecodable as soon as one of them does not come; those before it were yielded.
    """
    try:
        with av.open(io.BytesIO(content), "r", format="mp4") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            stream.codec_context.options = STRICT
            packets = [packet for packet in container.demux(stream) if packet.size]
            shown = sorted(packet.pts for packet in packets if packet.pts is not None)[segment.hidden :]
            if len(shown) < segment.frames:
                message = f"{len(shown)} frames are in the segment, {segment.frames} should be"
                raise Undecodable(message)
            scale = Fraction(stream.time_base or 1) / Fraction(*segment.time_base)
            wanted = [shown[offset] for offset in segment.wanted]
            for frame in _decoded(stream, packets, wanted):
                yield segment.pts_start + ((frame.pts or 0) - shown[0]) * scale, frame
    except BROKEN as error:
        message = f"cannot be decoded: {why_broken(error)}"
        raise Undecodable(message) from error


def _decoded(stream: VideoStream, packets: Sequence[Packet], wanted: Sequence[int]) -> Iterator[VideoFrame]:
    """Yield the frames with these times; feed the decoder nothing that none of them needs.

    That is: no packet after the last of them, and no picture that no other refers to, unless it is wanted itself.
    """
    chosen, length, done = set(wanted), length_bytes(stream.codec_context.extradata), 0
    last = max(number for number, packet in enumerate(packets) if packet.pts in chosen)
    needed = (packet for packet in packets[: last + 1] if packet.pts in chosen or _is_reference(packet, length))
    for packet in chain(needed, (None,)):
        for frame in stream.codec_context.decode(packet):
            if done < len(wanted) and frame.pts == wanted[done] and not frame.is_corrupt:
                done += 1
                yield frame
    if done < len(wanted):
        message = f"{len(wanted) - done} of {len(wanted)} wanted frames did not come out of the decoder, or too late"
        raise Undecodable(message)


def _is_reference(packet: Packet, length: int) -> bool:
    found = first_slice(bytes(packet), length)
    return found is None or found.reference
