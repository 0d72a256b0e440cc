"""What each row of a round must obey, one short rule each; shares no code with the plan. Pure, numpy only."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.policy import ANY_REGION, Policy
from fleetbatch.planner.reasons import ASSIGNED, Reason

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Columns = dict[str, npt.NDArray[Any]]

SLACK_S = 0.05
"""Times are 32-bit floats: 8 ms apart at the end of a day."""
SLACK = 2e-3
STEP_S = 900.0
CHUNK = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule that the round breaks."""

    rule: str
    rows: int
    example: str
    """The first row that breaks it, for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Assignments as columns; `c` and `s` are the car's and the shard's values of each row."""

    policy: Policy
    a: Columns
    c: Columns
    s: Columns
    groups: Floats
    tau: Floats
    """Seconds of a row group, infinite where the car cannot compute it."""
    running: Bools
    """The row is the car's own running shard."""
    follows: Bools
    """The row has one before it of the same car."""
    there: Floats
    """The chance that the car is still there at the row's end."""

    @classmethod
    def of(cls, policy: Policy, a: Columns, c: Columns, s: Columns) -> Self:
        """Work out what several rules need."""
        follows = np.zeros(len(a["car_id"]), bool)
        follows[1:] = a["car_id"][1:] == a["car_id"][:-1]
        return cls(
            policy=policy, a=a, c=c, s=s, follows=follows,
            groups=a["rg_end"].astype(np.float64) - a["rg_start"].astype(np.float64),
            tau=row_group_s(policy, c, s),
            there=stay(c, np.nan_to_num(a["end_s"].astype(np.float64))),
            running=c["running_shard?"].astype(bool) & (c["running_shard"] == a["shard_id"]),
        )  # fmt: skip


