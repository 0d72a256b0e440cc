"""What a round states beside its pieces, looked at once more: why shards wait, why cars idle, what was open. Pure.

numpy only, like the rules of single rows, and with nothing of the code that planned. A statement is refused where the
tables show that it is not so; one that only the prices could show (outbid, better hours) is taken as it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.nouns import Round
from fleetbatch.planner.policy import ANY_REGION, HORIZON_S, Policy
from fleetbatch.planner.reasons import Reason
from fleetbatch.planner.rules import (
    SLACK,
    SLACK_S,
    Bools,
    Columns,
    Floats,
    Violation,
    among,
    row_group_s,
    stay,
    units_per_row_group,
)

Ints = npt.NDArray[np.int64]
PLANNERS: Final = ("prices", "greedy", "fallback")
RUNS: Final = (Reason.BUSY, Reason.GIVES_AWAY, Reason.RUNS_LATE)
FIRST_OF_CARS: Final = 40
CERTIFIED: Final = 1e-5
"""Of an amount, as near as numbers of 32 bits add up."""
ASKS: Final = ("workload", "hw_mask", "region")
"""What a shard asks for; the rest are sizes and times."""
STANDS: Final = 1e-9
"""Whoever computes or fetches no faster than this may as well be called unable."""
NOBODY: Final = (
    Reason.NO_CARS,
    Reason.NO_REGION,
    Reason.NO_CONSENT,
    Reason.NO_HARDWARE,
    Reason.NO_MEMORY,
    Reason.TOO_LONG,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """A round as columns beside the tables that it was planned from."""

    policy: Policy
    fleet: Columns
    work: Columns
    a: Columns
    """Assignments, and in `shard` the place of each one's shard in `work`."""
    shard: Ints
    waiting: Columns
    waits: Ints
    """Places in `work` of what is named as waiting."""
    plans: Columns

    def open(self) -> Bools:
        """Return which shards may be given to a car."""
        left = self.work["rg_next"] < self.work["row_groups"]
        return np.asarray(left & ~self.work["held_by"].astype(bool) & (self.work["deadline_s"] > 0.0))


def statements(x: Stated, round_: Round) -> Iterator[Violation]:
    """Yield every statement that the tables contradict."""
    yield from _seen("a shard waits for the reason that its own row shows", _plain(x), x.waiting, "shard_id")
    for rule, marks in _claims(x):
        yield from _seen(rule, marks, x.waiting, "shard_id")
    for rule, marks in _idle(x):
        yield from _seen(rule, marks, x.plans, "car_id")
    if round_.planner not in PLANNERS:
        yield Violation(rule="the round says by which rule it was planned", rows=1, example=repr(round_.planner))
    yield from _priorities(x, round_)
    yield from _prices(round_)


def _seen(rule: str, marks: Bools, table: Columns, key: str) -> Iterator[Violation]:
    if marks.any():
        row = int(np.argmax(marks))
        text = f"{key} {int(table[key][row]):016x} has reason {int(table['reason'][row])}"
        yield Violation(rule=rule, rows=int(marks.sum()), example=text)


def _plain(x: Stated) -> Bools:
    """A shard that is placed in part, held or too late says so, and no other does."""
    placed = np.zeros(len(x.work["shard_id"]), bool)
    placed[x.shard] = True
    late = x.work["deadline_s"][x.waits] <= 0.0
    true = np.where(late, np.uint8(Reason.DEADLINE_PASSED), np.uint8(0))
    true[x.work["held_by"][x.waits].astype(bool)] = Reason.HELD
    true[placed[x.waits]] = Reason.REMAINDER
    said = x.waiting["reason"]
    plain = among(said, (Reason.DEADLINE_PASSED, Reason.HELD, Reason.REMAINDER))
    return np.asarray(np.where(true > 0, said != true, plain))


def _claims(x: Stated) -> Iterator[tuple[str, Bools]]:
    """Whoever says that no car can is asked which sieve no car passes; shards that ask alike together."""
    said = x.waiting["reason"]
    claims = np.flatnonzero(among(said, NOBODY))
    wrong = np.zeros(len(said), bool)
    for alike in _alike(x.work, x.waits[claims]):
        rows, shards = claims[alike], x.waits[claims[alike]]
        true, able = _first_empty(x, int(shards[0]))
        memory = x.fleet["mem_B"][able].max(initial=0)
        lacks = x.work["mem_B"][shards] > memory
        expected = np.where(lacks, np.uint8(Reason.NO_MEMORY), np.uint8(Reason.TOO_LONG)) if true is None else true
        wrong[rows] = said[rows] != expected
        if true is None:
            long = rows[said[rows] == Reason.TOO_LONG]
            wrong[long] |= _any_fits(x, x.waits[long], able)
    yield "where no car can, the stated reason is the first that stands in the way of all", wrong


