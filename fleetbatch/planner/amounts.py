"""How much work is open and how much of it cars can do, counted once more from the tables alone. Pure, numpy only.

With nothing of the code that planned, and in 64 bits where that has 32.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch.planner.nouns import Plan
from fleetbatch.planner.policy import ANY_REGION, GRID_S, HORIZON_S, Policy
from fleetbatch.planner.rules import Bools, Columns, Floats, row_group_s, stay

Ints = npt.NDArray[np.int64]
AT_A_TIME: Final = 4096
"""Cars or shards whose arrays stay in the cache."""
SMALLEST: Final = 1e-30
EVEN: Final = 2e-7
"""Whoever is paid so little less than the energy costs may earn in numbers of 32 bits."""
CLAIMS: Final = ("workload", "hw_mask", "region", "bytes_per_unit_min", "bytes_per_unit", "mem_B_min", "mem_B")


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """What a certificate's prices say: of which kinds of work, in which blocks, at how much."""

    asks: dict[str, npt.NDArray[Any]]
    """By name of CLAIMS, [kind]."""
    edges: Floats
    price: Floats
    """[kind, block]"""

    @classmethod
    def of(cls, prices: pa.Table) -> "Priced | None":
        """Return the table by kind and block; None where not every kind has every block."""
        columns = {name: prices[name].to_numpy() for name in prices.column_names}
        blocks = int(np.argmax(np.append(columns["from_s"][1:], 0.0) == 0.0)) + 1
        kinds, over = divmod(prices.num_rows, blocks)
        if over:
            return None
        table = {name: column.reshape(kinds, blocks) for name, column in columns.items()}
        alike = [np.array_equal(table[name], np.tile(table[name][:1], (kinds, 1))) for name in ("from_s", "until_s")]
        alike += [np.array_equal(table[name], np.repeat(table[name][:, :1], blocks, axis=1)) for name in CLAIMS]
        if not all(alike):
            return None
        edges = np.append(table["from_s"][0], table["until_s"][0, -1:])
        return cls(asks={name: table[name][:, 0] for name in CLAIMS}, edges=edges, price=table["price"])

    def own(self, claims: tuple[str, ...]) -> Iterator[tuple[list[int], tuple[Any, ...]]]:
        """Yield the kinds that claim the same, and what."""
        rows = list(zip(*(self.asks[name].tolist() for name in claims), strict=True))
        for row in dict.fromkeys(rows):
            yield [kind for kind, other in enumerate(rows) if other == row], row


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWork:
    """What is open, by kind and tier."""

    demand: Floats
    """[kind, deadline, priority], units left."""
    shards: Ints
    """[kind]"""
    strays: Ints
    """Places of open shards that are of no stated kind, or due when no deadline of the plan says."""


def open_work(work: Columns, priced: Priced, plan: Plan, levels: int) -> OpenWork:
    """Count the open shards of each kind and tier."""
    kinds, deadlines = priced.price.shape[0], len(plan.deadlines)
    codes = kinds * deadlines * levels
    demand, shards, strays = np.zeros(codes), np.zeros(kinds, np.int64), [np.zeros(0, np.int64)]
    for first in range(0, len(work["shard_id"]), 4 * AT_A_TIME):
        part = {name: column[first : first + 4 * AT_A_TIME] for name, column in work.items()}
        open_ = (part["rg_next"] < part["row_groups"]) & ~part["held_by"].astype(bool) & (part["deadline_s"] > 0.0)
        kind, (tier, timely) = _kinds(part, priced), _tiers(part, plan)
        strays.append(first + np.flatnonzero(open_ & ((kind < 0) | ~timely)))
        counted = open_ & (kind >= 0)
        code = (kind.astype(np.int64) * deadlines + tier) * levels + np.minimum(part["priority"], levels - 1)
        groups = part["row_groups"].astype(np.float64)
        units = part["work_units"] * ((groups - part["rg_next"]) / np.maximum(groups, 1.0)) * counted
        demand += np.bincount(np.where(counted, code, 0), weights=units, minlength=codes)
        shards += np.bincount(np.where(counted, kind + 1, 0), minlength=kinds + 1)[1:]
    return OpenWork(demand=demand.reshape(kinds, deadlines, levels), shards=shards, strays=np.concatenate(strays))


def _kinds(work: Columns, priced: Priced) -> npt.NDArray[np.int16]:
    """Return the kind of each shard, -1 where it is of none."""
    size, units = work["size_B"].astype(np.float32), work["work_units"].astype(np.float32)
    per_unit = np.divide(size, np.maximum(units, np.float32(SMALLEST)), out=np.zeros_like(size), where=units > 0.0)
    kind = np.full(len(size), -1, np.int16)
    for kinds, (mask, region, least, most) in priced.own(("hw_mask", "region", "mem_B_min", "mem_B")):
        memory = work["mem_B"].astype(np.float64)
        fits = (work["hw_mask"] == mask) & (work["region"] == region) & (memory >= least) & (memory <= most)
        for one in kinds:
            lightest, heaviest = (
                np.float32(priced.asks[name][one]) for name in ("bytes_per_unit_min", "bytes_per_unit")
            )
            mine = fits & (work["workload"] == priced.asks["workload"][one])
            np.copyto(kind, np.int16(one), where=mine & (per_unit >= lightest) & (per_unit <= heaviest))
    return kind


