"""What cannot be cut as it is, is decoded and encoded anew as H.264, every frame at its own time."""

import io
from fractions import Fraction
from typing import Final

import av

from fleetbatch.sharding.video_file import Place, open_container

QUALITY: Final = {"crf": "16", "preset": "veryfast", "bf": "0", "sc_threshold": "0", "forced-idr": "1"}
"""libx264's: visually the same as the source, and no frame before an IDR frame waits for one after it."""


def reencode(place: Place, *, seconds: Fraction) -> bytes:
    """Return an MP4 file with every frame that can be decoded, an IDR frame every so many seconds.

    One thread, so that the same input gives the same bytes. Raises av's errors where nothing can be decoded.
    """
    file = io.BytesIO()
    with open_container(place) as source, av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as target:
        taken = source.streams.video[0]
        taken.codec_context.thread_count = 1
        given = target.add_stream("libx264", rate=taken.average_rate or 25, options=QUALITY)
        given.width, given.height, given.pix_fmt = taken.codec_context.width, taken.codec_context.height, "yuv420p"
        given.codec_context.thread_count = 1
        given.codec_context.time_base = Fraction(taken.time_base or Fraction(1, 1000))
        due = None
        for frame in source.decode(taken):
            assert frame.pts is not None
            begins = due is None or frame.pts * given.codec_context.time_base >= due
            if begins:
                due = frame.pts * given.codec_context.time_base + seconds
            frame.pict_type = av.video.frame.PictureType.I if begins else av.video.frame.PictureType.NONE
            target.mux(given.encode(frame))
        target.mux(given.encode(None))
    return file.getvalue()
