"""A certificate is proven once more: what pieces and plan are worth, and the bound that the prices give. Pure.

numpy only, from the stated formulas and with nothing of the code that planned. Whatever prices of at least 0 are
stated, the bound that follows from them holds (dispatch 2.3); it is refused where it is not the stated one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from fleetbatch.planner.amounts import Able, OpenWork, Priced, able, open_work
from fleetbatch.planner.nouns import Certificate, Plan, Round
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.rules import Columns, Floats, Seen, Violation, units_per_row_group

NEAR: Final = 1e-5
"""Of an amount: the planner's numbers have 32 bits."""
BOUND_NEAR: Final = 3e-6
"""Of a bound, which is raised by a millionth so that rounding does not undo it."""
ROUNDED: Final = 2.0**-22
"""Of what cars are paid that earn: the planner takes their energy off in 32 bits. Where many stand beside little work,
that is more than the bound's millionths."""
PLACED = "the certified value is that of the pieces"
IN_FULL_BETWEEN = "value <= value in full <= all open work"
BOUND_BETWEEN = "value <= bound <= all open work"
PLAN_HOLDS = "the plan keeps to the cars' time and to the open work"
VALUE = "the stated value is what the plan is worth"
IN_FULL = "the value in full is what the plan is worth without a discount"
BOUND = "the stated bound is the one that the prices give"


def certified(seen: Seen, fleet: Columns, work: Columns, round_: Round) -> Iterator[Violation]:
    """Yield everything about the certificate that tables, pieces, plan and prices do not give."""
    c = round_.certificate
    if not np.isfinite([c.placed, c.value, c.value_in_full, c.upper_bound]).all():
        yield Violation(rule="the certificate is made of numbers", rows=1, example=f"{c.value} of {c.upper_bound}")
        return
    yield from _carbon(seen, c)
    values = np.asarray(seen.policy.value_per_unit, np.float64)
    worth = values[np.minimum(seen.s["priority"], len(values) - 1)] * seen.a["expected_units"]
    yield from _same(PLACED, c.placed, float(np.sum(worth)))
    open_ = ~work["held_by"].astype(bool) & (work["deadline_s"] > 0.0)
    left = np.maximum(work["row_groups"].astype(np.float64) - work["rg_next"], 0.0) * open_ * units_per_row_group(work)
    everything = float(np.sum(values[np.minimum(work["priority"], len(values) - 1)] * left))
    everything *= bool(len(fleet["car_id"]))
    dust = NEAR * everything
    for rule, amount in ((IN_FULL_BETWEEN, c.value_in_full), (BOUND_BETWEEN, c.upper_bound)):
        if not c.value - dust <= amount <= everything + dust:
            text = f"{c.value}, {amount}, all open work {everything}"
            yield Violation(rule=rule, rows=1, example=text)
    if c.plan is None:
        of_open = float(np.sum(worth * ~seen.s["held_by"].astype(bool)))
        yield from _same(VALUE, c.value, of_open)
        yield from _same(IN_FULL, c.value_in_full, of_open)
        yield from _same(BOUND, c.upper_bound, everything)
    else:
        yield from _planned(fleet, work, seen.policy, c, c.plan)


def _same(rule: str, stated: float, found: float, near: float = 0.0) -> Iterator[Violation]:
    if not abs(stated - found) <= max(near, NEAR * abs(found)):
        yield Violation(rule=rule, rows=1, example=f"{stated} is stated, {found} is found")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """Prices, plan and what the tables give for both."""

    policy: Policy
    priced: Priced
    plan: Plan
    open: OpenWork
    able: Able


