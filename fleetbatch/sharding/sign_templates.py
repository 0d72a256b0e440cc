"""Road signs as seen from the front, after the Vienna Convention; letters and digits are made of strokes. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from PIL import Image, ImageDraw

SIDE: Final = 160
"""Pixels of a template's side."""

_RED, _WHITE, _BLUE, _YELLOW, _BLACK = (190, 22, 32), (245, 245, 245), (20, 80, 165), (250, 200, 10), (25, 25, 25)
Point = tuple[float, float]
Colour = tuple[int, int, int]

_STROKES: Final[Mapping[str, Sequence[Sequence[Point]]]] = {
    # x and y from 0 to 1 in the glyph's box, y downwards
    "0": [[(0.3, 0), (0.7, 0), (1, 0.2), (1, 0.8), (0.7, 1), (0.3, 1), (0, 0.8), (0, 0.2), (0.3, 0)]],
    "1": [[(0.2, 0.25), (0.6, 0), (0.6, 1)]],
    "2": [[(0, 0.25), (0.25, 0), (0.75, 0), (1, 0.25), (0.95, 0.45), (0, 1), (1, 1)]],
    "3": [[(0, 0), (1, 0), (0.45, 0.4), (0.8, 0.45), (1, 0.7), (0.75, 1), (0.25, 1), (0, 0.85)]],
    "5": [[(0.95, 0), (0.1, 0), (0.05, 0.45), (0.65, 0.4), (1, 0.65), (0.75, 1), (0.25, 1), (0, 0.88)]],
    "8": [
        [(0.3, 0), (0.7, 0), (0.95, 0.2), (0.7, 0.47), (0.3, 0.47), (0.05, 0.2), (0.3, 0)],
        [(0.3, 0.47), (0.7, 0.47), (1, 0.75), (0.7, 1), (0.3, 1), (0, 0.75), (0.3, 0.47)],
    ],
    "S": [[(1, 0.15), (0.7, 0), (0.3, 0), (0, 0.2), (0.2, 0.45), (0.8, 0.55), (1, 0.8), (0.7, 1), (0.3, 1), (0, 0.85)]],
    "T": [[(0, 0), (1, 0)], [(0.5, 0), (0.5, 1)]],
    "O": [[(0.3, 0), (0.7, 0), (1, 0.2), (1, 0.8), (0.7, 1), (0.3, 1), (0, 0.8), (0, 0.2), (0.3, 0)]],
    "P": [[(0, 1), (0, 0), (0.7, 0), (1, 0.15), (1, 0.38), (0.7, 0.53), (0, 0.53)]],
}


