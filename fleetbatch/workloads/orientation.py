"""How a player turns and mirrors a video's frames, by the display matrix of its file (ISO/IEC 14496-12, 6.2.2)."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame


class Orientation(NamedTuple):
    """What is done to a frame before it is shown: first it is turned, then mirrored."""

    turns: int
    """Quarters against the clock, 0 to 3."""
    mirrored: bool
    """Left becomes right, as some rear cameras' pictures are shown."""

    def shown(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return pixels [height, width, ...] as they are shown."""
        turned = np.rot90(pixels, self.turns) if self.turns else pixels
        return np.ascontiguousarray(turned[:, ::-1] if self.mirrored else turned)


def orientation_of(frame: VideoFrame) -> Orientation:
    """Return the frame's, to the nearest quarter; as it is where its file says nothing that makes sense."""
    beside: Any = frame.side_data  # PyAV's types know of motion vectors alone
    try:
        told = bytes(beside["DISPLAYMATRIX"])
    except KeyError:
        return Orientation(turns=0, mirrored=False)
    a, b, _, c, d = (float(value) for value in np.frombuffer(told, np.int32)[:5])
    mirrored = a * d < b * c
    return Orientation(turns=round(math.degrees(math.atan2(-b, -a if mirrored else a)) / 90) % 4, mirrored=mirrored)
