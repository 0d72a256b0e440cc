"""The day's page for people: which level serves and why, were the promises kept, and for whom. Pure."""

from datetime import date

from fleetbatch import pages
from fleetbatch.units import CellName
from fleetbatch.windows.state import Tuned

_SIDE, _EDGE = 320, 40


def day_page(cell: CellName, day: date, tuned: Tuned) -> str:
    """Return the page as HTML that opens off-line."""
    kind = "good" if tuned.level == "L2" else "bad"
    levels = [
        (
            level,
            f.forecasts,
            f"{f.integrated_brier:.4f}",
            f"{f.calibration_error_8h:.4f}",
            f"{f.booked:.1%}",
            f"{f.evicted:.1%}",
        )
        for level, f in sorted(tuned.figures.items())
    ]
    strata = [(s.name, s.forecasts, f"{s.booked:.1%}", f"{s.evicted:.1%}") for s in tuned.strata]
    return pages.page(
        f"Idle windows of {cell}, {day}",
        [
            pages.paragraph(f"{tuned.level} serves: {tuned.reason}.", kind=kind),
            pages.paragraph(f"Tuned at {tuned.tuned_at}; model {tuned.model_sha256[:12] or 'none'}.", kind="faint"),
            pages.section(
                "What forecasts were worth over the judged days",
                pages.table(
                    ["level", "forecasts", "integrated Brier", "calibration error 8 h", "booked", "evicted"], levels
                ),
                pages.paragraph("Booked: share of the hours that an oracle would have used.", kind="faint"),
            ),
            pages.section(
                "Will it stay 8 hours? Forecast against what happened",
                _curve(tuned.reliability_8h),
                pages.table(
                    ["forecast", "stayed", "forecasts"],
                    [(f"{said:.3f}", f"{stayed:.3f}", count) for said, stayed, count in tuned.reliability_8h],
                ),
            ),
            pages.section(
                "Booked hours by stratum",
                pages.table(["stratum", "forecasts", "booked", "evicted"], strata),
                pages.bars([(s.name, s.booked, f"{s.booked:.0%}") for s in tuned.strata]),
            ),
        ],
    )


def _curve(points: list[tuple[float, float, int]]) -> str:
    """Return a reliability diagram: on the diagonal a forecast means what it says."""
    size = _SIDE + 2 * _EDGE

    def x(share: float) -> float:
        return _EDGE + share * _SIDE

    def y(share: float) -> float:
        return _EDGE + (1 - share) * _SIDE

    dots = [f'<circle cx="{x(said):.1f}" cy="{y(stayed):.1f}" r="4" fill="#3b7dd8"/>' for said, stayed, _ in points]
    return "\n".join(
        [
            f'<svg viewBox="0 0 {size} {size}" width="{size}" height="{size}" role="img">',
            f'<rect x="{_EDGE}" y="{_EDGE}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#d9dee3"/>',
            f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}" stroke="#d9dee3"/>',
            *dots,
            f'<text x="{x(0.5)}" y="{size - 12}" text-anchor="middle">forecast</text>',
            f'<text x="14" y="{y(0.5)}" text-anchor="middle" transform="rotate(-90 14 {y(0.5)})">stayed</text>',
            "</svg>",
        ]
    )
