"""Rows in, answers out, whatever the workload: no item is left out, and a row that breaks its workload is dead."""

import signal
from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch.contracts import Contract, conform, contract
from fleetbatch.errors import FleetbatchError, RejectedError, in_one_line
from fleetbatch.workloads.bounds import Bounds, beyond, short, too_heavy, unsound
from fleetbatch.workloads.protocol import Answer, Workload

FAULTS: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})
"""Signals by which a process ends through what it computed."""
ROWS_AT_ONCE: Final = 16
"""Rows that a workload is asked for at once: so many can be to blame for a hang until they are tried one by one."""
_SLOWER: Final = 8
"""So many times longer than the last ones rows asked for at once may take, since they share the limit of one."""
_REASON_CHARACTERS: Final = 200
_WORDLESS: Final = "the workload gave an error without a word; the error of an answer is null"
_BOUNDS: Final = Bounds()


def answer_rows(kind: Workload, answer: Answer, rows: pa.Table, *, row_group: int) -> pa.Table:
    """Return the answers of rows of contract `shard` by the workload's contract, in the order of the rows.

    Rows that were dead when they were cut stay dead; one that the workload cannot bear is dead with what it raised, and
    one whose answer is larger than an audit takes, or not one that the night's checks publish, with what is wrong.
    Raises RejectedError when the workload leaves an item out or doubles one: then its code is wrong.
    """
    asked, dead = _parted(rows)
    pieces = []
    if asked.num_rows:
        answers = _conformed(kind, _answered(kind, answer, asked), row_group)
        answers, other = _within_bounds(_errors_alone(answers, kind), contract(kind.results_contract))
        pieces = [answers] if other is None else [answers, _conformed(kind, other, row_group)]
    reasons = [error or "the row has no bytes" for error in dead["error"].to_pylist()]
    if dead.num_rows or not asked.num_rows:
        pieces.append(_conformed(kind, _dead(dead["item_id"], reasons), row_group))
    if len(pieces) == 1:
        return pieces[0]
    table = pa.concat_tables(pieces)
    place = pc.index_in(table["item_id"], value_set=rows["item_id"].combine_chunks())
    return table.take(pc.sort_indices(place))


def rows_at_once(row_s: float, limit_s: float) -> int:
    """Return how many rows a workload is asked for, when the last ones took so long each and one may take `limit_s`.

    Infinite seconds say that none is known yet.
    """
    together_s = limit_s / _SLOWER
    return ROWS_AT_ONCE if row_s * ROWS_AT_ONCE <= together_s else max(1, int(together_s / row_s))


def with_dead(rows: pa.Table, dead: Mapping[int, str]) -> pa.Table:
    """Return the rows with the reasons of the dead ones as their errors, so that nothing is computed of them."""
    if not dead:
        return rows
    errors = rows["error"].to_pylist()
    for row, why in dead.items():
        errors[row] = why
    return rows.set_column(rows.schema.get_field_index("error"), "error", pa.array(errors, pa.string()))


def why_ended(returncode: int) -> str:
    """Return how a worker's process ended when that may be the doing of the row it was at, else nothing."""
    if -returncode in FAULTS:
        return f"the worker died of {signal.Signals(-returncode).name} at this row"
    return f"the worker ended with {returncode} at this row" if returncode > 0 else ""


def _parted(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the rows that can be asked for, and the dead ones; a filter would copy the bytes of every row."""
    if rows["error"].null_count == rows.num_rows and not rows["bytes"].null_count:
        return rows, rows.slice(0, 0)
    alive = pc.and_(pc.is_null(rows["error"]), pc.is_valid(rows["bytes"]))
    return rows.filter(alive), rows.filter(pc.invert(alive))


def _answered(kind: Workload, answer: Answer, rows: pa.Table) -> pa.Table:
    """Ask for all rows at once and, when that breaks, for one after the other."""
    try:
        table = answer(rows)
        if isinstance(table, pa.Table):
            table.validate(full=True)  # texts that are none, which no reader of the part could take
    except FleetbatchError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 (a user's code raises whatever it raises)
        if rows.num_rows > 1:
            each = [_answered(kind, answer, rows.slice(number, 1)) for number in range(rows.num_rows)]
            return pa.concat_tables(each, promote_options="permissive")
        return _dead(rows["item_id"], [in_one_line(error)[:_REASON_CHARACTERS]])
    _refuse_incomplete(kind, table, rows)
    return table


def _dead(items: "pa.ChunkedArray[Any]", reasons: list[str]) -> pa.Table:
    return pa.table({"item_id": items, "error": pa.array([short(reason) for reason in reasons], pa.string())})


def _errors_alone(answers: pa.Table, kind: Workload) -> pa.Table:
    """Return the answers with every error in words, of which what is too long is left out, and nothing beside it."""
    if answers["error"].null_count == answers.num_rows:
        return answers
    errors = [None if error is None else short(error or _WORDLESS) for error in answers["error"].to_pylist()]
    kept = {"row_group", "error", *contract(kind.answers_contract).key}
    fine = answers["error"].is_null()
    columns = {
        name: column if name in kept else pc.if_else(fine, column, pa.scalar(None, column.type))
        for name, column in zip(answers.column_names, answers.columns, strict=True)
    }
    return pa.table(columns | {"error": pa.array(errors, pa.string())}, schema=answers.schema)


def _within_bounds(answers: pa.Table, of: Contract) -> tuple[pa.Table, pa.Table | None]:
    """Return the answers that audits and checks take, and of each item with another one, if any, why it is dead."""
    wrong = unsound(answers, of) | too_heavy(answers, _BOUNDS) | beyond(answers, _BOUNDS)
    items = answers["item_id"]
    why = {items[number].as_py(): reason for number, reason in wrong.items()}
    if len(of.key) > 1 and answers.num_rows > _BOUNDS.item_answers:
        for item, count in Counter(items.to_pylist()).items():
            if count > _BOUNDS.item_answers:
                why.setdefault(item, f"it has {count} answers; {_BOUNDS.item_answers} are allowed")
    if not why:
        return answers, None
    dead = pa.chunked_array([pa.array(list(why), pa.string())])
    kept = answers.filter(pc.invert(pc.is_in(items, value_set=dead.combine_chunks())))
    return kept, _dead(dead, list(why.values()))


def _refuse_incomplete(kind: Workload, table: object, rows: pa.Table) -> None:
    if not isinstance(table, pa.Table) or table.column_names.count("item_id") != 1:
        found = f"columns {table.column_names}" if isinstance(table, pa.Table) else type(table).__name__
        summary = f"workload {kind.name!r} gave {found}; expected an Arrow table with item_id and the answers"
        raise RejectedError(summary)
    answered = table["item_id"].to_pylist()
    if len(contract(kind.answers_contract).key) > 1:
        answered = [item for item, _ in groupby(answered)]
    if answered != rows["item_id"].to_pylist():
        summary = f"workload {kind.name!r} answered {len(answered)} items of {rows.num_rows}, or not in their order"
        raise RejectedError(summary)


def _conformed(kind: Workload, answers: pa.Table, row_group: int) -> pa.Table:
    numbered = answers.append_column("row_group", pa.repeat(pa.scalar(row_group, pa.int32()), answers.num_rows))
    return conform(numbered, kind.answers_contract)