def _tiers(work: Columns, plan: Plan) -> tuple[Ints, Bools]:
    """Return by which deadline each shard is planned, and whether it is due between that and the tier's latest."""
    due = np.minimum(work["deadline_s"], np.float32(HORIZON_S))
    deadlines, latest = plan.deadlines.astype(np.float32), plan.latest.astype(np.float32)
    tier = np.zeros(len(due), np.int64)
    for deadline in deadlines[1:]:
        tier += due >= deadline
    return tier, np.asarray((due >= deadlines.take(tier)) & (due <= latest.take(tier)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Able:
    """What cars can do: by class, and what all of them earn at the stated prices."""

    work: Floats
    """[class, block, kind], units if the class did only this."""
    seconds: Floats
    """[class, block], there and allowed to compute."""
    cost: Floats
    """[class, block], value of the energy of all these seconds at the block's dearest tariff."""
    earned: float
    """Each car in each block does what pays best, at the cheapest tariff, or nothing."""
    paid: float
    """What those are paid who earn by it or come out even, before their energy is taken off."""


def able(fleet: Columns, work: Columns, priced: Priced, plan: Plan, policy: Policy) -> Able:
    """Look at every car once, class by class."""
    by_id = np.argsort(fleet["car_id"], kind="stable")
    begins = np.maximum(np.maximum(fleet["ready_s"], fleet["free_in_s"]), _free(fleet, work, policy))
    kinds, blocks, classes = *priced.price.shape, len(plan.starts) - 1
    done, seconds, cost = np.zeros((classes, blocks, kinds)), np.zeros((classes, blocks)), np.zeros((classes, blocks))
    cheap, dear, earned = *_costs(priced.edges, policy), np.zeros(2)
    needed = ("hw", "price_zone", "region", "consent", "mem_B", "speed", "link_down_Bps", "limit_s")
    curves = fleet["survival"][:, : max(int(np.ceil(priced.edges[-1] / GRID_S)) + 1, 2)]
    for first in range(0, len(plan.order), AT_A_TIME):
        places = by_id[plan.order[first : first + AT_A_TIME]]
        c = {name: fleet[name][places] for name in needed}
        c |= {"begins": begins[places], "survival": curves[places]}
        there, rate, best = _there(c, priced.edges), *_rates(c, priced, policy)
        earned += _earned(there, best, cheap[c["price_zone"], c["hw"]].T, priced.price)
        spent = there * dear[c["price_zone"], c["hw"]].T
        ends = np.clip(plan.starts - first, 0, len(places))
        for one in np.flatnonzero(ends[1:] > ends[:-1]).tolist():
            mine = slice(int(ends[one]), int(ends[one + 1]))
            done[one] += np.einsum("hi,ki->hk", there[:, mine], rate[:, mine])
            seconds[one] += there[:, mine].sum(axis=1)
            cost[one] += spent[:, mine].sum(axis=1)
    return Able(work=done, seconds=seconds, cost=cost, earned=float(earned[0]), paid=float(earned[1]))


def _free(fleet: Columns, work: Columns, policy: Policy) -> Floats:
    """Return when each car is done with what it runs: at the horizon where nothing of that would end in time."""
    free = np.where(fleet["running_shard?"], HORIZON_S, 0.0)
    order = np.argsort(work["shard_id"], kind="stable")
    runs = np.flatnonzero(fleet["running_shard?"]) if len(order) else np.zeros(0, np.int64)
    place = np.searchsorted(work["shard_id"], fleet["running_shard"][runs], sorter=order)
    place = order[np.minimum(place, len(order) - 1)]
    known = work["shard_id"][place] == fleet["running_shard"][runs]
    runs, place = runs[known], place[known]
    c, s = ({name: rows[at] for name, rows in table.items()} for table, at in ((fleet, runs), (work, place)))
    tau = np.where(_may(c, s), row_group_s(policy, c, s), np.inf)
    left = s["row_groups"].astype(np.int64) - np.maximum(s["rg_next"], c["running_row_group"])
    room = np.minimum(np.minimum(c["limit_s"], s["deadline_s"]), HORIZON_S).astype(np.float64)
    ends = np.isfinite(tau) & (tau <= room * (1.0 + 1e-9)) & (room > 0.0) & (left > 0)
    ends &= stay(c, np.where(ends, tau, 0.0)) >= policy.stay_min * (1.0 - 1e-9)
    free[runs[ends]] = np.minimum((left * np.where(ends, tau, 0.0))[ends], HORIZON_S)
    return free


def _may(c: Columns, asked: Columns) -> Bools:
    """Return where consent, hardware, region and memory let each car have what is asked."""
    region = (asked["region"] == ANY_REGION) | (asked["region"] == c["region"])
    consent = (c["consent"] >> asked["workload"].astype(np.uint32)) & np.uint32(1) == 1
    hardware = (asked["hw_mask"].astype(np.uint32) >> c["hw"]) & np.uint32(1) == 1
    return np.asarray(region & consent & hardware & (c["mem_B"] >= asked["mem_B"]))


def _there(c: Columns, edges: Floats) -> Floats:
    """Return [block, car], the expected seconds that the car is there and may compute: the areas under its curve."""
    curve = c["survival"].T.astype(np.int32, order="C")
    area = np.zeros_like(curve)  # twice that of the trapezoids up to each point, in slots: whole numbers
    np.add(curve[:-1], curve[1:], out=area[1:])
    for point in range(1, len(curve)):
        area[point] += area[point - 1]
    upto = np.empty((len(edges), len(c["hw"])))
    for place, edge in enumerate(edges.tolist()):
        low, part = _slot(np.array(edge), len(curve))
        upto[place] = area[low] + part * ((2.0 - part) * curve[low] + part * curve[low + 1])
    # An area grows with time, so that the later of two instants is the larger of two areas.
    for name, some, last in (
        ("begins", np.flatnonzero(c["begins"] > 0.0), np.maximum),
        ("limit_s", np.flatnonzero(c["limit_s"] < edges[-1]), np.minimum),
    ):
        low, part = _slot(c[name][some].astype(np.float64), len(curve))
        first, second = curve[low, some], curve[low + 1, some]
        upto[:, some] = last(upto[:, some], area[low, some] + part * ((2.0 - part) * first + part * second))
    return np.asarray(np.maximum(np.diff(upto, axis=0), 0.0) * (GRID_S / 2.0 / 255.0))


def _slot(instant: Floats, points: int) -> tuple[Ints, Floats]:
    """Return the last point of a curve before each instant, and how far on towards the next the instant lies."""
    low = np.clip(np.floor(instant / GRID_S), 0, points - 2).astype(np.int64)
    return low, np.asarray(np.clip(instant / GRID_S - low, 0.0, 1.0))


def _rates(c: Columns, priced: Priced, policy: Policy) -> tuple[Floats, Floats]:
    """Return [kind, car], units a second of the heaviest and of the lightest work of each kind, 0 where it may not."""
    table = np.asarray(policy.rates, np.float64)
    rate, best = np.zeros((2, len(priced.price), len(c["hw"])))
    speed, link = c["speed"].astype(np.float64), c["link_down_Bps"].astype(np.float64)
    for kinds, (workload, mask, region, least, most) in priced.own(
        ("workload", "hw_mask", "region", "mem_B_min", "mem_B")
    ):
        computed = table[:, workload][c["hw"]] * speed
        asks = {name: np.asarray(ask) for name, ask in (("workload", workload), ("hw_mask", mask), ("region", region))}
        for rates, memory, name in ((rate, most, "bytes_per_unit"), (best, least, "bytes_per_unit_min")):
            allowed = computed * _may(c, asks | {"mem_B": np.asarray(np.ceil(memory))})
            for kind in kinds:
                per_unit = float(priced.asks[name][kind])
                rates[kind] = np.minimum(allowed, link / per_unit) if per_unit > 0.0 else allowed
    return rate, best


def _earned(there: Floats, best: Floats, cost: Floats, price: Floats) -> Floats:
    """Return what cars earn when each does in each block what pays best, or nothing; and what they are paid for it."""
    total = np.zeros(2)
    for block, seconds in enumerate(there):
        pays = np.zeros(len(seconds))
        for kind in np.flatnonzero(price[:, block] > 0.0).tolist():
            np.maximum(pays, best[kind] * price[kind, block], out=pays)
        earns = pays > cost[block] * (1.0 - EVEN)
        total += np.sum(np.maximum(pays - cost[block], 0.0) * seconds), np.sum(pays * earns * seconds)
    return total


def _costs(edges: Floats, policy: Policy) -> tuple[Floats, Floats]:
    """Return [zone, hardware, block], what a busy second costs in value at the block's cheapest and dearest tariff."""
    money = np.asarray(policy.price_per_j, np.float64)
    money = money + policy.carbon_currency_per_g * np.asarray(policy.carbon_g_per_j or np.zeros_like(money), np.float64)
    ends = np.append(np.asarray(policy.price_until_s[:-1], np.float64), np.inf)
    begins = np.append(-np.inf, ends[:-1])
    holds = (begins[:, None] < edges[None, 1:]) & (ends[:, None] > edges[None, :-1])  # [step, block]
    each = np.where(holds[None], money[:, :, None], np.nan)
    watts = np.asarray(policy.power_w, np.float64)[None, :, None] / policy.unit_currency
    return np.nanmin(each, axis=1)[:, None] * watts, np.nanmax(each, axis=1)[:, None] * watts
