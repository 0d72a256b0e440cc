"""Reading a video's packets, and copying some of them, untouched, into an MP4 file that decodes by itself.

Nothing is decoded here, and FFmpeg may open nothing but the file at hand: some containers can name others.
"""

import io
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from fleetbatch.sharding.video_ends import ends_early, further_recording, lost_places
from fleetbatch.sharding.video_plan import Coded
from fleetbatch.workloads.h264 import first_slice, length_bytes, parameter_set
from fleetbatch.workloads.protocol import PIXEL_BYTES
from fleetbatch.workloads.segments import BROKEN, why_broken
from fleetbatch.workloads.sps import MACROBLOCK, decoder_bytes, told_by

CONTAINERS: Final = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,avi,h264,hevc"
"""FFmpeg's names of the containers that are opened."""
_CAREFUL: Final = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
_AS_TOLD: Final = {"use_editlist": "0", "fflags": "+bitexact"}
"""Segments show every frame they hold, from the first on, and are the same bytes every time."""
_PICTURES: Final = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
"""Tracks that are no film, but belong to one."""
_SET_BYTES: Final = 1024
"""Of a parameter set; what it says of a picture stands before."""

Packet: TypeAlias = "av.Packet[VideoStream]"
Place: TypeAlias = Path | bytes
"""A file, or its content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """What a file's video holds, packet by packet; of several video tracks, the one that players choose."""

    width: int
    height: int
    codec: str
    time_base: Fraction
    packets: tuple[Coded, ...]
    complete: bool
    """The file does not end in the midst of what it should hold."""
    pixels: int = 0
    """Of its largest picture; a stream may change its size, and each frame is looked at in its own."""
    decoder_bytes: int = 0
    """Of the pictures that decoding it holds at a time, and of what is larger than width and height say."""
    track: int = 1
    """Of the file's video tracks, counted from 1; cover pictures do not count."""
    tracks: int = 1
    further: int = 0
    """Where in the file another recording has its index, of which nothing is read; 0: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAVideo:
    """Why a file cannot be cut; a planned end: the file's row goes on with this reason."""

    reason: str


def read_video(place: Place) -> Video | NotAVideo:
    """Return what is in a file; never raise for what is in it, only OSError when it cannot be read."""
    try:
        with open_container(place) as container:
            stream = best_stream(container)
            if stream is None:
                kinds = ", ".join(sorted({other.type for other in container.streams})) or "nothing"
                return NotAVideo(reason=f"holds no video stream, only {kinds}")
            if stream.codec_context is None:  # PyAV's types do not know it: no decoder has that number
                return NotAVideo(reason="its video is of a codec that is not known here")
            with open_bytes(place) as file:
                early = ends_early(file, container.format.name)
                further = further_recording(file, container.format.name)
                lost = lost_places(file, container.format.name)
            found = _read(container, stream, lost)
            if isinstance(found, NotAVideo):
                return found
            films = [track.index for track in container.streams.video if not track.disposition & _PICTURES]
            track = films.index(stream.index) + 1 if stream.index in films else 1
            complete = found.complete and not early
            return replace(found, complete=complete, track=track, tracks=max(1, len(films)), further=further)
    except av.error.ArgumentError:  # what FFmpeg says of a container that is not on the list
        return NotAVideo(reason="its container is not taken: convert it to MP4")
    except BROKEN as error:
        if isinstance(error, OSError):
            raise
        return NotAVideo(reason=f"cannot be opened as a video: {why_broken(error)}")


def copy_packets(place: Place, wanted: Sequence[Coded]) -> bytes | NotAVideo:
    """Return an MP4 file with the packets that begin with an IDR frame, their times rebased to 0."""
    try:
        for seek in (True, False):  # some containers seek too far, or count times anew from where they were sought
            with open_container(place) as container:
                stream = best_stream(container)
                assert stream is not None, "it was there when the file was listed"
                found = _take(container, stream, wanted, seek=seek)
                if [(packet.pts, packet.size) for packet in found] == [(packet.pts, packet.size) for packet in wanted]:
                    return _mux(stream, found)
        return NotAVideo(reason="the file changed while it was read")
    except BROKEN as error:
        if isinstance(error, OSError):
            raise
        return NotAVideo(reason=f"cannot be cut: {why_broken(error)}")


def open_container(place: Place) -> InputContainer:
    """Open a file with the containers and protocols that are allowed."""
    file: Any = io.BytesIO(place) if isinstance(place, bytes) else str(place)
    container: InputContainer = av.open(file, options=_CAREFUL, metadata_errors="replace")
    return container


