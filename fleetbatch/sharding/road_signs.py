"""Drawn photographs of road signs whose labels are known: seed and index say everything about a picture. Pure.

A picture is a sign template (templates below: shapes, and letters and digits made of strokes) seen in perspective
before a background, in some light, blurred, with noise, as a JPEG file of 48 to 80 pixels a side.
"""

import functools
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from fleetbatch.errors import RejectedError
from fleetbatch.sharding.sign_templates import SIDE, TEMPLATES

LABELS: Final = tuple(TEMPLATES)
SIZE_BYTES_MAX: Final = 8 << 10
"""No picture is larger: its JPEG quality is lowered until it fits."""
COUNT_MAX: Final = 100_000_000
DIALS: Final = {"count": (1, COUNT_MAX), "seed": (0, 2**63 - 1), "broken": (0, COUNT_MAX)}
"""Smallest and largest value of each dial."""
SPOILED: Final = ("empty", "text", "header", "half")
"""How a picture is spoiled on purpose: the first three show when it is cut, the last only when it is decoded."""

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Dials of the generator."""

    count: int = 1000
    seed: int = 1
    broken: int = 0
    """How many of `count` are spoiled, spread evenly."""


def drawing(dials: Mapping[str, str]) -> Drawing:
    """Return the dials that an order names; raise RejectedError with all that is wrong with them."""
    problems, read = [], {}
    for name, text in dials.items():
        if name not in DIALS:
            problems.append(f"road-signs has no dial {name!r}; it has {', '.join(DIALS)}")
        elif not text.isascii() or not text.isdigit() or not DIALS[name][0] <= int(text) <= DIALS[name][1]:
            problems.append(f"{name}={text!r}: expected a whole number from {DIALS[name][0]} to {DIALS[name][1]}")
        else:
            read[name] = int(text)
    if problems:
        summary = "the generator road-signs cannot draw this"
        raise RejectedError(summary, problems)
    return Drawing(**read)


def uris(dials: Drawing) -> Iterator[str]:
    """Yield `road-signs://seed/index#label` for every picture, in order."""
    for index in range(dials.count):
        spoiled = index * dials.broken // dials.count != (index + 1) * dials.broken // dials.count
        how = f"?spoiled={SPOILED[index * dials.broken // dials.count % len(SPOILED)]}" if spoiled else ""
        yield f"road-signs://{dials.seed}/{index}{how}#{label(dials.seed, index)}"


def label(seed: int, index: int) -> str:
    """Return what a picture shows, without drawing it."""
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8, person=b"road sign").digest()
    return LABELS[int.from_bytes(digest, "big") % len(LABELS)]


def label_of(uri: str) -> str:
    """Return the label that a picture's source_uri names; raise RejectedError for any other uri."""
    parts = urlsplit(uri)
    if parts.scheme != "road-signs" or parts.fragment not in TEMPLATES:
        summary = f"{uri!r} does not name a drawn road sign"
        raise RejectedError(summary)
    return parts.fragment


