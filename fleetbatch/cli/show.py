"""How results look on a terminal; JSON goes to stdout alone, so that it can be piped."""

import json as json_format
import textwrap
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_READERS: Final = {"polars": "polars (Python)", "duckdb": "DuckDB (SQL)", "spark": "Spark (Python)"}
_TITLE_WIDTH: Final = 10
_NARROWEST: Final = 20
_AS_GOOD_AS_ALL: Final = 0.9999


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object."""
    print(json_format.dumps(value, default=str, indent=2))  # noqa: T201 # the command's output


def print_facts(facts: Mapping[str, Any], *, json: bool) -> None:
    """Print names and values, as text or as JSON."""
    if json:
        print_json(facts)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, escape(str(value)))
    Console(highlight=False).print(table)


def print_scores(scores: pa.Table) -> None:
    """Print a table of numbers, a column for each of its rows: there are few models and many scores."""
    first, *others = scores.column_names
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in scores[first].to_pylist():
        table.add_column(str(name), justify="right", overflow="fold")
    for other in others:
        values = scores[other].to_pylist()
        table.add_row(other, *(f"{value:.3f}" if isinstance(value, float) else str(value) for value in values))
    Console(highlight=False).print(table)


def print_rows(rows: pa.Table, title: str) -> None:
    """Print a table as it is, under a title."""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    first, *others = rows.column_names
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    for row in rows.to_pylist():
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else escape(str(value)) for value in row.values()))
    Console(highlight=False).print(table)


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print what came in, what came out, what is missing and why, and how to open the table."""
    console = Console(highlight=False)
    if summary.get("no_op"):
        console.print(
            f"Night {summary['night']} of {summary['order']} is published already, generation {summary['generation']}. "
            "Nothing was computed; --force computes it anew.\n"
        )
    for title, text in _lines(summary):
        for number, line in enumerate(_wrapped(text, console)):
            head = title if number == 0 else ""
            console.print(Text.assemble((f"{head:{_TITLE_WIDTH}}", "bold"), line), soft_wrap=True)
    print_opening(summary["open"], console)


def _wrapped(text: str, console: Console) -> list[str]:
    """Break between words where a terminal ends, but never a path."""
    if not console.is_terminal:
        return [text]
    width = max(_NARROWEST, console.width - _TITLE_WIDTH)
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def print_opening(lines: Mapping[str, str], console: Console) -> None:
    """Print a line for each reader, unbroken, so that it can be copied."""
    console.print("\nOpen it")
    for reader, line in lines.items():
        console.print(f"[bold]{_READERS.get(reader, reader)}[/bold]", soft_wrap=True)
        console.print(f"  {line}", soft_wrap=True, markup=False)


def _lines(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    s = summary
    lines = [
        ("night", f"{s['night']}, order {s['order']}, generation {s['generation']}, workload {s['workload']}"),
        ("came in", f"{s['rows_in']:,} rows in {s['shards']:,} shards"),
        (
            "came out",
            f"{s['rows_out']:,} rows answered, {s['dead_letter_rows']:,} dead letters (kept, with their error)",
        ),
        ("missing", _missing(s)),
        (
            "leases",
            f"{s['leases']:,}; another car finished {s['resumed_shards']:,} shards from where the first one stopped",
        ),
        ("audited", f"{s['audited_rows']:,} rows computed again on trusted machines, {s['disagreements']:,} disagreed"),
    ]
    if s.get("accuracy") is not None:
        lines.append(("accuracy", f"{100 * s['accuracy']:.2f} % of the answers are right (their labels are known)"))
    if s.get("energy_wh") is not None:
        wasted = (
            f", {s['wasted_wh']:.3f} Wh of it for work that did not count" if round(s.get("wasted_wh", 0.0), 3) else ""
        )
        lines.append(("energy", f"{s['energy_wh']:.3f} Wh drawn by the cars to compute, {_how_known(s)}{wasted}"))
    lines.append(("table", f"{s['table']}  version {s['table_version']}"))
    if s.get("report"):
        lines.append(("report", f"{s['report']}  (open it in a browser)"))
    took = "it took" if s.get("no_op") else "took"
    lines.append((took, f"{s['seconds']:.0f} s, {s['task_instances']} task instances in Airflow"))
    return lines


def _how_known(summary: Mapping[str, Any]) -> str:
    """Return in words how much of the energy that counts was measured."""
    measured = summary.get("measured_wh", 0.0) / (summary.get("counted_wh") or 1.0)
    if not measured:
        return "estimated"
    return "measured" if measured > _AS_GOOD_AS_ALL else f"{100 * measured:.0f} % of it measured"


def _missing(summary: Mapping[str, Any]) -> str:
    if not summary["missing_rows"]:
        return "nothing"
    reasons = summary.get("missing_reasons") or {}
    why = "; ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    return f"{summary['missing_rows']:,} rows, named in missing_rows" + (f": {why}" if why else "")
