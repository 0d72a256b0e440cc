"""Is a round allowed? Looked at once more from the tables alone, with nothing of the code that planned. Pure.

numpy only. Every rule marks the rows that break it, so that a refusal lists them all.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.errors import RejectedError
from fleetbatch.planner.nouns import Round
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.proof import certified
from fleetbatch.planner.reasons import WAITING, Reason
from fleetbatch.planner.rules import (
    ROW_RULES,
    Bools,
    Columns,
    Seen,
    Violation,
    among,
    forbidden,
    stay,
)
from fleetbatch.planner.stated import Stated, statements

SLACK = 1e-3


def verify_round(cars: pa.Table, shards: pa.Table, now: datetime, policy: Policy, round_: Round) -> list[Violation]:
    """Return everything that is not allowed about the round; empty when it may be published.

    `cars` and `shards` are the tables that were planned from, and obey their contracts.
    """
    try:
        assigned = _columns(conform(round_.assignments, "assignments"))
        waiting = _columns(conform(round_.unassigned, "unassigned"))
        plans = _columns(conform(round_.car_plan, "car_plan"))
    except RejectedError as error:
        return [Violation(rule="the tables obey their contracts", rows=len(error.problems), example=str(error))]
    fleet, work = _columns(cars), _columns(shards)
    car_row, shard_row = _find(fleet["car_id"], assigned["car_id"]), _find(work["shard_id"], assigned["shard_id"])
    strangers = [
        *_report("every car is in the snapshot", car_row < 0, assigned),
        *_report("every shard is open", shard_row < 0, assigned),
    ]
    if strangers:
        return strangers
    c = {name: column[car_row] for name, column in fleet.items()}
    s = {name: column[shard_row] for name, column in work.items()}
    seen = Seen.of(policy, assigned, c, s)
    broken = [violation for rule, marks in ROW_RULES.items() for violation in _report(rule, marks(seen), assigned)]
    whole = [
        *_clock(round_, now),
        *_left_over(work, assigned, shard_row, waiting),
        *_plans(fleet, assigned, plans),
        *_needless(fleet, work, assigned, shard_row, policy),
        *certified(seen, fleet, work, round_),
    ]
    if any(one.rule in NAMES for one in whole):  # statements about rows that are missing cannot be looked at
        return [*broken, *whole]
    stated = Stated(
        policy=policy,
        fleet=fleet,
        work=work,
        a=assigned,
        shard=shard_row,
        waiting=waiting,
        waits=_find(work["shard_id"], waiting["shard_id"]),
        plans=plans,
    )
    return [*broken, *whole, *statements(stated, round_)]


WAITING_NAMED = "every shard with row groups left is named as unassigned once, in order, and no other"
PLANNED_ONCE = "every car has one row in the plan, in order"
NAMES = (WAITING_NAMED, PLANNED_ONCE)


def _columns(table: pa.Table) -> Columns:
    """Return a table as arrays: curves as a matrix, `held_by` as "is held", what may be null as 0 beside a flag."""
    flat: Columns = {}
    for name in table.column_names:
        column: Any = table[name].combine_chunks()
        if name == "survival":
            flat[name] = column.flatten().to_numpy().reshape(table.num_rows, column.type.list_size)
        elif name == "held_by":
            offsets = column.offsets.to_numpy()
            flat[name] = offsets[1:] > offsets[:-1]
        else:
            if table.schema.field(name).nullable:
                flat[f"{name}?"] = column.is_valid().to_numpy(zero_copy_only=False)
            flat[name] = (column.fill_null(0) if column.null_count else column).to_numpy(zero_copy_only=False)
    return flat


def _find(ids: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the row of every wanted id, -1 where it is unknown."""
    known, asked = np.asarray(ids, np.uint64), np.asarray(wanted, np.uint64)
    if len(known) == 0:
        return np.full(len(asked), -1, np.int64)
    order, by_id = np.argsort(known, kind="stable"), np.argsort(asked, kind="stable")
    place = np.empty(len(asked), np.int64)  # asked in their order, so that neighbours are found beside each other
    place[by_id] = order[np.minimum(np.searchsorted(known, asked[by_id], sorter=order), len(known) - 1)]
    return np.where(known[place] == asked, place, -1)


