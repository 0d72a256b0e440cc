"""Lines over the hours of a night as SVG, for a page that opens off-line. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 760
HEIGHT: Final = 240
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 12, 30
COLOURS: Final = ("#3b7dd8", "#d9822b", "#137333", "#b3261e")
HOUR_S: Final = 3600.0
EARLY: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A named line; `at_s` and `values` are of one length."""

    name: str
    at_s: Sequence[float]
    values: Sequence[float]
    dashed: bool = False


def over_the_night(lines: Sequence[Line], *, unit: str) -> str:
    """Return lines over the hours of a night, from 0 upwards; names stand at their ends, as far apart as they need."""
    last = max((at for line in lines for at in line.at_s), default=1.0) or 1.0
    top = max((value for line in lines for value in line.values), default=1.0) or 1.0
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">',
        *_axes(last, top, unit),
    ]
    ends = sorted(((_y(line.values[-1], top), place) for place, line in enumerate(lines) if len(line.values)))
    heights, below = dict[int, float](), -14.0
    for height, place in ends:
        below = max(height, below + 14.0)
        heights[place] = below
    for place, line in enumerate(lines):
        colour = COLOURS[place % len(COLOURS)]
        points = " ".join(
            f"{_x(at, last):.1f},{_y(value, top):.1f}" for at, value in zip(line.at_s, line.values, strict=True)
        )
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        if place in heights:
            x, y = WIDTH - RIGHT + 6, heights[place] + 4
            parts.append(f'<text x="{x}" y="{y:.1f}" style="fill:{colour}">{escape(line.name)}</text>')
    return "\n".join([*parts, "</svg>"])


def _axes(last: float, top: float, unit: str) -> list[str]:
    hours = int(last / HOUR_S + EARLY)
    bottom = HEIGHT - BOTTOM
    rows = [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_y(top * share, top):.1f}" y2="{_y(top * share, top):.1f}" '
        f'stroke="#d9dee3"/><text x="{LEFT - 8}" y="{_y(top * share, top) + 4:.1f}" text-anchor="end">'
        f"{_short(top * share)}</text>"
        for share in (0.0, 0.5, 1.0)
    ]
    columns = [
        f'<text x="{_x(hour * HOUR_S, last):.1f}" y="{bottom + 18}" text-anchor="middle">{hour} h</text>'
        for hour in range(0, hours + 1, max(1, hours // 8))
    ]
    return [*rows, *columns, f'<text x="0" y="{HEIGHT - 12}">{escape(unit)}</text>']


def _x(at_s: float, last: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * at_s / last


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"