def picture_file(uri: str) -> bytes:
    """Return the JPEG file that a uri of `uris` names, spoiled if it says so."""
    parts = urlsplit(uri)
    seed, index = int(parts.netloc), int(parts.path.removeprefix("/"))
    spoiled = dict(parse_qsl(parts.query)).get("spoiled")
    if spoiled == "empty":
        return b""
    if spoiled == "text":
        return b"This is not a picture.\n"
    file = _jpeg(seed, index)
    if spoiled == "header":
        return file[:12]
    scan = file.rfind(b"\xff\xda")  # the pixels begin here; before it the header is whole
    return file[: (scan + len(file)) // 2] if spoiled == "half" else file


def draw(seed: int, index: int) -> Image.Image:
    """Return one picture before it becomes a file."""
    chance = _chance(seed, index)
    side = int(chance.integers(48, 81))
    canvas = _background(chance).convert("RGB")
    sign = _template(label(seed, index)).transform(
        (SIDE, SIDE), Image.Transform.PERSPECTIVE, _perspective(chance), Image.Resampling.BILINEAR
    )
    canvas.paste(sign, (0, 0), sign)
    blurred = canvas.filter(ImageFilter.GaussianBlur(float(chance.uniform(0.0, 2.6))))
    small = blurred.resize((side, side), Image.Resampling.BOX)
    return Image.fromarray(_light_and_noise(np.asarray(small, np.float32), chance))


@functools.cache
def _template(name: str) -> Image.Image:
    """Return a sign seen from the front, transparent around it."""
    return TEMPLATES[name]()


def _jpeg(seed: int, index: int) -> bytes:
    picture = draw(seed, index)
    quality = int(_chance(seed, index).integers(55, 96))
    while True:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        if file.tell() <= SIZE_BYTES_MAX:
            return file.getvalue()
        quality -= 10


def _chance(seed: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))


def _background(chance: np.random.Generator) -> Image.Image:
    """Return sky over ground with some blocks and crowns in it."""
    horizon = int(chance.integers(SIDE // 3, SIDE))
    canvas = Image.new("RGB", (SIDE, SIDE), _colour(chance, (90, 120, 140), (215, 225, 250)))
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((0, horizon, SIDE, SIDE), fill=_colour(chance, (50, 50, 40), (150, 150, 130)))
    for _ in range(int(chance.integers(2, 9))):
        x, y, width, height = (int(v) for v in chance.integers((-20, -20, 10, 10), (SIDE, SIDE, SIDE, SIDE)))
        shape = pen.rectangle if chance.random() < 0.5 else pen.ellipse  # noqa: PLR2004 # a coin
        shape((x, y, x + width, y + height), fill=_colour(chance, (20, 30, 20), (230, 220, 210)))
    return canvas


def _colour(chance: np.random.Generator, low: tuple[int, int, int], high: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in chance.integers(low, high))
    return red, green, blue


def _perspective(chance: np.random.Generator) -> tuple[float, ...]:
    """Return the eight coefficients that map the picture's pixels to the template's.

    The sign's corners lie at random near those of a square in the picture; the coefficients solve the eight linear
    equations that say so (Heckbert 1989, section 2.2.2).
    """
    size = SIDE * chance.uniform(0.55, 0.98)
    left, top = chance.uniform(0.0, SIDE - size, 2)
    angle = chance.normal(0.0, 0.09)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    square = np.array([[0, 0], [size, 0], [size, size], [0, size]])
    corners = (square - size / 2) @ turn.T + size / 2 + [left, top] + chance.uniform(-0.08, 0.08, (4, 2)) * size
    equations, wanted = [], []
    for (x, y), (u, v) in zip(corners, ((0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)), strict=True):
        equations += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        wanted += [u, v]
    return tuple(float(value) for value in np.linalg.solve(np.array(equations), np.array(wanted, float)))


def _light_and_noise(pixels: Pixels, chance: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return the pixels in other light: exposure, colour cast, haze, a shadow's edge, sensor noise."""
    light = pixels * chance.uniform(0.35, 1.25) * chance.uniform(0.88, 1.12, 3)
    haze = chance.uniform(0.0, 0.35) ** 2
    light = light * (1 - haze) + 200 * haze
    side = pixels.shape[0]
    if chance.random() < 0.3:  # noqa: PLR2004 # three of ten stand half in a shadow
        x, y = np.meshgrid(np.arange(side), np.arange(side))
        slope, edge = chance.normal(0.0, 1.0, 2)
        light = light * np.where(x - side / 2 + slope * (y - side / 2) > edge * side / 4, 1.0, 0.6)[..., None]
    noisy = light + chance.normal(0.0, chance.uniform(1.0, 11.0), pixels.shape)
    return noisy.clip(0, 255).astype(np.uint8)
