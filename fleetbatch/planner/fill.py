"""From shares of classes to pieces on cars, wave by wave: in each, every free car takes one shard of its kind. Pure.

The lists of a kind and deadline are taken from the front, the most urgent first. Every step is a pass over arrays in
pieces that stay in the cache; nothing is sorted but one byte a car.
"""

import enum
import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.classes import Fleet, each_car
from fleetbatch.planner.grid import Grid, buffer_from
from fleetbatch.planner.inputs import CHUNK, Cars, Floats, Ints, Shards, Singles
from fleetbatch.planner.kinds import Work
from fleetbatch.planner.lists import Lists, split
from fleetbatch.planner.pieces import Pieces, Running, room_for
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.prices import Solution
from fleetbatch.planner.ranked import NOTHING
from fleetbatch.planner.reasons import Reason
from fleetbatch.planner.righting import righted
from fleetbatch.planner.turns import TURNS

QUARTER_OCTAVE = 5
"""The lowest bits of a float's upper half, without which steps are that wide; with the turns 16 bits are left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a fill starts from; `cost` is [class, block]."""

    cars: Cars
    shards: Shards
    fleet: Fleet
    work: Work
    grid: Grid
    policy: Policy
    cost: Floats


def fill(given: Given, solution: Solution, running: Running, reason: Reason) -> Pieces:
    """Return what runs and what the shares put on cars up to the commit horizon."""
    filling = Filling(given, running, reason)
    for block in range(given.grid.blocks()):
        if given.grid.edges[block] < given.policy.commit_s:
            filling.block(block, solution)
    return righted(filling, filling.pieces())


class Ends(enum.Enum):
    """How much of a shard a car must promise before it gets one; what nobody promises more of is given for less."""

    BEFORE_BUFFER = enum.auto()
    IN_TIME = enum.auto()
    IN_PART = enum.auto()


