"""The day's page for people: which level serves and why, were the promises kept, and for whom. Pure."""

from datetime import date
from typing import Final

from fleetbatch import pages
from fleetbatch.units import CellName
from fleetbatch.windows.state import Tuned

EVICTED_MAX: Final = 0.07
"""No stratum of any size should lose more of its bookings."""
BOOKINGS_MIN: Final = 100
"""Fewer say nothing."""
_LEVELS: Final = {"L1": "L1, each car's habits", "L2": "L2, the model"}
_SIDE, _EDGE = 200, 56
_TICKS: Final = (0.0, 0.5, 1.0)


def day_page(cell: CellName, day: date, tuned: Tuned) -> str:
    """Return the page as HTML that opens off-line."""
    model = f"model {tuned.model_sha256[:12]}" if tuned.model_sha256 else "no model"
    head = [
        pages.paragraph("How long each car that plugs in here will stay, and whether the forecasts of it were right."),
        pages.paragraph(f"{tuned.level} serves: {tuned.reason}.", kind="good" if tuned.level == "L2" else "bad"),
        *([pages.paragraph(f"Shadow: {tuned.shadow}.")] if tuned.shadow else []),
        pages.paragraph(f"Judged at {tuned.tuned_at[:16].replace('T', ' ')} UTC, {model}.", kind="faint"),
    ]
    return pages.page(f"Idle windows of {cell}, {day}", [*head, _worth(tuned), _reliability(tuned), _strata(tuned)])


def _worth(tuned: Tuned) -> str:
    head = ["level", "forecasts", "Brier score, mean of 0-12 h", "calibration error at 8 h", "booked, %", "evicted, %"]
    rows = [
        (
            _LEVELS[level] + (" (serves)" if level == tuned.level else ""),
            f.forecasts,
            f"{f.integrated_brier:.4f}",
            f"{f.calibration_error_8h:.4f}",
            100 * f.booked,
            100 * f.evicted,
        )
        for level, f in sorted(tuned.figures.items())
    ]
    how = (
        "Hourly forecasts of the last judged days, 12 hours old or older. Scores: lower is better. A booking promises "
        "that a car stays so long. Booked: their share of the hours that somebody who knew every departure could have "
        "booked. Evicted: the share of bookings whose car left before their end."
    )
    return pages.section("What forecasts were worth", pages.table(head, rows), pages.paragraph(how, kind="faint"))


def _reliability(tuned: Tuned) -> str:
    how = "Each dot is a fifteenth of the forecasts. On the line, of a hundred cars given 80 %, eighty stayed."
    diagrams = "\n".join(_diagram(f"{hours} h", points) for hours, points in tuned.reliability.items())
    shown = diagrams or pages.paragraph("No forecast has been judged yet.")
    return pages.section("Did forecasts mean what they said?", pages.paragraph(how, kind="faint"), shown)


def _strata(tuned: Tuned) -> str:
    over = [s for s in tuned.strata if s.bookings >= BOOKINGS_MIN and s.evicted > EVICTED_MAX]
    word = f"No stratum of {BOOKINGS_MIN} bookings or more lost over {EVICTED_MAX:.0%} of them."
    if over:
        word = f"Over {EVICTED_MAX:.0%} evicted: " + ", ".join(f"{s.name} ({s.evicted:.1%})" for s in over) + "."
    head = ["stratum", "forecasts", "bookings", "booked, %", "evicted, %"]
    rows = [(s.name, s.forecasts, s.bookings, 100 * s.booked, 100 * s.evicted) for s in tuned.strata]
    return pages.section(
        "Booked hours by stratum",
        pages.paragraph(word, kind="bad" if over else "good"),
        pages.bars([(s.name, s.booked, f"{s.booked:.0%}") for s in tuned.strata]),
        pages.table(head, rows),
    )


def _diagram(title: str, points: list[tuple[float, float, int]]) -> str:
    """Return a reliability diagram: on the diagonal a forecast means what it says."""
    size = _SIDE + 2 * _EDGE

    def x(share: float) -> float:
        return _EDGE + share * _SIDE

    def y(share: float) -> float:
        return _EDGE + (1 - share) * _SIDE

    middle = y(0.5)
    return "\n".join(
        [
            f'<svg viewBox="0 0 {size} {size}" width="{size}" height="{size}" role="img">',
            f'<text x="{x(0.5)}" y="{_EDGE - 14}" text-anchor="middle">stays {title} or more</text>',
            f'<rect x="{_EDGE}" y="{_EDGE}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#d9dee3"/>',
            f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}" stroke="#aab4be"/>',
            *(f'<text x="{x(t)}" y="{y(0) + 16}" text-anchor="middle">{t:.0%}</text>' for t in _TICKS),
            *(f'<text x="{x(0) - 6}" y="{y(t) + 4}" text-anchor="end">{t:.0%}</text>' for t in _TICKS[1:]),
            *(f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="4" fill="#3b7dd8"/>' for a, b, _ in points),
            f'<text x="{x(0.5)}" y="{size - 8}" text-anchor="middle">forecast</text>',
            f'<text x="10" y="{middle}" text-anchor="middle" transform="rotate(-90 10 {middle})">stayed</text>',
            "</svg>",
        ]
    )