def _report(rule: str, marks: Bools, a: Columns) -> Iterator[Violation]:
    if marks.any():
        row = int(np.argmax(marks))
        example = f"row {row}: car {int(a['car_id'][row]):016x}, shard {int(a['shard_id'][row]):016x}"
        yield Violation(rule=rule, rows=int(marks.sum()), example=example)


def _clock(round_: Round, now: datetime) -> Iterator[Violation]:
    if round_.at != now:
        yield Violation(rule="the round counts from now", rows=1, example=f"{round_.at} is not {now}")


def _left_over(work: Columns, a: Columns, shard_row: npt.NDArray[np.int64], waiting: Columns) -> Iterator[Violation]:
    """Whatever is not placed is named with a reason, once, and nothing else is."""
    covered = work["rg_next"].astype(np.int64)
    np.maximum.at(covered, shard_row, a["rg_end"].astype(np.int64))
    open_ids = np.sort(work["shard_id"][covered < work["row_groups"]])
    named = waiting["shard_id"]
    if not np.array_equal(open_ids, named):
        odd = np.setxor1d(open_ids, named)
        text = f"shard {int(odd[0]):016x}" if len(odd) else "out of order or named twice"
        yield Violation(rule=WAITING_NAMED, rows=max(len(odd), 1), example=text)
    unknown = ~among(waiting["reason"], WAITING)
    if unknown.any():
        text = f"shard {int(named[np.argmax(unknown)]):016x} has reason {int(waiting['reason'][np.argmax(unknown)])}"
        yield Violation(
            rule="an unassigned shard has a reason that says why it waits", rows=int(unknown.sum()), example=text
        )


def _plans(fleet: Columns, a: Columns, plans: Columns) -> Iterator[Violation]:
    """Every car has one row in the plan, with the length of its queue."""
    ids = np.sort(fleet["car_id"])
    if not np.array_equal(ids, plans["car_id"]):
        yield Violation(rule=PLANNED_ONCE, rows=1, example=f"{len(plans['car_id'])} rows")
        return
    pieces = np.searchsorted(np.sort(a["car_id"]), ids, "right") - np.searchsorted(np.sort(a["car_id"]), ids, "left")
    wrong = pieces != plans["pieces"]
    if wrong.any():
        text = f"car {int(ids[np.argmax(wrong)]):016x}"
        yield Violation(rule="the plan counts each car's pieces", rows=int(wrong.sum()), example=text)


def _needless(
    fleet: Columns, work: Columns, a: Columns, shard_row: npt.NDArray[np.int64], policy: Policy
) -> Iterator[Violation]:
    """A shard is handed over only where its holder is known, gets nothing, and would be late."""
    mine = np.flatnonzero(a["reason"] == Reason.HANDED_OVER)
    runs = np.flatnonzero(fleet["running_shard?"])
    place = _find(fleet["running_shard"][runs], a["shard_id"][mine])
    holder = runs[np.maximum(place, 0)] if len(runs) else np.zeros(len(mine), np.int64)
    c = {name: column[holder] for name, column in fleet.items()} if len(fleet["car_id"]) else fleet
    s = {name: column[shard_row[mine]] for name, column in work.items()}
    holds = Seen.of(policy, {name: column[mine] for name, column in a.items()}, c, s)
    left = s["row_groups"] - np.maximum(s["rg_next"], c["running_row_group"])
    ends = np.where(forbidden(holds), np.inf, holds.tau) * np.maximum(left, 1)
    deadline = s["deadline_s"].astype(np.float64)
    buffer = deadline - np.minimum(policy.buffer_s, deadline / 2.0)
    there = np.where(np.isfinite(ends), stay(c, np.where(np.isfinite(ends), ends, 0.0)), 0.0)
    in_time = (ends <= np.minimum(buffer, c["limit_s"])) & (there > policy.stay_min + SLACK)
    odd = (place < 0) | np.isin(c["car_id"], a["car_id"]) | in_time
    marks = np.zeros(len(a["car_id"]), bool)
    marks[mine] = odd
    yield from _report("a shard is handed over only from a holder who would be late", marks, a)