class Filling:
    """Cars' queues as they grow; arrays over cars are in class order."""

    def __init__(self, given: Given, running: Running, reason: Reason) -> None:
        """Start with what runs."""
        order, self.reason = given.fleet.order, reason
        self.given, self.lists, self.order = given, Lists(given.work), order
        self.speed, self.link, self.compute = given.fleet.speed, given.fleet.link, given.fleet.compute
        self.loaded = given.cars.cached.take(order if given.policy.model_bytes else order[:0])
        self.limit, self.free = given.fleet.limit, given.fleet.begins.copy()
        self.queue = np.bincount(running.pieces.car, minlength=len(order)).astype(np.uint16).take(order)
        self.put, self.room = len(running.pieces), room_for(max(len(order), len(running.pieces)))
        """So many pieces so far; the room grows when it is full."""
        self.room.records[: self.put] = running.pieces.records
        self.end, self.refused, self.exact = Ends.BEFORE_BUFFER, False, given.grid.exact()
        self.places: npt.NDArray[np.int32] | None = None
        self.waves: list[tuple[int, int, int]] = []
        """The kind of each wave, and where among the pieces its own begin and end."""

    def block(self, block: int, solution: Solution) -> None:
        """Fill one block; a shard that a car would not end by its deadline is given to it only if to nobody else."""
        grid = self.given.grid
        until = min(float(grid.edges[block + 1]), self.given.policy.commit_s)
        choices, energy = self._choices(block, solution), self._energy(block)
        everything = [True] * len(grid.deadlines)
        pressing = (grid.edges[block] >= buffer_from(grid.deadlines, self.given.policy)).tolist()
        flow = solution.flow[:, block].sum(axis=2)
        # What has no price is scarcer than time: nobody is chosen for it, so that no car has two where others idle.
        dear = np.flatnonzero(solution.price[:, block] > 0.0).tolist()
        self._look_ahead(choices, flow)
        paid, lowest = dict[int, Ints](), dict[int, Ints]()
        for self.end in Ends:
            self.refused = False
            for kind in dear:
                self._waves(kind, choices[kind], flow[kind].tolist(), until)
            self._by_price(solution.price[:, block], energy, until, everything, paid)
            if any(pressing):
                self._by_price(self._lowest_value, energy, until, pressing, lowest)
            if not self.refused:
                return

    def _look_ahead(self, choices: list[Ints], flow: Floats) -> None:
        """Have as many shards put in order as will probably be taken: one a car, and those that the block completes.

        Cars that nobody chose may want any kind.
        """
        work = self.given.work
        shards = np.maximum(work.shards().reshape(work.demand.shape).sum(axis=2), 1)
        completed = np.rint(flow / np.maximum(work.demand.sum(axis=2) / shards, 1e-30)).astype(np.int64)
        others = (len(self.order) - sum(len(cars) for cars in choices)) // OTHERS
        wanted = []
        for kind, cars in enumerate(choices):
            waiting = self.lists.waiting(kind)
            by_share = split(len(cars), flow[kind].tolist(), waiting)
            by_price = split(others, [0.0] * len(waiting), waiting)
            wanted.append((completed[kind] + by_share + by_price).tolist())
        self.lists.put_in_order(wanted)

    def _energy(self, block: int) -> Singles:
        """Return what a busy second costs each car in the block."""
        return each_car(self.given.cost[:, block].astype(np.float32), self.given.fleet.starts)

    def _by_price(self, price: Floats, energy: Singles, until: float, due: list[bool], paid: dict[int, Ints]) -> None:
        """Let whoever is left idle take what is worth the energy at these prices, the dearest kind first.

        Only work of `due` deadlines. In their buffer that is whatever is worth its energy at all: nothing due then
        waits for a car that suits better. `paid` keeps which cars each kind pays for as many times as this is tried:
        fewer of them are idle each time, never others.
        """
        left = [sum(itertools.compress(self.lists.waiting(kind), due)) for kind in range(len(price))]
        free = None
        for kind in sorted((kind for kind, some in enumerate(left) if some), key=lambda k: (-price[k], -left[k])):
            if kind not in paid:
                free = np.flatnonzero(self.free < until) if free is None else free
                free = free.take(np.flatnonzero(self.free.take(free) < until))
                rate = self.given.fleet.rate[kind].take(free)
                pays = np.flatnonzero(
                    (rate > 0.0) & (rate * np.float32(price[kind] * BREAKS_EVEN) >= energy.take(free))
                )
                paid[kind] = free.take(pays)
            self._waves(kind, paid[kind], [0.0] * len(due), until, due)

    @property
    def _lowest_value(self) -> Floats:
        return np.full(len(self.given.work.kinds), min(self.given.policy.value_per_unit))

    def place_of(self, cars: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return places in class order of some cars."""
        if self.places is None:
            self.places = np.empty(len(self.order), np.int32)
            self.places[self.order] = np.arange(len(self.order), dtype=np.int32)
        return self.places.take(cars)

    def pieces(self) -> Pieces:
        """Return all pieces so far, those of a car in order of time."""
        return Pieces(self.room.records[: self.put])

    def _room(self, count: int) -> Pieces:
        """Return room for so many pieces more."""
        if self.put + count > len(self.room):
            old, self.room = self.pieces(), room_for(max(2 * len(self.room), self.put + count))
            self.room.records[: self.put] = old.records
        return Pieces(self.room.records[self.put : self.put + count])

    def _choices(self, block: int, solution: Solution) -> list[Ints]:
        """Return the cars of each kind in the block: within a class, in order up to each kind's share of its work."""
        fleet = self.given.fleet
        weight, ends = fleet.presence[block] * self.speed, np.zeros(len(self.order) + 1)
        np.cumsum(weight, dtype=np.float64, out=ends[1:])
        upto = ends[fleet.starts]
        cumulative = np.cumsum(solution.share[:, block], axis=1)
        # What rounding leaves of a class that is wholly at work must not stand idle.
        cumulative[cumulative > WHOLE] = 1.0 + WHOLE
        edges = upto[:-1, None] + cumulative * np.diff(upto)[:, None]
        cuts = np.searchsorted(ends[1:], edges)
        at = np.minimum(cuts, len(weight) - 1)
        cuts += ends[at + 1] - 0.5 * weight[at] < edges  # a car belongs to where its middle lies
        cuts = np.clip(cuts, fleet.starts[:-1, None], fleet.starts[1:, None])
        bounds = np.concatenate([fleet.starts[:-1, None], cuts], axis=1)
        choices = []
        for kind, rate in enumerate(fleet.rate):
            cars = np.concatenate([NOTHING, *(np.arange(*some) for some in bounds[:, kind : kind + 2].tolist())])
            choices.append(cars.take(np.flatnonzero(rate.take(cars) > 0.0)))
        return choices

    def _waves(self, kind: int, cars: Ints, shares: list[float], until: float, due: list[bool] | None = None) -> None:
        """Let cars take shards of a kind, of `due` deadlines, until none is free before `until`, or none is left."""
        cars = self._free(cars, until)
        cars = cars.take(self._turns(kind, cars))
        for _ in range(self.given.policy.pieces_max):
            waiting = self.lists.waiting(kind)
            if due is not None:
                waiting = [count * may for count, may in zip(waiting, due, strict=True)]
            counts = split(len(cars), shares, waiting)
            busy = sum(counts)
            if not busy:
                return
            took = self._wave(kind, cars[:busy], counts)
            cars = self._free(np.concatenate([took, cars[busy:]]), until)

    def _free(self, cars: Ints, until: float) -> Ints:
        """Return the cars that are free before `until`, may compute then, and have room in their queues."""
        free = self.free.take(cars)
        may = (free < until) & (free < self.limit.take(cars))
        may &= self.queue.take(cars) < self.given.policy.pieces_max
        return cars.take(np.flatnonzero(may))

    def _turns(self, kind: int, cars: Ints) -> Ints:
        """Return the order in which cars take shards, the longest of which come first: who will do most comes first.

        A float's upper half is enough to sort by; the lower bits of equals would only cost time. Where owners are due
        something, cars within a quarter of an octave count as equals, and owners take turns.
        """
        likely = self.given.fleet.rate[kind].take(cars) * self.given.fleet.later.take(cars)
        least = np.iinfo(np.uint16).max - (likely.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        turn = self.given.fleet.turn
        if turn is not None:
            least = (least >> np.uint16(QUARTER_OCTAVE)) * np.uint16(TURNS) + turn[cars]
        return np.argsort(least, kind="stable")

    def _wave(self, kind: int, cars: Ints, counts: list[int]) -> Ints:
        """Give each car the next shard, keep what fits and give the others back; return the cars that took one."""
        shard = self.lists.take(kind, counts)
        deadline, put = self._deadlines(shard, counts), 0
        took, fits = self._room(len(cars)), np.empty(len(cars), bool)
        for first in range(0, len(cars), CHUNK):
            part = slice(first, min(first + CHUNK, len(cars)))
            into = Pieces(took.records[put : put + part.stop - first])
            self.decide(kind, cars[part], (shard[part], deadline[part]), into)
            np.greater(into.stop, into.start, out=fits[part])
            put += into.keep(fits[part])
        if put < len(cars):
            ends = itertools.accumulate(counts)  # the shards of a deadline stand together
            for place, (last, count) in enumerate(zip(ends, counts, strict=True)):
                part = slice(last - count, last)
                self.lists.give_back(kind, place, shard[part][~fits[part]])
            cars, took = cars.take(np.flatnonzero(fits)), Pieces(took.records[:put])
        self.waves.append((kind, self.put, self.put + len(took)))
        self.put += len(took)
        self.free[cars] = took.ends
        self.queue[cars] += 1
        if self.given.policy.model_bytes:
            self.loaded[cars] |= np.uint32(1 << int(self.given.work.kinds.workload[kind]))
        return cars

    def _deadlines(self, shard: Ints, counts: list[int]) -> Singles:
        """Return the shards' deadlines, so many of each that the plan tells apart; looked up where it joins some."""
        if self.exact:
            return self.given.grid.deadlines.astype(np.float32).repeat(counts)
        return self.given.shards.deadline.take(shard)

    def _latest(self, deadline: Singles) -> Singles:
        """Return until when a shard must be whole."""
        match self.end:
            case Ends.BEFORE_BUFFER:
                return buffer_from(deadline, self.given.policy)
            case Ends.IN_TIME:
                return deadline
            case Ends.IN_PART:
                return np.full(len(deadline), np.inf, np.float32)

    def decide(self, kind: int, cars: Ints, due: tuple[Ints, Singles], into: Pieces) -> None:
        """Write down how far each car gets with its shard until that is due; stop is start where nothing fits."""
        policy, shards, (shard, deadline) = self.given.policy, self.given.shards, due
        workload = int(self.given.work.kinds.workload[kind])
        start, stop, free = shards.start.take(shard), shards.stop.take(shard), self.free.take(cars)
        part, left = np.float32(1.0) / stop.astype(np.float32), (stop - start).astype(np.float32)
        units = shards.work_units.take(shard).astype(np.float32) * part
        size = shards.size_bytes.take(shard).astype(np.float32) * part
        link = np.maximum(self.link.take(cars), np.float32(1e-9))
        fetch = size / link
        tau = np.maximum(units / self.compute[workload].take(cars), fetch)
        begins = free + fetch
        if policy.model_bytes:
            has = (self.loaded.take(cars) & np.uint32(1 << workload)) != 0
            begins += np.where(has, np.float32(0.0), np.float32(policy.model_bytes[workload]) / link)
        room = np.minimum(self.limit.take(cars), deadline) + ROUNDING_S - begins
        groups = np.minimum(np.floor(np.maximum(room, 0.0) / np.maximum(tau, np.float32(1e-9))), left)
        late = begins + left * tau > self._latest(deadline)
        self.refused |= bool(late.any())
        groups *= ~late & (groups >= np.minimum(policy.piece_row_groups_min, left))
        stops = start + groups.astype(np.uint16)
        into.put(car=self.order.take(cars), shard=shard, start=start, stop=stops, begins=free)
        into.put(ends=begins + groups * tau, tau=tau, units=units, whole=stops == stop)
        into.put(reason=self.reason, turn=self.queue.take(cars))


OTHERS = 4
"""So much of them is put in order for each kind; more costs a sort of a few, less a pass over all the shards."""
ROUNDING_S = np.float32(0.01)
"""What just fits must not be lost to 32-bit numbers, however short or long a row group is."""
WHOLE = 0.999
BREAKS_EVEN = 1.01
"""Where an hour is as good as a later one the price is what the car asks, within the solver's tolerance."""
