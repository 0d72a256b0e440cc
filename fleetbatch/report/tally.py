"""The numbers of a night, counted from the very files that were published."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import polars as pl
import pyarrow as pa

from fleetbatch import layout
from fleetbatch.contracts import Contract, answer_columns, contract
from fleetbatch.nouns import FrozenOrder, Merged
from fleetbatch.store import Store
from fleetbatch.workloads import workload

_MOST: Final = 10
_DRAWN: Final = "road-signs://"
"""The source_uri of a drawn picture ends with `#` and its true label."""
_HOW_MUCH: Final = r" \(\d+ bytes not processed\)$"
"""Says how much of a broken file is left: of a row's interest, not of a reason's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTally:
    """What one hardware class did, by what its parts measured."""

    name: str
    provider: str
    rows: int
    energy_wh: float
    rows_per_s: float | None
    """Of one car of the class; None when nothing was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What one column of numbers holds; of yes and no, the mean is the share of yes."""

    yes_or_no: bool

    column: str
    known: int
    """Answers in which it is not null."""
    least: float
    mean: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What stands in the results of one night."""

    classes: tuple[ClassTally, ...]
    labels: tuple[tuple[str, int], ...]
    """The most frequent values of the headline column; empty where the workload has none."""
    numbers: tuple[Numbers, ...]
    """Of the workload's own columns, in the contract's order."""
    dead_letters: tuple[tuple[str, int], ...]
    """The most frequent errors, and last how many others there are, so that the rows are all that are dead."""
    missing: tuple[tuple[str, int], ...]
    """Likewise the reasons of rows that are missing."""
    audit_states: tuple[tuple[str, int], ...]
    energy_wh: float
    """Of the rows that count."""
    measured_wh: float
    """The part of it that was measured; the rest is estimated."""
    answers: int
    """Rows of the table; an item may have several."""
    labelled_rows: int
    """Answered rows whose true label is known."""
    right_rows: int

    @property
    def accuracy(self) -> float | None:
        """Return the share of right answers; None when no label is known."""
        return self.right_rows / self.labelled_rows if self.labelled_rows else None


def _results(store: Store, merged: Merged, of: Contract) -> pl.LazyFrame:
    if not merged.files:
        return pl.LazyFrame(pl.from_arrow(of.schema.empty_table()))
    return pl.scan_parquet([store.uri(file.key) for file in merged.files], storage_options=store.storage_options())


def tally_night(store: Store, order: FrozenOrder, merged: Merged, rates: pa.Table) -> Tally:
    """Count a night's results, streaming.

    `rates` are the ledgers': workload, hardware_class, provider, rows, busy_s.
    """
    of = contract(workload(order.order.workload).results_contract)
    rows = _results(store, merged, of)
    missing = pl.scan_parquet(store.uri(layout.missing(order.key)), storage_options=store.storage_options())
    found = pl.collect_all(_questions(of, rows, missing), engine="streaming")
    speeds = _speeds(rates, order.order.workload)
    by_class = tuple(
        ClassTally(name=name, provider=how, rows=count, energy_wh=energy, rows_per_s=speeds.get((name, how)))
        for name, how, count, energy in found[0].rows()
    )
    labelled, right_rows = found[5].row(0)
    return Tally(
        classes=by_class,
        labels=tuple(found[1].rows()) if of.headline else (),
        numbers=tuple(_numbers(of, found[6])),
        dead_letters=tuple(found[2].rows()),
        missing=tuple(found[3].rows()),
        audit_states=tuple(found[4].rows()),
        energy_wh=sum(one.energy_wh for one in by_class),
        measured_wh=found[7].item(),
        answers=sum(one.rows for one in by_class),
        labelled_rows=labelled,
        right_rows=right_rows or 0,
    )


def _questions(of: Contract, rows: pl.LazyFrame, missing: pl.LazyFrame) -> list[pl.LazyFrame]:
    """Return what is asked of the results, in the order in which `tally_night` reads the answers."""
    headline, _, field = (of.headline or "error").partition(".")  # without a headline nothing is counted
    drawn = rows.filter(pl.col(headline).is_not_null() & pl.col("source_uri").str.starts_with(_DRAWN))
    label = pl.lit(None) if field else pl.col(headline)  # a drawn picture has one
    right = label == pl.col("source_uri").str.split("#").list.last()
    energy_wh = pl.col("energy_wh").cast(pl.Float64).sum()
    return [
        rows.group_by("car_class", "provider").agg(pl.len(), energy_wh).sort("car_class", "provider"),
        _counted(_each(rows, headline, field), headline).head(_MOST),
        _reasons(rows.with_columns(pl.col("error").str.replace(_HOW_MUCH, "")), "error"),
        _reasons(missing, "reason"),
        _counted(rows, "audit_state"),
        drawn.select(pl.len(), right.sum().alias("right")),
        rows.select(_sums(of)),
        rows.filter(pl.col("energy_source") == "measured").select(energy_wh),
    ]


def summarise(
    order: FrozenOrder, merged: Merged, tally: Tally, stats: Mapping[str, float], told: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a night's summary, as it is kept, printed and shown. Pure.

    `stats` is the ledgers' `NightStats`, summed over the cells; `told` is what only the caller knows: task_instances,
    seconds, table, table_version.
    """
    return {
        **stats,
        "key": str(order.key),
        "night": order.key.night,
        "order": order.key.order,
        "generation": order.key.generation,
        "workload": order.order.workload,
        "frozen_at": order.frozen_at.isoformat(),
        "deadline_at": order.deadline_at.isoformat(),
        "model_sha256": order.model_sha256,
        "state": "partial" if merged.missing_rows else "complete",
        "rows_in": merged.rows_in,
        "rows_out": merged.rows_out,
        "dead_letter_rows": merged.dead_letter_rows,
        "missing_rows": merged.missing_rows,
        "shards": merged.shards,
        "missing_reasons": dict(tally.missing),
        "dead_letters": dict(tally.dead_letters),
        "headline": dict(tally.labels),
        "numbers": {one.column: {"least": one.least, "mean": one.mean, "most": one.most} for one in tally.numbers},
        "classes": [asdict(one) for one in tally.classes],
        "audit_states": dict(tally.audit_states),
        "counted_wh": tally.energy_wh,
        "measured_wh": tally.measured_wh,
        "answers": tally.answers,
        "accuracy": tally.accuracy,
        "labelled_rows": tally.labelled_rows,
        "right_rows": tally.right_rows,
        **told,
    }


