"""A drawn drive whose every box is known: seed, clip and frame say everything about a picture. Pure.

A camera 1.3 m above the right lane of a straight road looks ahead. Cars and a lorry drive before it and towards it,
traffic signs pass on the right; light and colours differ from clip to clip, noise from frame to frame.
"""

import functools
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from fleetbatch.sharding.sign_templates import TEMPLATES

WIDTH, HEIGHT, RATE = 320, 192, 25
"""Pixels, and frames a second."""
LABELS: Final = ("car", "lorry", "sign")
SEEN_PIXELS: Final = 8
"""A thing whose shorter side is smaller is not named."""
SEEN_SHARE: Final = 0.6
"""A thing of which less is to be seen is not named."""

_FOCAL, _HORIZON, _CAMERA_M = 270.0, 78.0, 1.3
_METRES: Final = {"car": (1.8, 1.45), "lorry": (2.5, 3.3), "sign": (0.9, 0.9)}
"""Width and height."""
_SIGN_BOTTOM_M: Final = 1.9
_NEAR_M, _FAR_M = 6.5, 70.0
_LEFT_LANE_M, _EDGE_M = -3.5, 1.9

Colour = tuple[int, int, int]


class Thing(NamedTuple):
    """Something on the road: its label, where it stands (metres right and ahead of the camera), how it looks."""

    label: str
    right: float
    ahead: float
    colour: Colour
    look: int


class Named(NamedTuple):
    """What a detector should find: a box in pixels, within the picture."""

    label: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """What stays the same in a clip."""

    speed: float
    """Metres a second."""
    light: float
    sky: Colour
    ground: Colour
    road: Colour
    ours: tuple[tuple[str, float, float, float, Colour], ...]
    """Before us: label, mean distance, swing, turns a second, colour."""
    theirs: tuple[tuple[str, float, Colour], ...]
    """Towards us: label, distance at the start, colour."""
    signs: tuple[tuple[float, float, int], ...]
    """Metres right, metres ahead at the start, which template."""


@functools.lru_cache(maxsize=16)
def clip_of(seed: int, clip: int) -> Clip:
    """Return the world of one clip."""
    chance = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, clip])))

    def colour(low: Colour, high: Colour) -> Colour:
        red, green, blue = (int(value) for value in chance.integers(low, high))
        return red, green, blue

    def vehicle() -> str:
        return "lorry" if chance.random() < 0.3 else "car"  # noqa: PLR2004 # three of ten

    paint: tuple[Colour, Colour] = ((30, 30, 30), (225, 225, 225))
    return Clip(
        speed=float(chance.uniform(7, 16)),
        light=float(chance.uniform(0.7, 1.1)),
        sky=colour((120, 150, 180), (200, 215, 245)),
        ground=colour((50, 70, 30), (120, 130, 90)),
        road=colour((70, 70, 70), (110, 110, 110)),
        ours=((vehicle(), float(chance.uniform(13, 26)), 5.0, float(chance.uniform(0.05, 0.2)), colour(*paint)),),
        theirs=tuple((vehicle(), float(at + chance.uniform(0, 15)), colour(*paint)) for at in (15, 45, 80)),
        signs=tuple(
            (float(chance.uniform(2.8, 4.2)), float(at + chance.uniform(0, 12)), int(chance.integers(0, 1 << 16)))
            for at in (12, 34, 58, 80)
        ),
    )


def things(seed: int, clip: int, frame: int) -> list[Thing]:
    """Return what is on the road at a frame, the farthest first."""
    world, seconds = clip_of(seed, clip), frame / RATE
    found = [
        Thing(label, 0.0, mean + swing * float(np.sin(6.283 * turns * seconds)), colour, 0)
        for label, mean, swing, turns, colour in world.ours
    ]
    found += [
        Thing(label, _LEFT_LANE_M, (start - 1.8 * world.speed * seconds) % 110, colour, 1)
        for label, start, colour in world.theirs
    ]
    found += [
        Thing("sign", right, (start - world.speed * seconds) % 92, (0, 0, 0), look)
        for right, start, look in world.signs
    ]
    return sorted((thing for thing in found if _NEAR_M < thing.ahead < _FAR_M), key=lambda thing: -thing.ahead)


def named(seed: int, clip: int, frame: int) -> list[Named]:
    """Return what a detector should find in a frame: what is large enough, and not hidden behind something nearer."""
    boxes = [(thing.label, _box(thing)) for thing in things(seed, clip, frame)]
    found = []
    for number, (label, box) in enumerate(boxes):
        inside = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(WIDTH)), min(box[3], float(HEIGHT)))
        left = _area(inside) - sum(_area(_common(inside, nearer)) for _, nearer in boxes[number + 1 :])
        sides = (inside[2] - inside[0], inside[3] - inside[1])
        if min(sides) >= SEEN_PIXELS and left >= SEEN_SHARE * _area(box):
            found.append(Named(label, inside))
    return found