def row_group_s(policy: Policy, c: Columns, s: Columns) -> Floats:
    """Return seconds that each row's car takes for a row group of its shard, infinite where it cannot compute it."""
    table = np.zeros((256, 256))
    for hw, row in enumerate(policy.rates):
        table[hw, : len(row)] = row
    compute = table[c["hw"], s["workload"]] * c["speed"].astype(np.float64)
    moved = s["size_B"] / np.maximum(s["row_groups"].astype(np.float64), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_compute = np.where(compute > 0.0, units_per_row_group(s) / compute, np.inf)
        by_link = np.where(moved > 0.0, moved / c["link_down_Bps"].astype(np.float64), 0.0)
    return np.asarray(np.maximum(by_compute, by_link))


def units_per_row_group(shards: Columns) -> Floats:
    """Return the work of one row group of each shard."""
    return np.asarray(shards["work_units"] / np.maximum(shards["row_groups"].astype(np.float64), 1.0), np.float64)


def _previous(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([column[:1], column[:-1]])


def _out_of_order(x: Seen) -> Bools:
    car, seq = x.a["car_id"], x.a["seq"]
    back = (car < _previous(car)) | (x.follows & (seq <= _previous(seq)))
    return np.asarray(back)


def _seq_with_gaps(x: Seen) -> Bools:
    expected = np.where(x.follows, _previous(x.a["seq"]).astype(np.int64) + 1, 0)
    return np.asarray(x.a["seq"] != expected)


def _not_numbers(x: Seen) -> Bools:
    columns = [x.a[name].astype(np.float64) for name in ("start_s", "end_s", "p_finish", "expected_units")]
    return np.asarray(np.any([~np.isfinite(column) | (column < 0.0) for column in columns], axis=0))


def _range(x: Seen) -> Bools:
    a, s = x.a, x.s
    return np.asarray((a["rg_start"] >= a["rg_end"]) | (a["rg_end"] > s["row_groups"]) | (a["rg_start"] < s["rg_next"]))


def _not_from_done_through(x: Seen) -> Bools:
    running_from = np.where(x.running, x.c["running_row_group"], 0)
    return np.asarray(x.a["rg_start"] != np.maximum(x.s["rg_next"], running_from))


def _consent(x: Seen) -> Bools:
    return np.asarray((x.c["consent"] >> x.s["workload"].astype(np.uint32)) & 1 == 0)


def _mask(x: Seen) -> Bools:
    return np.asarray((x.s["hw_mask"] >> x.c["hw"]) & 1 == 0)


def _region(x: Seen) -> Bools:
    return np.asarray((x.s["region"] != ANY_REGION) & (x.s["region"] != x.c["region"]))


def _memory(x: Seen) -> Bools:
    return np.asarray(x.c["mem_B"] < x.s["mem_B"])


def forbidden(x: Seen) -> Bools:
    """Return which rows put a shard on a car that may not have it, or cannot compute it."""
    return np.asarray(_consent(x) | _mask(x) | _region(x) | _memory(x) | ~np.isfinite(x.tau))


def _too_early(x: Seen) -> Bools:
    ready = np.maximum(x.c["ready_s"], np.where(x.running, 0.0, x.c["free_in_s"]))
    return np.asarray(~x.running & (x.a["start_s"] < ready - SLACK_S))


def _overlap(x: Seen) -> Bools:
    return np.asarray(x.follows & (x.a["start_s"] < _previous(x.a["end_s"]) - SLACK_S))


def _too_fast(x: Seen) -> Bools:
    span = x.a["end_s"].astype(np.float64) - x.a["start_s"]
    return np.asarray(span < x.groups * x.tau * (1.0 - 1e-5) - SLACK_S)


def _no_time_to_load(x: Seen) -> Bools:
    """A car's first piece of a workload whose model it lacks takes longer by loading it; what runs has begun to."""
    if not x.policy.model_bytes:
        return np.zeros(len(x.groups), bool)
    workload = x.s["workload"].astype(np.uint32)
    order = np.lexsort((x.a["seq"], workload, x.a["car_id"]))
    car, kind = x.a["car_id"][order], workload[order]
    first = np.ones(len(order), bool)
    first[order[1:]] = (car[1:] != car[:-1]) | (kind[1:] != kind[:-1])
    lacks = first & ((x.c["cached"] >> workload) & 1 == 0) & ~x.running
    loading = np.asarray(x.policy.model_bytes)[workload] / np.maximum(x.c["link_down_Bps"].astype(np.float64), 1e-9)
    span = x.a["end_s"].astype(np.float64) - x.a["start_s"]
    return np.asarray(lacks & (span < (x.groups * x.tau + loading) * (1.0 - 1e-5) - SLACK_S))


def stay(c: Columns, seconds: Floats, rows: npt.NDArray[np.int64] | None = None) -> Floats:
    """Return the chance that the car of each of the rows, by default of all, is still there after its seconds."""
    curve = c["survival"]
    row = np.arange(len(curve)) if rows is None else rows
    last = curve.shape[1] - 1
    low = np.clip(np.floor(seconds / STEP_S), 0, last - 1).astype(np.int64)
    share = np.clip(seconds / STEP_S - low, 0.0, 1.0)
    return np.asarray((curve[row, low] * (1.0 - share) + curve[row, low + 1] * share) / 255.0)


def _left_already(x: Seen) -> Bools:
    return np.asarray(x.there < x.policy.stay_min - SLACK)


def _wrong_chance(x: Seen) -> Bools:
    return np.asarray(np.abs(x.there - x.a["p_finish"]) > SLACK)


def _wrong_units(x: Seen) -> Bools:
    """Row group by row group: its units times the chance that the car is there at its end."""
    total = np.zeros(len(x.groups))
    count = np.clip(x.groups, 0, None).astype(np.int64)
    tau = np.where(np.isfinite(x.tau), x.tau, 0.0)
    ends, upto = np.nan_to_num(x.a["end_s"].astype(np.float64)), np.cumsum(count)
    parts = np.unique(np.append(np.searchsorted(upto, np.arange(0, upto[-1:].sum(), CHUNK), "right"), len(count)))
    for first, last in itertools.pairwise(parts.tolist()):
        row = np.repeat(np.arange(first, last), count[first:last])
        until_end = upto[row] - 1 - (upto[first] - count[first]) - np.arange(len(row))
        chance = stay(x.c, np.maximum(ends[row] - until_end * tau[row], 0.0), row)
        total += np.bincount(row, weights=chance, minlength=len(total))
    expected = total * units_per_row_group(x.s)
    return np.asarray(
        np.abs(expected - x.a["expected_units"]) > SLACK * np.maximum(count * units_per_row_group(x.s), 1e-9)
    )


def _two_holders(x: Seen) -> Bools:
    order = np.argsort(x.a["shard_id"], kind="stable")
    same = np.diff(x.a["shard_id"][order]) == 0
    marks = np.zeros(len(order), bool)
    marks[order[1:][same]] = marks[order[:-1][same]] = True
    return marks


def _foreign_lease(x: Seen) -> Bools:
    return np.asarray(x.s["held_by"].astype(bool) & ~x.running & (x.a["reason"] != Reason.HANDED_OVER))


def _moved(x: Seen) -> Bools:
    holds = x.c["running_shard?"].astype(bool)
    return np.asarray(holds & ~x.follows & ~x.running)


def among(codes: npt.NDArray[np.uint8], allowed: Iterable[int]) -> Bools:
    """Return which codes are allowed, by a look into a table."""
    table = np.zeros(256, bool)
    table[list(allowed)] = True
    return np.asarray(table[codes])


def _reason(x: Seen) -> Bools:
    known = among(x.a["reason"], ASSIGNED)
    return np.asarray(~known | ((x.a["reason"] == Reason.RUNNING) != x.running))


def _broken_handover(x: Seen) -> Bools:
    handed = x.a["reason"] == Reason.HANDED_OVER
    busy = x.follows | x.c["running_shard?"].astype(bool)
    return np.asarray(handed & (busy | ~x.s["held_by"].astype(bool) | (x.a["rg_end"] != x.s["row_groups"])))


def _scrap(x: Seen) -> Bools:
    short = x.groups < x.policy.piece_row_groups_min
    return np.asarray(short & ~x.running & (x.a["rg_end"] < x.s["row_groups"]))


ROW_RULES: Final[Mapping[str, Callable[[Seen], Bools]]] = {
    "rows are in order of car and seq": _out_of_order,
    "seq counts from 0 without gaps": _seq_with_gaps,
    "times, chances and units are numbers of at least 0": _not_numbers,
    "row groups lie within what is open of the shard": _range,
    "a piece starts where the shard stands": _not_from_done_through,
    "the owner consents to the workload": _consent,
    "the shard allows the hardware": _mask,
    "the hardware computes the workload": lambda x: np.asarray(~np.isfinite(x.tau)),
    "the car has the memory": _memory,
    "the shard may leave for the car's region": _region,
    "nothing starts before the car is ready and free": _too_early,
    "nothing ends after the car's limit": lambda x: np.asarray(x.a["end_s"] > x.c["limit_s"] + SLACK_S),
    "nothing ends after the deadline": lambda x: np.asarray(x.a["end_s"] > x.s["deadline_s"] + SLACK_S),
    "nothing ends when the car has probably left": _left_already,
    "pieces of a car do not overlap": _overlap,
    "nothing starts beyond the commit horizon": lambda x: np.asarray(x.a["start_s"] >= x.policy.commit_s + SLACK_S),
    "a piece takes as long as its row groups need": _too_fast,
    "a model that the car lacks is loaded first": _no_time_to_load,
    "p_finish is the curve at the end": _wrong_chance,
    "expected_units follows from the curve": _wrong_units,
    "a shard has one holder": _two_holders,
    "a shard under lease stays with its holder": _foreign_lease,
    "a car's running shard comes first": _moved,
    "a shard is handed over whole, and to a car that stands idle": _broken_handover,
    "the reason is one of an assignment, and `running` only for the running shard": _reason,
    "copies are not planned": lambda x: np.asarray((x.a["copy"] != 0) | x.a["speculative"].astype(bool)),
    "a queue is not longer than the policy allows": lambda x: np.asarray(x.a["seq"] >= x.policy.pieces_max),
    "a piece is not shorter than the policy allows": _scrap,
}
