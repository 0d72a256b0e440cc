"""Where a picture lies in the model's input, and the way back. Pure."""

from dataclasses import dataclass

from fleetbatch.bundle.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A picture is resized to width x height, and its left upper corner comes to lie at (left, top) of the input."""

    width: int
    height: int
    left: int
    top: int
    across: float
    """Pixels of the input for one of the picture; a rounded width does not change it."""
    down: float


def placement(width: int, height: int, manifest: Manifest) -> Placement:
    """Return where a picture of that size lies; left and top are negative where its edges are cropped away."""
    resize, taken = manifest.resize, manifest.input
    if resize.mode == "squash":
        across, down = taken.width / width, taken.height / height
        return Placement(width=taken.width, height=taken.height, left=0, top=0, across=across, down=down)
    if resize.mode == "crop":
        factor = resize.shorter_side / min(width, height)
        large = (round(width * factor), round(height * factor))
        left, top = -((large[0] - taken.width) // 2), -((large[1] - taken.height) // 2)
    else:
        factor = min(taken.width / width, taken.height / height)
        large = (max(1, int(width * factor)), max(1, int(height * factor)))
        left, top = (taken.width - large[0]) // 2, (taken.height - large[1]) // 2
        if resize.anchor == "top_left":
            left, top = 0, 0
    return Placement(width=large[0], height=large[1], left=left, top=top, across=factor, down=factor)