def draw(seed: int, clip: int, frame: int) -> npt.NDArray[np.uint8]:
    """Return one frame, [height, width, 3]."""
    world = clip_of(seed, clip)
    image = Image.new("RGB", (WIDTH, HEIGHT), world.sky)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, _HORIZON, WIDTH, HEIGHT), fill=world.ground)
    _road(pen, world, world.speed * frame / RATE)
    for thing in things(seed, clip, frame):
        if thing.label == "sign":
            _sign(image, pen, thing)
        else:
            _vehicle(pen, thing)
    noise = _noise()
    aside = (seed * 7919 + clip * 104_729 + frame * 31) % (noise.shape[0] - HEIGHT)
    light = np.asarray(image, np.float32) * np.float32(world.light) + noise[aside : aside + HEIGHT]
    return light.clip(0, 255).astype(np.uint8)


@functools.cache
def _noise() -> npt.NDArray[np.float32]:
    """Return more sensor noise than a frame needs: frames take it from different places."""
    chance = np.random.Generator(np.random.PCG64(20261122))
    return chance.normal(0.0, 2.5, (3 * HEIGHT, WIDTH, 1)).astype(np.float32)


def _box(thing: Thing) -> tuple[float, float, float, float]:
    """Return where a thing appears (pinhole camera), maybe outside of the picture."""
    wide, high = _METRES[thing.label]
    bottom = _SIGN_BOTTOM_M if thing.label == "sign" else 0.0
    scale = _FOCAL / thing.ahead
    left, right = (WIDTH / 2 + (thing.right + side * wide / 2) * scale for side in (-1, 1))
    top, low = (_HORIZON + (_CAMERA_M - metres) * scale for metres in (bottom + high, bottom))
    return left, top, right, low


def _road(pen: ImageDraw.ImageDraw, world: Clip, driven_m: float) -> None:
    def at(right: float, ahead: float) -> tuple[float, float]:
        return WIDTH / 2 + right * _FOCAL / ahead, _HORIZON + _CAMERA_M * _FOCAL / ahead

    near, far = 3.0, 300.0
    left = _LEFT_LANE_M - _EDGE_M
    pen.polygon([at(left, near), at(left, far), at(_EDGE_M, far), at(_EDGE_M, near)], fill=world.road)
    white: Colour = (225, 225, 220)
    for line in (left + 0.15, _EDGE_M - 0.15):
        pen.polygon([at(line - 0.07, near), at(line, far), at(line + 0.07, near)], fill=white)
    middle = _LEFT_LANE_M / 2
    for number in range(9):
        start = number * 12 - driven_m % 12 + 3
        if start > near:
            ends = (at(middle - 0.07, start), at(middle + 0.07, start), at(middle + 0.07, start + 4))
            pen.polygon([*ends, at(middle - 0.07, start + 4)], fill=white)


def _vehicle(pen: ImageDraw.ImageDraw, thing: Thing) -> None:
    left, top, right, low = _box(thing)
    wide, high = right - left, low - top
    dark, glass = (25, 25, 28), (60, 75, 90)
    lamps: Colour = (200, 30, 30) if thing.look == 0 else (250, 245, 215)
    pen.rectangle((left + 0.04 * wide, low - 0.1 * high, right - 0.04 * wide, low), fill=dark)
    if thing.label == "lorry":
        pen.rectangle((left, top, right, low - 0.1 * high), fill=thing.colour)
        pen.rectangle((left, low - 0.25 * high, right, low - 0.1 * high), fill=dark)
        if thing.look:
            pen.rectangle((left + 0.08 * wide, top + 0.25 * high, right - 0.08 * wide, top + 0.5 * high), fill=glass)
    else:
        roof = [(left + 0.18 * wide, top), (right - 0.18 * wide, top)]
        pen.polygon([*roof, (right - 0.03 * wide, top + 0.45 * high), (left + 0.03 * wide, top + 0.45 * high)], glass)
        pen.rectangle((left, top + 0.42 * high, right, low - 0.1 * high), fill=thing.colour)
        pen.line(roof, fill=thing.colour, width=max(1, round(0.06 * high)))
    for lamp in (left + 0.05 * wide, right - 0.23 * wide):
        pen.rectangle((lamp, low - 0.32 * high, lamp + 0.18 * wide, low - 0.2 * high), fill=lamps)


def _sign(image: Image.Image, pen: ImageDraw.ImageDraw, thing: Thing) -> None:
    left, top, right, low = _box(thing)
    foot = _HORIZON + _CAMERA_M * _FOCAL / thing.ahead
    post = max(1, round((right - left) * 0.08))
    pen.line([((left + right) / 2, (top + low) / 2), ((left + right) / 2, foot)], fill=(140, 140, 145), width=post)
    names = tuple(TEMPLATES)
    side = max(2, round(right - left))
    plate = _plate(names[thing.look % len(names)], side)
    image.paste(plate, (round(left), round(top)), plate)


@functools.lru_cache(maxsize=512)
def _plate(name: str, side: int) -> Image.Image:
    return TEMPLATES[name]().resize((side, side), Image.Resampling.BOX)


def _common(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, float, float, float]:
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


def _area(box: tuple[float, ...]) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)