class _Pen:
    """Draws on one template in units of its side."""

    def __init__(self) -> None:
        """Begin with nothing: all transparent."""
        self.image = Image.new("RGBA", (SIDE, SIDE), (128, 128, 128, 0))
        self._draw = ImageDraw.Draw(self.image)

    def area(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill a polygon."""
        self._draw.polygon([(x * SIDE, y * SIDE) for x, y in points], fill=(*colour, 255))

    def disc(self, radius: float, colour: Colour, centre: Point = (0.5, 0.5)) -> None:
        """Fill a circle."""
        (x, y), r = centre, radius
        self._draw.ellipse(((x - r) * SIDE, (y - r) * SIDE, (x + r) * SIDE, (y + r) * SIDE), fill=(*colour, 255))

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw a line with round joints and ends."""
        self._draw.line([(x * SIDE, y * SIDE) for x, y in points], fill=(*colour, 255), width=round(width * SIDE))
        for point in points:
            self.disc(width / 2, colour, point)

    def word(self, text: str, box: tuple[float, float, float, float], width: float, colour: Colour) -> None:
        """Write letters side by side into a box (left, top, right, bottom)."""
        left, top, right, bottom = box
        pitch = (right - left) / len(text)
        for number, letter in enumerate(text):
            start = left + number * pitch + 0.14 * pitch
            for stroke in _STROKES[letter]:
                points = [(start + 0.72 * pitch * x, top + (bottom - top) * y) for x, y in stroke]
                self.line(points, width, colour)


def _ring(sides: int, radius: float, turned: float, centre: Point = (0.5, 0.5)) -> list[Point]:
    """Return a regular polygon's corners, the first `turned` degrees clockwise from the top."""
    angles = [math.radians(turned + 360 * number / sides) for number in range(sides)]
    return [(centre[0] + radius * math.sin(angle), centre[1] - radius * math.cos(angle)) for angle in angles]


def _stop() -> Image.Image:
    pen = _Pen()
    pen.area(_ring(8, 0.5, 22.5), _WHITE)
    pen.area(_ring(8, 0.47, 22.5), _RED)
    pen.word("STOP", (0.1, 0.35, 0.9, 0.65), 0.05, _WHITE)
    return pen.image


def _yield() -> Image.Image:
    pen = _Pen()
    pen.area(_ring(3, 0.56, 180, (0.5, 0.4)), _RED)
    pen.area(_ring(3, 0.34, 180, (0.5, 0.4)), _WHITE)
    return pen.image


def _limit(number: str) -> Callable[[], Image.Image]:
    def draw() -> Image.Image:
        pen = _forbidden()
        narrow = len(number) > 2  # noqa: PLR2004 # three digits need the whole width
        pen.word(number, (0.17 if narrow else 0.2, 0.32, 0.83 if narrow else 0.8, 0.68), 0.065, _BLACK)
        return pen.image

    return draw


def _forbidden() -> _Pen:
    pen = _Pen()
    pen.disc(0.49, _RED)
    pen.disc(0.38, _WHITE)
    return pen


def _no_entry() -> Image.Image:
    pen = _Pen()
    pen.disc(0.49, _WHITE)
    pen.disc(0.47, _RED)
    pen.area([(0.17, 0.41), (0.83, 0.41), (0.83, 0.59), (0.17, 0.59)], _WHITE)
    return pen.image


def _no_overtaking() -> Image.Image:
    pen = _forbidden()
    for left, colour in ((0.2, _RED), (0.53, _BLACK)):
        pen.area([(left, 0.5), (left + 0.27, 0.5), (left + 0.27, 0.62), (left, 0.62)], colour)
        pen.area([(left + 0.06, 0.4), (left + 0.21, 0.4), (left + 0.25, 0.5), (left + 0.02, 0.5)], colour)
    return pen.image


def _end_of_limits() -> Image.Image:
    pen = _Pen()
    pen.disc(0.49, _BLACK)
    pen.disc(0.46, _WHITE)
    for shift in (-0.1, 0.0, 0.1):
        pen.line([(0.24 + shift, 0.76 + shift), (0.76 + shift, 0.24 + shift)], 0.035, _BLACK)
    return pen.image


def _priority_road() -> Image.Image:
    pen = _Pen()
    pen.area(_ring(4, 0.5, 0), _BLACK)
    pen.area(_ring(4, 0.48, 0), _WHITE)
    pen.area(_ring(4, 0.34, 0), _YELLOW)
    return pen.image


def _person(pen: _Pen, shift: float, scale: float) -> None:
    def at(x: float, y: float) -> Point:
        return 0.5 + shift + x * scale, 0.5 + y * scale

    pen.disc(0.055 * scale, _BLACK, at(0.02, -0.22))
    for bone in (
        [at(0.01, -0.13), at(0, 0.06)],
        [at(0, 0.06), at(0.09, 0.24)],
        [at(0, 0.06), at(-0.11, 0.24)],
        [at(0.01, -0.1), at(0.12, 0.02)],
        [at(0.01, -0.1), at(-0.1, 0.02)],
    ):
        pen.line(bone, 0.055 * scale, _BLACK)


def _pedestrian_crossing() -> Image.Image:
    pen = _square()
    pen.area(_ring(3, 0.42, 0, (0.5, 0.58)), _WHITE)
    _person(pen, 0.0, 0.85)
    for left in (0.27, 0.43, 0.59):
        pen.area([(left, 0.74), (left + 0.09, 0.74), (left + 0.07, 0.79), (left - 0.02, 0.79)], _BLACK)
    return pen.image


def _square() -> _Pen:
    pen = _Pen()
    pen.area([(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98)], _WHITE)
    pen.area([(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)], _BLUE)
    return pen


def _parking() -> Image.Image:
    pen = _square()
    pen.word("P", (0.22, 0.18, 0.82, 0.82), 0.12, _WHITE)
    return pen.image


def _warning() -> _Pen:
    pen = _Pen()
    pen.area(_ring(3, 0.56, 0, (0.5, 0.6)), _RED)
    pen.area(_ring(3, 0.36, 0, (0.5, 0.6)), _WHITE)
    return pen


def _danger() -> Image.Image:
    pen = _warning()
    pen.line([(0.5, 0.42), (0.5, 0.6)], 0.07, _BLACK)
    pen.disc(0.038, _BLACK, (0.5, 0.7))
    return pen.image


def _crossroads() -> Image.Image:
    pen = _warning()
    pen.line([(0.4, 0.5), (0.6, 0.72)], 0.06, _BLACK)
    pen.line([(0.6, 0.5), (0.4, 0.72)], 0.06, _BLACK)
    return pen.image


def _arrow(shaft: Sequence[Point], head: Sequence[Point]) -> Callable[[], Image.Image]:
    def draw() -> Image.Image:
        pen = _Pen()
        pen.disc(0.49, _WHITE)
        pen.disc(0.47, _BLUE)
        pen.line(shaft, 0.11, _WHITE)
        pen.area(head, _WHITE)
        return pen.image

    return draw


def _roundabout() -> Image.Image:
    pen = _Pen()
    pen.disc(0.49, _WHITE)
    pen.disc(0.47, _BLUE)
    for start in (10, 130, 250):
        arc = [_ring(1, 0.26, start + 7 * step)[0] for step in range(11)]
        pen.line(arc, 0.075, _WHITE)
        pen.area([_ring(1, 0.38, start + 72)[0], _ring(1, 0.14, start + 72)[0], _ring(1, 0.27, start + 105)[0]], _WHITE)
    return pen.image


TEMPLATES: Final[Mapping[str, Callable[[], Image.Image]]] = {
    "stop": _stop,
    "yield": _yield,
    "speed_limit_30": _limit("30"),
    "speed_limit_50": _limit("50"),
    "speed_limit_80": _limit("80"),
    "speed_limit_120": _limit("120"),
    "no_entry": _no_entry,
    "no_overtaking": _no_overtaking,
    "end_of_limits": _end_of_limits,
    "priority_road": _priority_road,
    "pedestrian_crossing": _pedestrian_crossing,
    "parking": _parking,
    "danger": _danger,
    "crossroads": _crossroads,
    "ahead_only": _arrow([(0.5, 0.8), (0.5, 0.42)], [(0.26, 0.46), (0.74, 0.46), (0.5, 0.14)]),
    "turn_right": _arrow([(0.3, 0.78), (0.3, 0.5), (0.56, 0.5)], [(0.54, 0.27), (0.54, 0.73), (0.86, 0.5)]),
    "roundabout": _roundabout,
}
"""Label to the drawing of its sign; the order is the order of the model's classes."""
