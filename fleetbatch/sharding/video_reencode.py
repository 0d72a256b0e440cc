"""What cannot be cut as it is, is decoded and encoded anew as H.264, every frame at its own time."""

import io
from fractions import Fraction
from typing import Final

import av
from av.video.frame import PictureType

from fleetbatch.sharding.video_ends import lost_places
from fleetbatch.sharding.video_file import NotAVideo, Place, best_stream, open_bytes, open_container
from fleetbatch.workloads.orientation import orientation_of
from fleetbatch.workloads.segments import BROKEN, STRICT, why_broken

QUALITY: Final = {"crf": "16", "preset": "veryfast", "bf": "0", "sc_threshold": "0", "forced-idr": "1"}
"""libx264's: visually the same as the source, and no frame before an IDR frame waits for one after it."""


def reencode(place: Place, *, seconds: Fraction) -> bytes | NotAVideo:
    """Return an MP4 file with every frame, an IDR frame every so many seconds, or why it cannot be made.

    One thread, so that the same input gives the same bytes. A damaged frame is a reason: what it shows is not known.
    """
    try:
        return _encoded(place, seconds)
    except BROKEN as error:
        if isinstance(error, OSError):
            raise
        return NotAVideo(reason=f"cannot be encoded anew: {why_broken(error)}")


def _encoded(place: Place, seconds: Fraction) -> bytes | NotAVideo:
    file = io.BytesIO()
    with open_container(place) as source, av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as target:
        taken = best_stream(source)
        assert taken is not None, "what has no video does not come here"
        if _loses_bytes(place, source.format.name):
            return NotAVideo(reason="cannot be encoded anew: bytes of the file are lost, and with them what it shows")
        taken.codec_context.thread_count = 1
        taken.codec_context.options = STRICT
        given = target.add_stream("libx264", rate=taken.average_rate or 25, options=QUALITY)
        given.width, given.height = taken.codec_context.width, taken.codec_context.height
        given.pix_fmt = "yuv444p" if given.width % 2 or given.height % 2 else "yuv420p"  # which halves both sides
        given.codec_context.thread_count = 1
        given.codec_context.time_base = Fraction(taken.time_base or Fraction(1, 1000))
        before: Fraction | None = None
        due: Fraction | None = None
        for frame in source.decode(taken):
            if frame.pts is None:
                return NotAVideo(reason="cannot be encoded anew: its frames carry no times")
            if (frame.width, frame.height) != (given.width, given.height):  # boxes would be in pixels of the first size
                return NotAVideo(reason="cannot be encoded anew: its frames are not of one size")
            at = frame.pts * given.codec_context.time_base
            if before is not None and at <= before:
                why = "cannot be encoded anew: its frames' times go back (a clock that begins anew?): "
                return NotAVideo(reason=why + "give every recording a file of its own")
            if due is None:
                shown = orientation_of(frame)
                given.set_display_rotation(90 * shown.turns, hflip=shown.mirrored)
            begins = due is None or at >= due
            before, due = at, at + seconds if begins else due
            frame.pict_type = PictureType.I if begins else PictureType.NONE
            target.mux(given.encode(frame))
        target.mux(given.encode(None))
    return file.getvalue()


def _loses_bytes(place: Place, container: str) -> bool:
    with open_bytes(place) as file:
        return bool(lost_places(file, container))
