"""Pages for people open off-line: one file, no script, no link to anywhere else. Pure."""

from collections.abc import Sequence
from html import escape
from itertools import zip_longest

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{margin:.3rem 0}
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top;
border-bottom:1px solid #d9dee3}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
code{background:#f1f3f5;padding:.1rem .3rem;overflow-wrap:anywhere}.good{color:#137333}.bad{color:#b3261e}
.faint{color:#5f6b76}svg text{font:12px system-ui,sans-serif;fill:#1b1f24}
"""

_BAR_WIDTH, _BAR_HEIGHT, _LABEL_WIDTH, _VALUE_WIDTH = 420, 22, 220, 120


def page(title: str, body: Sequence[str]) -> str:
    """Return a whole HTML document; `body` holds HTML that is already escaped."""
    parts = "\n".join(body)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n{parts}\n</body></html>\n"
    )


def section(title: str, *body: str) -> str:
    """Return a heading and what stands under it."""
    return "\n".join([f"<h2>{escape(title)}</h2>", *body])


def paragraph(text: str, *, kind: str = "") -> str:
    """Return a paragraph of plain text; `kind` is "", "good", "bad" or "faint"."""
    return f'<p class="{kind}">{escape(text)}</p>'


def code(text: str) -> str:
    """Return a line that a reader copies."""
    return f"<p><code>{escape(text)}</code></p>"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; numbers stand right, below their head, with thin thousands."""
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in rows[0]] if rows else []
    heads = "".join(
        f'<th class="{"n" if number else ""}">{escape(name)}</th>'
        for name, number in zip_longest(head, numbers[: len(head)])
    )
    lines = "\n".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>\n{lines}\n</tbody></table>"


def bars(values: Sequence[tuple[str, float, str]]) -> str:
    """Return horizontal bars as SVG: name, length (0 or more, any unit), and the text at the end of the bar."""
    longest = max((length for _, length, _ in values), default=0) or 1
    height, width = _BAR_HEIGHT * len(values), _LABEL_WIDTH + _BAR_WIDTH + _VALUE_WIDTH
    lines = [f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">']
    for number, (name, length, text) in enumerate(values):
        top, wide = number * _BAR_HEIGHT, max(1.0 if length else 0.0, _BAR_WIDTH * length / longest)
        lines += [
            f'<text x="{_LABEL_WIDTH - 8}" y="{top + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LABEL_WIDTH}" y="{top + 3}" width="{wide:.1f}" height="{_BAR_HEIGHT - 6}" fill="#3b7dd8"/>',
            f'<text x="{_LABEL_WIDTH + wide + 6:.1f}" y="{top + 15}">{escape(text)}</text>',
        ]
    return "\n".join([*lines, "</svg>"])


def count(number: float) -> str:
    """Return a whole number with thin thousands, or any other with two digits after its point."""
    text = f"{number:,}" if isinstance(number, int) else f"{number:,.2f}"
    return text.replace(",", "\N{NARROW NO-BREAK SPACE}")


def _cell(value: object) -> str:
    match value:
        case bool():
            return f'<td class="{"good" if value else "bad"}">{"yes" if value else "no"}</td>'
        case int() | float():
            return f'<td class="n">{count(value)}</td>'
        case _:
            return f"<td>{escape(str(value))}</td>"