def _planned(fleet: Columns, work: Columns, policy: Policy, c: Certificate, plan: Plan) -> Iterator[Violation]:
    """What only a plan by prices states."""
    priced = Priced.of(c.prices) if c.prices.num_rows else None
    if priced is None or not _fits_together(priced, plan, len(fleet["car_id"]), len(policy.value_per_unit)):
        text = f"{c.prices.num_rows} prices, shares {plan.share.shape}, flows {plan.flow.shape}"
        yield Violation(rule="prices and plan tell of the same cars, kinds, blocks and deadlines", rows=1, example=text)
        return
    found = open_work(work, priced, plan, len(policy.value_per_unit))
    if len(found.strays):
        text = f"shard {int(work['shard_id'][found.strays[0]]):016x}"
        yield Violation(rule="every open shard is of a priced kind and deadline", rows=len(found.strays), example=text)
        return
    x = _Looked(policy=policy, priced=priced, plan=plan, open=found, able=able(fleet, work, priced, plan, policy))
    yield from _holds(x)
    full = np.asarray(policy.value_per_unit, np.float64)
    late, spent = _worth(x), float(np.sum(x.able.cost * plan.share.sum(axis=2)))
    near = NEAR * (float(np.sum(plan.flow * full)) + spent)
    yield from _same(VALUE, c.value, float(np.sum(plan.flow * late)) - spent, near)
    yield from _same(IN_FULL, c.value_in_full, float(np.sum(plan.flow * full)) - spent, near)
    bound = _bound(x, late)
    if not abs(c.upper_bound - bound) <= BOUND_NEAR * bound + ROUNDED * x.able.paid:
        yield Violation(rule=BOUND, rows=1, example=f"{c.upper_bound} is stated, the prices give {bound}")


def _fits_together(priced: Priced, plan: Plan, cars: int, levels: int) -> bool:
    """Say whether shapes agree, every car is in one class, and times rise up to the last block's end."""
    (kinds, blocks), deadlines = priced.price.shape, len(plan.deadlines)
    shapes = (plan.share.shape, plan.flow.shape, plan.latest.shape)
    if shapes != ((len(plan.starts) - 1, blocks, kinds), (kinds, blocks, deadlines, levels), (deadlines,)):
        return False
    classes = plan.starts[0] == 0 and plan.starts[-1] == cars and bool((np.diff(plan.starts) >= 0).all())
    once = np.zeros(cars, bool)
    once[plan.order[(plan.order >= 0) & (plan.order < cars)]] = True
    between = np.stack([plan.deadlines, plan.latest], axis=1).ravel()
    rises = deadlines > 0 and bool((np.diff(between) >= 0.0).all()) and between[-1] <= priced.edges[-1] < np.inf
    return bool(classes and len(plan.order) == cars and once.all() and rises)


def _holds(x: _Looked) -> Iterator[Violation]:
    """Nobody's time is given twice, no more is done than that time gives, nothing twice, and nothing too late."""
    share, flow, more = x.plan.share, x.plan.flow, 1.0 + NEAR
    made = np.einsum("chk,chk->kh", x.able.work, share)
    late = x.priced.edges[None, 1:] > x.plan.deadlines[:, None] + NEAR  # [deadline, block]
    dust = NEAR * max(float(x.open.demand.sum()), SMALL)
    broken = {
        "a share below 0": not (share >= 0.0).all(),
        "more than all the time of a class": not (share.sum(axis=2) <= more).all(),
        "work below 0": not (flow >= 0.0).all(),
        "more done than the time gives": not (flow.sum(axis=(2, 3)) <= made * more + dust).all(),
        "more done than is open": not (flow.sum(axis=1) <= x.open.demand * more + SMALL).all(),
        "work after its deadline": bool((flow * late.T[None, :, :, None]).any()),
    }
    for what in (name for name, wrong in broken.items() if wrong):
        yield Violation(rule=PLAN_HOLDS, rows=1, example=what)


SMALL: Final = 1e-12