def open_bytes(place: Place) -> BinaryIO:
    """Open a file as it is."""
    return io.BytesIO(place) if isinstance(place, bytes) else place.open("rb")


def best_stream(container: InputContainer) -> VideoStream | None:
    """Return the video itself, no cover picture or preview beside it; None where no decoder knows any."""
    best = container.streams.best("video")
    return best if isinstance(best, VideoStream) else None


def _read(container: InputContainer, stream: VideoStream, lost: Sequence[int]) -> Video | NotAVideo:
    codec, time_base = stream.codec_context.name, Fraction(stream.time_base or 0)
    length = length_bytes(stream.codec_context.extradata)
    packets: list[Coded] = []
    starts: list[int] = []
    sets: set[bytes] = set()
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.pts is not None:
            slice_ = first_slice(bytes(packet), length) if codec == "h264" else None
            if slice_ is not None and slice_.idr:
                sets.add(parameter_set(bytes(packet), length)[:_SET_BYTES])
            idr, hidden, damaged = slice_ is not None and slice_.idr, packet.is_discard, packet.is_corrupt
            starts.append(packet.pos or 0)
            packets.append(Coded(pts=packet.pts, size=packet.size, idr=idr, hidden=hidden, damaged=damaged))
        elif packet.is_corrupt and packets:
            packets[-1] = packets[-1]._replace(damaged=True)
        else:
            return NotAVideo(reason="its frames carry no times (a bare stream): wrap it into an MP4 file")
    if not packets or not time_base:
        return NotAVideo(reason="holds no frame that can be read")
    _mark_lost(packets, starts, lost)
    if container.format.name == "avi" and stream.codec_context.has_b_frames:
        return NotAVideo(reason="its B frames carry no times of their own in an AVI file: wrap it into an MP4 file")
    indexed = len(stream.index_entries) if "mp4" in container.format.name else 0
    width, height = stream.codec_context.width, stream.codec_context.height
    pixels, held = _largest(width, height, stream.codec_context.extradata, sets)
    return Video(
        width=width,
        height=height,
        pixels=pixels,
        codec=codec,
        time_base=time_base,
        packets=tuple(packets),
        complete=not packets[-1].damaged and len(packets) >= indexed,
        decoder_bytes=held,
    )


def _mark_lost(packets: list[Coded], starts: Sequence[int], lost: Sequence[int]) -> None:
    """Mark the packets in which bytes of the file are lost; `starts` says where in the file each begins."""
    for place in lost:
        begun = max(0, bisect_right(starts, place) - 1)
        packets[begun] = packets[begun]._replace(damaged=True)


def _largest(width: int, height: int, extradata: bytes | None, sets: Iterable[bytes]) -> tuple[int, int]:
    """Return the most pixels of a picture, and the bytes that decoding takes beside those of a picture of that size.

    A stream may change its size at any IDR frame (`sets`: what stands there), as where two recordings were joined.
    """
    pixels, held = width * height, decoder_bytes(extradata, width * height)
    whole = -(-width // MACROBLOCK) * -(-height // MACROBLOCK) * MACROBLOCK**2
    for larger, more in map(told_by, sets):
        if larger > whole:
            pixels, held = max(pixels, larger), max(held, more + PIXEL_BYTES * (larger - width * height))
    return pixels, held


def _take(container: InputContainer, stream: VideoStream, wanted: Sequence[Coded], *, seek: bool) -> list[Packet]:
    """Return as many packets as wanted from the one that is like the first on; none when it does not come."""
    if seek:
        container.seek(wanted[0].pts, stream=stream, backward=True)
    found: list[Packet] = []
    for packet in container.demux(stream):
        if packet.size and (found or (packet.pts, packet.size) == (wanted[0].pts, wanted[0].size)):
            found.append(packet)
            if len(found) == len(wanted):
                break
    return found


def _mux(template: VideoStream, packets: Sequence[Packet]) -> bytes:
    """Write the packets; decoding times are made anew, as some containers have none: in order, and never after pts."""
    pts = [packet.pts or 0 for packet in packets]
    in_order = sorted(pts)
    delay = max(shown - own for shown, own in zip(in_order, pts, strict=True))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options=_AS_TOLD) as container:
        stream = container.add_stream_from_template(template)
        for packet, own, shown in zip(packets, pts, in_order, strict=True):
            packet.pts, packet.dts = own - in_order[0] + delay, shown - in_order[0]
            packet.stream = stream
            container.mux(packet)
    return file.getvalue()