def _alike(work: Columns, places: Ints) -> list[Ints]:
    """Return the numbers of the places, those together whose shards ask for the same workload, hardware and region."""
    if not len(places):
        return []
    workload, mask, region = (work[name][places] for name in ASKS)
    order = np.lexsort((workload, mask, region))  # numbers of 16 bits and less are counted, not compared
    code = (workload | mask.astype(np.uint32) << np.uint32(8) | region.astype(np.uint32) << np.uint32(16))[order]
    return list(np.split(order, np.flatnonzero(np.diff(code)) + 1))


def _sieves(x: Stated, c: Columns, shard: int) -> tuple[tuple[Reason, Bools], ...]:
    """Return which cars pass each sieve but memory, in the order in which they are named."""
    workload, mask, region = (int(x.work[name][shard]) for name in ASKS)
    computes = np.array([row[workload] > 0.0 for row in x.policy.rates] + [False] * 256)[c["hw"]]
    return (
        (Reason.NO_REGION, (c["region"] == region) | (region == ANY_REGION)),
        (Reason.NO_CONSENT, (c["consent"] >> np.uint32(workload)) & 1 == 1),
        (Reason.NO_HARDWARE, ((mask >> c["hw"].astype(np.int64)) & 1 == 1) & computes),
    )


def _first_empty(x: Stated, shard: int) -> tuple[Reason | None, Ints]:
    """Return the first sieve but memory that no car passes, or None; and the cars that pass all of them."""
    able = np.minimum(x.fleet["limit_s"], HORIZON_S) > np.maximum(x.fleet["ready_s"], x.fleet["free_in_s"])
    for reason, passes in ((Reason.NO_CARS, able), *_sieves(x, x.fleet, shard)):
        able = able & passes
        if not able.any():
            return reason, np.zeros(0, np.int64)
    return None, np.flatnonzero(able)


def _any_fits(x: Stated, shards: Ints, able: Ints) -> bool:
    """Say whether the shortest row group of all, or the one due last, would end in time on a car with the memory."""
    if not len(shards):
        return False
    units = units_per_row_group(x.work)[shards]
    easiest = (int(np.argmin(units)), int(np.argmax(x.work["deadline_s"][shards])))
    return any(_fits(x, int(shards[place]), able) for place in easiest)


def _fits(x: Stated, shard: int, able: Ints) -> bool:
    cars = able[x.fleet["mem_B"][able] >= x.work["mem_B"][shard]]
    c = {name: column[cars] for name, column in x.fleet.items()}
    one = {name: column[[shard]].repeat(len(cars)) for name, column in x.work.items()}
    seconds = row_group_s(x.policy, c, one)
    model = np.asarray(x.policy.model_bytes or np.zeros(256))[one["workload"]]
    has = (c["cached"] >> one["workload"].astype(np.uint32)) & 1
    fetched = one["size_B"] / np.maximum(one["row_groups"], 1) + np.where(has, 0.0, model)
    link = np.maximum(c["link_down_Bps"].astype(np.float64), STANDS)
    begins = np.maximum(c["ready_s"], c["free_in_s"]) + fetched / link
    ends = np.where(np.isfinite(seconds), begins + seconds, np.inf)
    in_time = ends < np.minimum(np.minimum(c["limit_s"], one["deadline_s"]), HORIZON_S) - SLACK_S
    there = stay(c, np.where(in_time, ends, 0.0)) > x.policy.stay_min + SLACK
    return bool((in_time & there).any())


def _idle(x: Stated) -> Iterator[tuple[str, Bools]]:
    """A car that has work says so and until when; one that has none says what its own row and the open work show."""
    order = np.argsort(x.fleet["car_id"], kind="stable")
    c = {name: column[order] for name, column in x.fleet.items()}
    said, busy = x.plans["reason"], x.plans["pieces"] > 0
    until = np.zeros(len(said))
    np.maximum.at(until, np.searchsorted(c["car_id"], x.a["car_id"]), np.nan_to_num(x.a["end_s"].astype(np.float64)))
    yield "the plan says until when a car is busy", ~(np.abs(until - x.plans["busy_until_s"]) <= SLACK_S)
    runs = c["running_shard?"].astype(bool)
    later = np.maximum(c["ready_s"], c["free_in_s"]) >= x.policy.commit_s
    true = np.where(busy, said == Reason.HAS_WORK, said > FIRST_OF_CARS)
    true &= busy | (among(said, RUNS) == runs) & ((said == Reason.NOT_READY) == (later & ~runs))
    open_ = np.flatnonzero(x.open())
    true &= (said != Reason.NO_WORK) | (len(open_) == 0)
    runs_at = np.flatnonzero(runs & ~busy)
    true[runs_at] &= said[runs_at] == _of_holders(x, {name: column[runs_at] for name, column in c.items()})
    none_fits = np.flatnonzero(said == Reason.NOTHING_FITS)
    if len(none_fits):
        true[none_fits] &= ~_may_any(x, {name: column[none_fits] for name, column in c.items()}, open_)
    yield "a car has work or idles for the reason that its own row and the open work show", ~true