def _counted(rows: pl.LazyFrame, column: str) -> pl.LazyFrame:
    """Return how often each value of a column is there, the most frequent first."""
    counted = rows.filter(pl.col(column).is_not_null()).group_by(column).len()
    return counted.sort(["len", column], descending=[True, False])


def _reasons(rows: pl.LazyFrame, column: str) -> pl.LazyFrame:
    """Return the most frequent reasons and, in a last row, how many others there are and how often."""
    counted = _counted(rows, column).with_columns(pl.col("len").cast(pl.Int64))
    others = counted.slice(_MOST).select(pl.format("{} other reasons", pl.len()).alias(column), pl.col("len").sum())
    return pl.concat([counted.head(_MOST), others.filter(pl.col("len") > 0)])


def _each(rows: pl.LazyFrame, column: str, field: str) -> pl.LazyFrame:
    """Return a column's values or, with a field, that field of every struct in its lists."""
    return rows.select(pl.col(column).explode().struct.field(field).alias(column)) if field else rows.select(column)


def _number_columns(of: Contract) -> list[str]:
    kinds = {name: of.schema.field(name).type for name in answer_columns(of)}
    return [n for n, k in kinds.items() if pa.types.is_floating(k) or pa.types.is_integer(k) or pa.types.is_boolean(k)]


def _sums(of: Contract) -> list[pl.Expr]:
    """Return how many values a column of numbers has, the least, the mean and the most; a row for all columns."""
    columns = {name: pl.col(name).cast(pl.Float64) for name in _number_columns(of)}
    return [
        value.alias(f"{name} {which}")
        for name, c in columns.items()
        for which, value in enumerate((c.count(), c.min(), c.mean(), c.max()))
    ] or [pl.len()]


def _numbers(of: Contract, sums: pl.DataFrame) -> Iterator[Numbers]:
    row = sums.row(0, named=True)
    for name in _number_columns(of):
        known, least, mean, most = (row[f"{name} {which}"] for which in range(4))
        if known:
            yes_or_no = pa.types.is_boolean(of.schema.field(name).type)
            yield Numbers(column=name, known=known, least=least, mean=mean, most=most, yes_or_no=yes_or_no)


def _speeds(rates: pa.Table, workload: str) -> dict[tuple[str, str], float]:
    """Return rows a second by class and provider, over all cells."""
    sums: dict[tuple[str, str], tuple[float, float]] = {}
    for row in rates.to_pylist():
        if row["workload"] == workload:
            rows, busy_s = sums.get((row["hardware_class"], row["provider"]), (0.0, 0.0))
            sums[row["hardware_class"], row["provider"]] = (rows + row["rows"], busy_s + row["busy_s"])
    return {which: rows / busy_s for which, (rows, busy_s) in sums.items() if busy_s}
