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
    """Return where a picture of that size lies in a letterbox, or squashed; a crop has no way back."""
    resize, taken = manifest.resize, manifest.input
    assert resize.mode != "crop"
    if resize.mode == "squash":
        across, down = taken.width / width, taken.height / height
        return Placement(width=taken.width, height=taken.height, left=0, top=0, across=across, down=down)
    factor = min(taken.width / width, taken.height / height)
    small = (max(1, int(width * factor)), max(1, int(height * factor)))
    centred = resize.anchor == "centre"
    left, top = ((taken.width - small[0]) // 2, (taken.height - small[1]) // 2) if centred else (0, 0)
    return Placement(width=small[0], height=small[1], left=left, top=top, across=factor, down=factor)
