"""Pictures whose content is known, and how they are saved."""

import io
from typing import Any

import numpy as np
from PIL import Image


def scene(width: int = 40, height: int = 24, seed: int = 1) -> Image.Image:
    """A picture in which no two corners are alike."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, width)[np.newaxis, :, np.newaxis] * np.array([1.0, 0.3, 0.6])
    ramp = ramp + np.linspace(0, 50, height)[:, np.newaxis, np.newaxis]
    return Image.fromarray((ramp + rng.uniform(0, 5, (height, width, 3))).astype(np.uint8))


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