def _worth(x: _Looked) -> Floats:
    """Return [block, deadline, priority], what a unit counts for that is done in a block.

    In the buffer before its deadline a share; elsewhere less by the chance that an upset comes before the middle of the
    block and that cars have no time to make it good.
    """
    policy, begins, ends = x.policy, x.priced.edges[:-1], x.priced.edges[1:]
    middle, buffer = (begins + ends) / 2.0, x.plan.deadlines - np.minimum(policy.buffer_s, x.plan.deadlines / 2.0)
    inside = np.minimum(ends[:, None], x.plan.latest) - np.maximum(begins[:, None], buffer)
    late = 1.0 - (1.0 - policy.buffer_worth) * np.maximum(inside, 0.0) / (ends - begins)[:, None]
    upset = 1.0 - np.exp(-policy.upsets_per_hour * middle / 3600.0)
    lost = upset[:, None, None] * (1.0 - _mended(x, middle, buffer))
    return np.asarray(np.asarray(policy.value_per_unit, np.float64) * late[:, :, None] * (1.0 - lost))


def _mended(x: _Looked, middle: Floats, buffer: Floats) -> Floats:
    """Return [block, deadline, priority], the chance that cars have time for what is lost in the middle of a block.

    All that is as urgent, beside all that cars could do from then on and begin early enough to end before the buffer.
    """
    able_units, units = x.able.work.sum(axis=0), x.open.demand.sum(axis=(1, 2))
    able_s = np.sum(x.able.seconds[:, :, None] * (x.able.work > 0.0), axis=(0, 1))
    shard_s = units / np.maximum(x.open.shards, 1) * able_s / np.maximum(able_units.sum(axis=0), 1e-9)
    urgent = np.cumsum(np.cumsum(x.open.demand, axis=1), axis=2)
    lengths, found = np.diff(x.priced.edges), np.empty((len(middle), *urgent.shape[1:]))
    for block, instant in enumerate(middle.tolist()):
        from_s = np.maximum(x.priced.edges[:-1], instant)
        for deadline, last in enumerate(buffer.tolist()):
            until = np.minimum(x.priced.edges[1:, None], last - shard_s)  # [block, kind]
            share = np.maximum(until - from_s[:, None], 0.0) / lengths[:, None]
            left = np.sum(share * able_units, axis=0)
            with np.errstate(divide="ignore", invalid="ignore"):
                load = np.where(urgent[:, deadline] > 0.0, urgent[:, deadline] / left[:, None], 0.0).sum(axis=0)
            found[block, deadline] = 1.0 / np.maximum(load, 1.0)
    return found


def _bound(x: _Looked, late: Floats) -> float:
    """Return what nobody beats: what cars earn at the prices, and what each unit of work is worth beyond its price."""
    total = x.able.earned
    for deadline, latest in enumerate(x.plan.latest.tolist()):
        blocks = x.priced.edges[:-1] < latest
        gain = late[None, blocks, deadline] - x.priced.price[:, blocks, None]
        total += float(np.sum(x.open.demand[:, deadline] * np.maximum(gain.max(axis=1), 0.0)))
    return min(total, float(np.sum(x.open.demand * np.asarray(x.policy.value_per_unit, np.float64))))


def _carbon(seen: Seen, c: Certificate) -> Iterator[Violation]:
    """The stated grams are those of the pieces: power, times how much of each step they last, times its intensity."""
    policy, a = seen.policy, seen.a
    table = np.asarray(policy.carbon_g_per_j or np.zeros((1, len(policy.price_until_s))), np.float64)
    share = a["expected_units"] / np.maximum(seen.groups * units_per_row_group(seen.s), 1e-30)
    watts = np.asarray(policy.power_w, np.float64)[seen.c["hw"]] * share
    grams, begins = 0.0, 0.0
    for step, until in enumerate(policy.price_until_s):
        ends = np.inf if step == len(policy.price_until_s) - 1 else until
        inside = np.minimum(a["end_s"], ends) - np.maximum(a["start_s"], begins)
        zone = seen.c["price_zone"] if policy.carbon_g_per_j else np.zeros(len(share), np.int64)
        grams += float(np.sum(watts * np.maximum(inside, 0.0) * table[zone, step]))
        begins = until
    yield from _same("the certified carbon is that of the pieces", c.carbon_g, grams)