def _of_holders(x: Stated, c: Columns) -> npt.NDArray[np.uint8]:
    """Return why each car that holds a lease has nothing, 0 where it could go on with what it holds."""
    order = np.argsort(x.work["shard_id"], kind="stable")
    said = np.full(len(c["car_id"]), Reason.BUSY, np.uint8)
    if not len(order):
        return said
    place = np.searchsorted(x.work["shard_id"], c["running_shard"], sorter=order)
    place = order[np.minimum(place, len(order) - 1)]
    here = np.flatnonzero(x.work["shard_id"][place] == c["running_shard"])
    place, c = place[here], {name: column[here] for name, column in c.items()}
    s = {name: column[place] for name, column in x.work.items()}
    left = np.maximum(s["rg_next"], c["running_row_group"]) < s["row_groups"]
    tau, until = row_group_s(x.policy, c, s), np.minimum(np.minimum(c["limit_s"], s["deadline_s"]), HORIZON_S)
    goes_on = left & (np.isfinite(tau)) & (tau < until - SLACK_S) & _may_have(c, s)
    goes_on &= stay(c, np.where(goes_on, tau, 0.0)) > x.policy.stay_min + SLACK
    handed = np.isin(c["running_shard"], x.a["shard_id"][x.a["reason"] == Reason.HANDED_OVER])
    said[here] = np.where(handed, Reason.GIVES_AWAY, np.where(goes_on, 0, Reason.RUNS_LATE))
    return said


def _may_have(c: Columns, s: Columns) -> Bools:
    """Return which cars consent to their shard's work and have the hardware, the region and the memory for it."""
    may = (c["consent"] >> s["workload"].astype(np.uint32)) & (s["hw_mask"] >> c["hw"]) & 1 == 1
    return np.asarray(may & ((s["region"] == ANY_REGION) | (s["region"] == c["region"])) & (c["mem_B"] >= s["mem_B"]))


def _may_any(x: Stated, c: Columns, open_: Ints) -> Bools:
    """Return which cars may have, and can compute, at least one open shard."""
    may = np.zeros(len(c["car_id"]), bool)
    for alike in _alike(x.work, open_):
        shards = open_[alike]
        passes = (c["mem_B"] >= x.work["mem_B"][shards].min()) & (c["link_down_Bps"] > STANDS) & (c["speed"] > STANDS)
        may |= np.logical_and.reduce([passes, *(passed for _, passed in _sieves(x, c, int(shards[0])))])
    return may


def _priorities(x: Stated, round_: Round) -> Iterator[Violation]:
    """The units that were open, and those that the pieces are expected to bring, by priority."""
    table, levels = round_.certificate.priorities, len(x.policy.value_per_unit)
    left = (x.work["row_groups"].astype(np.float64) - x.work["rg_next"]) * units_per_row_group(x.work)
    demand = _by_level(x.work["priority"], left * x.open(), levels) * bool(len(x.fleet["car_id"]))
    expected = _by_level(x.work["priority"][x.shard], x.a["expected_units"].astype(np.float64), levels)
    for name, true in (("priority", np.arange(levels)), ("demand", demand), ("expected", expected)):
        stated: Any = table[name].to_numpy() if name in table.column_names else np.zeros(0)
        near = CERTIFIED * np.maximum(np.abs(true), 1e-9)
        if len(stated) != levels or not bool((np.abs(stated - true) <= near).all()):
            text = f"{name} is {stated.tolist()}, the tables give {true.tolist()}"
            yield Violation(rule="open and expected units are stated by priority", rows=1, example=text)


def _by_level(priority: npt.NDArray[Any], units: Floats, levels: int) -> Floats:
    level = np.minimum(priority, levels - 1).astype(np.int64)
    return np.bincount(level, weights=units, minlength=levels).astype(np.float64)


def _prices(round_: Round) -> Iterator[Violation]:
    """Only a plan by prices has prices: numbers of at least 0, from now on without a gap for every kind of work."""
    table = round_.certificate.prices
    price = table["price"].to_numpy()
    begins, ends = table["from_s"].to_numpy(), table["until_s"].to_numpy()
    follows = np.append(0.0, ends)[:-1]
    wrong = ~(np.isfinite(price) & (price >= 0.0) & (begins < ends) & ((begins == 0.0) | (begins == follows)))
    if wrong.any():
        text = f"row {int(np.argmax(wrong))}: {table.slice(int(np.argmax(wrong)), 1).to_pylist()[0]}"
        yield Violation(rule="prices are numbers of at least 0, block after block", rows=int(wrong.sum()), example=text)
    by_prices, plan = round_.planner == "prices", round_.certificate.plan is not None
    if {bool(table.num_rows), plan} != {by_prices}:
        text = f"planned by {round_.planner}, {table.num_rows} prices, {'a' if plan else 'no'} plan"
        yield Violation(rule="a plan by prices states both, and no other does", rows=1, example=text)
