"""The page that a person opens in the morning; it needs no network and no script."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from fleetbatch import layout, pages
from fleetbatch.nouns import OrderKey
from fleetbatch.report.tally import Tally
from fleetbatch.store import Store

_BALANCE = {"rows in": "rows_in", "answered": "rows_out", "dead letters": "dead_letter_rows", "missing": "missing_rows"}
_WALK = {
    "shards": "shards",
    "leases": "leases",
    "cars that worked": "cars",
    "parts delivered": "parts",
    "shards finished by another car, where the first one stopped": "resumed_shards",
    "leases given back (unplugged, driving, ...)": "released",
    "leases that ran out": "expired",
    "leases taken back (consent, cancelled, ...)": "revoked",
    "shards to which trusted machines contributed": "cloud_shards",
    "rows computed again": "audited_rows",
    "rows that disagreed": "disagreements",
    "leases whose work was refused": "refused",
    "task instances in Airflow": "task_instances",
}

_AS_GOOD_AS_NONE_WH: Final = 0.005
"""Rounds to nothing."""


def write_report(
    store: Store, key: OrderKey, summary: Mapping[str, Any], tally: Tally, opening: Mapping[str, str]
) -> str:
    """Write a night's page beside its files and return its key; `opening` is a line for each reader of the table."""
    name = layout.report(key)
    store.write(name, report_page(summary, tally, opening).encode())
    return name


def report_page(summary: Mapping[str, Any], tally: Tally, opening: Mapping[str, str]) -> str:
    """Return the page. Pure."""
    missing, rows_in = summary["missing_rows"], summary["rows_in"]
    word = "Complete: every row is accounted for."
    if missing:
        word = f"Partial: {pages.count(missing)} of {pages.count(rows_in)} rows are missing."
    head = f"Order {summary['order']}, generation {summary['generation']}, workload {summary['workload']}."
    body = [
        pages.paragraph(head),
        pages.paragraph(word, kind="bad" if missing else "good"),
        pages.paragraph(_times(summary), kind="faint"),
        _balance(summary),
        _reasons("Missing rows and why", tally.missing, "nothing is missing"),
        _reasons("Dead letters and why", tally.dead_letters, "every row could be read"),
        _classes(tally),
        _walk(summary),
        _energy(summary, tally),
        _answers(tally),
        _table(summary, opening),
    ]
    return pages.page(f"Night of {summary['night']}", body)


def _times(summary: Mapping[str, Any]) -> str:
    frozen, deadline = (datetime.fromisoformat(summary[name]) for name in ("frozen_at", "deadline_at"))
    return (
        f"Frozen on {frozen:%Y-%m-%d at %H:%M} UTC, with a deadline on {deadline:%Y-%m-%d at %H:%M} UTC; "
        f"this page was written {pages.count(round(summary['seconds']))} seconds after the freezing."
    )


def _balance(summary: Mapping[str, Any]) -> str:
    values = [(name, float(summary[key]), pages.count(summary[key])) for name, key in _BALANCE.items()]
    return pages.section("What came in and what came out", pages.bars(values))


def _reasons(title: str, reasons: tuple[tuple[str, int], ...], none: str) -> str:
    if not reasons:
        return pages.section(title, pages.paragraph(none, kind="faint"))
    return pages.section(title, pages.table(("reason", "rows"), reasons))


def _classes(tally: Tally) -> str:
    rows = [
        (one.name, one.provider, one.rows, "not measured" if one.rows_per_s is None else one.rows_per_s, one.energy_wh)
        for one in tally.classes
    ]
    shares = [(one.name, float(one.rows), f"{pages.count(one.rows)} answers") for one in tally.classes]
    head = ("class", "provider", "answers", "rows a second, one car", "Wh")
    return pages.section("Who computed it", pages.bars(shares), pages.table(head, rows))


def _walk(summary: Mapping[str, Any]) -> str:
    rows = [(name, summary[key]) for name, key in _WALK.items() if key in summary]
    return pages.section("How the night went", pages.table(("", ""), rows))


def _energy(summary: Mapping[str, Any], tally: Tally) -> str:
    answered = summary["rows_out"] + summary["dead_letter_rows"]
    rows: list[tuple[str, object]] = [
        ("drawn by all leases, Wh", float(summary.get("energy_wh", tally.energy_wh))),
        ("of it for work that did not count, Wh", float(summary.get("wasted_wh", 0.0))),
        ("for a thousand rows, Wh", 1000 * tally.energy_wh / answered if answered else 0.0),
    ]
    how = pages.paragraph(_how_known(tally), kind="faint")
    return pages.section("Energy", how, pages.table(("", ""), rows))


def _how_known(tally: Tally) -> str:
    estimated_wh = tally.energy_wh - tally.measured_wh
    estimate = "estimated from each car's rated power and the seconds that it computed"
    if not tally.measured_wh:
        return f"{estimate.capitalize()}."
    if estimated_wh < _AS_GOOD_AS_NONE_WH:
        return "Measured by the cars."
    measured, rest = pages.count(tally.measured_wh), pages.count(estimated_wh)
    return f"Of what counts, {measured} Wh were measured by the cars and {rest} Wh are {estimate}."


def _answers(tally: Tally) -> str:
    body = (
        [pages.bars([(label, float(rows), pages.count(rows)) for label, rows in tally.labels])] if tally.labels else []
    )
    body.insert(0, pages.paragraph(f"The table has {pages.count(tally.answers)} rows.", kind="faint"))
    if tally.accuracy is not None:
        share = (
            f"{100 * tally.accuracy:.2f} % of the {pages.count(tally.labelled_rows)} answers whose label is known "
            "are right."
        )
        body.insert(0, pages.paragraph(share))
    if tally.numbers:
        rows = [(one.column, one.known, one.least, one.mean, one.most) for one in tally.numbers if not one.yes_or_no]
        body += [pages.table(("column", "answers", "least", "mean", "most"), rows)] if rows else []
        shares = [(one.column, one.known, f"{100 * one.mean:.1f} %") for one in tally.numbers if one.yes_or_no]
        body += [pages.table(("column", "answers", "yes"), shares)] if shares else []
    return pages.section("Answers", *body)


def _table(summary: Mapping[str, Any], opening: Mapping[str, str]) -> str:
    where = pages.paragraph(f"Version {summary['table_version']} of {summary['table']}")
    return pages.section(
        "Where it is", where, *(pages.paragraph(name) + pages.code(line) for name, line in opening.items())
    )
