"""Cars' lives as arrays: what agents and the ledger's machine would do between two rounds, a wave a shard.

A test shows that the same night lived by the real agent and the real machine delivers the same row groups.
"""

from typing import Final

import numpy as np

from fleetbatch.simulate.charge import Floats
from fleetbatch.simulate.deliveries import Log
from fleetbatch.simulate.meter import CRASHED, LATE, LEFT, LOST, REFUSED, STOPPED, Meter
from fleetbatch.simulate.rounds import Offers
from fleetbatch.simulate.telemetry import CLOUD, NOBODY, Standing
from fleetbatch.simulate.world import Bools, Ints, World

EARLY: Final = 1e-9


class Lives:
    """The state of all cars and shards; times in seconds from the night's start."""

    def __init__(self, world: World) -> None:
        """Begin with idle cars and open shards."""
        self.world, self.log, self.meter = world, Log(), Meter(world)
        cars, shards = len(world.fleet), len(world.work)
        fleet = world.fleet
        self.ready = np.where(fleet.consent, fleet.plugs.ready_s(), np.inf)
        self.shard = np.full(cars, NOBODY, np.int64)
        self.first = np.zeros(cars, np.int64)
        self.since = np.zeros(cars)
        self.clock = np.maximum(self.ready, 0.0)
        self.tau = np.ones(cars)
        self.cached = fleet.cached.copy()
        self.loaded_s = np.full(cars, -np.inf)
        """When each has the model of the shard that it holds; it is cached from then on."""
        self.setup_s = np.zeros(cars)
        """What it needed before the first row group of that shard: the model, and the row group's bytes."""
        self.done = np.zeros(shards, np.int64)
        self.holder = np.full(shards, NOBODY, np.int64)
        self.free_at = np.full(shards, np.inf)
        self.returned_s = np.full(shards, np.inf)
        self.valid, self.over = np.zeros(shards, bool), np.zeros(shards, bool)
        self.spoiled = np.zeros(shards, bool)
        self.void_s = np.full(shards, -np.inf)
        self.caught = np.zeros(cars, bool)

    def standing(self, at_s: float, since_s: float) -> Standing:
        """Return how things stand at a round; cars that left since the last one have said so."""
        fleet = self.world.fleet
        plugs = fleet.plugs
        spoke = fleet.consent & (plugs.arrive_s <= at_s) & (fleet.crash_s > at_s) & (plugs.leave_s > since_s)
        heard = np.flatnonzero(spoke)
        plugged = plugs.leave_s[heard] > at_s
        missing = plugs.missing_wh(at_s)[heard]
        loading = np.flatnonzero(self.holding() & (self.loaded_s > at_s))
        cached = self.cached.copy()
        cached[loading, self.world.work.workload[self.shard[loading]]] = False
        return Standing(
            heard=heard,
            heard_ago_s=np.zeros(len(heard)),
            plugged=plugged,
            willing=plugged & (plugs.ready_s()[heard] <= at_s),
            missing_wh=missing,
            drawn_w=np.where(plugged & (missing > 0.0), plugs.accept_w[heard], 0.0),
            cached=cached,
            running=self.shard,
            holder=self.holder,
            open=~self.over & np.isinf(self.returned_s) & ~self.valid,
            done=self.done,
            caught=self.caught,
        )

    def settle(self, at_s: float) -> None:
        """Do what lies behind: leases of silent cars run out, deadlines pass, audits of what came back conclude."""
        free = np.flatnonzero(self.free_at <= at_s)
        self.shard[self.holder[free]] = NOBODY
        self.holder[free], self.free_at[free] = NOBODY, np.inf
        judged = np.flatnonzero(self.returned_s <= at_s - self.world.scenario.audit_after.total_seconds())
        self.returned_s[judged] = np.inf
        bad = judged[self.spoiled[judged]]
        self.valid[judged] = True
        self.valid[bad], self.spoiled[bad] = False, False
        self._refuse(bad, at_s)
        self.over |= (self.world.work.deadline_s <= at_s) & np.isinf(self.returned_s) & ~self.valid

    def _refuse(self, shards: Ints, at_s: float) -> None:
        """Begin shards anew; whoever spoiled them is known from now on."""
        if not len(shards):
            return
        bad, lost_s = self.log.refused(self.world, shards, self.void_s)
        self.caught[bad] = True
        self.meter.lost_s[REFUSED] += lost_s
        self.done[shards], self.void_s[shards] = 0, at_s

    def advance(self, offers: Offers, from_s: float, to_s: float) -> None:
        """Live from one round to the next."""
        turn = offers.first[:-1].copy()
        limit = np.minimum(self.world.fleet.gone_s, to_s)
        np.maximum(self.clock, from_s, out=self.clock)
        self._give_away(offers.given_away, from_s)
        self._compute(np.flatnonzero(self.holding()), to_s)
        while True:
            asking = np.flatnonzero((self.shard < 0) & (self.clock < limit) & (turn < offers.first[1:]))
            if not len(asking):
                return
            shard = offers.shard[turn[asking]]
            turn[asking] += 1
            free = (self.holder[shard] == NOBODY) & ~self.over[shard] & ~self.valid[shard]
            free &= np.isinf(self.returned_s[shard]) & (self.world.work.deadline_s[shard] > self.clock[asking])
            self._take(asking[free], shard[free])
            self._compute(asking[free], to_s)

    def _take(self, car: Ints, shard: Ints) -> None:
        tau, fetch = self.world.row_group_s(car, shard)
        model = car, self.world.work.workload[shard]
        load = np.where(self.cached[model], 0.0, self.world.load_s(car, shard))
        self.shard[car], self.holder[shard] = shard, car
        self.first[car] = self.done[shard]
        self.cached[model], self.loaded_s[car], self.setup_s[car] = True, self.clock[car] + load, load + fetch
        self.since[car], self.tau[car] = self.clock[car] + load + fetch, tau
        self.meter.spend(car, self.clock[car], self.since[car])
        self.meter.begin(float(fetch.sum()), float(load.sum()))

    def _compute(self, car: Ints, to_s: float) -> None:
        """Let cars compute what they hold until it is done, they go, its deadline comes, or the next round does."""
        shard, work, fleet = self.shard[car], self.world.work, self.world.fleet
        until = np.minimum(np.minimum(fleet.gone_s[car], work.deadline_s[shard]), to_s)
        left = work.row_groups[shard] - self.done[shard]
        groups = np.clip(np.floor((until - self.since[car]) / self.tau[car] + EARLY), 0, left).astype(np.int64)
        spent = groups * self.tau[car]
        self.meter.spend(car, self.since[car], self.since[car] + spent)
        self.done[shard] += groups
        self.since[car] += spent
        whole = groups == left
        self._return(car[whole])
        ended = ~whole & ((until < to_s) | (work.deadline_s[shard] <= to_s))
        self._leave(car[ended], until[ended])

    def _return(self, car: Ints) -> None:
        """A shard's last row group is delivered."""
        shard = self.shard[car]
        self._deliver(car, shard, self.done[shard], self.since[car])
        self.returned_s[shard], self.holder[shard] = self.since[car], NOBODY
        self.clock[car], self.shard[car] = self.since[car], NOBODY

    def _give_away(self, shards: Ints, at_s: float) -> None:
        """End the leases of shards that a round gives to other cars; silent cars have lost theirs already."""
        car = self.holder[shards[self.holder[shards] >= 0]]
        silent = ~self.holding()[car]
        self.free_at[self.shard[car[silent]]] = np.inf
        self.holder[self.shard[car[silent]]], self.shard[car[silent]] = NOBODY, NOBODY
        self._leave(car[~silent], np.full(int((~silent).sum()), at_s), STOPPED)

    def _leave(self, car: Ints, until: Floats, because: int | None = None) -> None:
        """The row group in work is lost; who leaves in good order delivers what was computed after its last part."""
        shard, fleet, scenario = self.shard[car], self.world.fleet, self.world.scenario
        why = np.where(fleet.crash_s[car] <= until, CRASHED, np.where(fleet.plugs.leave_s[car] <= until, LEFT, LATE))
        why = why if because is None else np.full(len(car), because)
        unloaded = np.flatnonzero(self.loaded_s[car] > until)
        self.cached[car[unloaded], self.world.work.workload[shard[unloaded]]] = False
        self._lose(car, until, why)
        each = np.maximum(np.ceil(scenario.part_every.total_seconds() / self.tau[car] - EARLY), 1.0).astype(np.int64)
        computed = self.done[shard] - self.first[car]
        delivered = self.first[car] + np.where(why == LEFT, computed, computed // each * each)
        self.meter.lost_s += np.bincount(
            why, weights=(self.done[shard] - delivered) * self.tau[car], minlength=len(LOST)
        )
        self.done[shard] = delivered
        self._deliver(car, shard, delivered, until)
        silent = why == CRASHED
        self.holder[shard[~silent]], self.shard[car[~silent]] = NOBODY, NOBODY
        self.free_at[shard[silent]] = until[silent] + scenario.lease_for.total_seconds()
        self.since[car[silent]] = np.inf
        self.clock[car] = until

    def _lose(self, car: Ints, until: Floats, why: Ints) -> None:
        """Count the row group in work; where it was the first of the lease also what it needed, which counted whole."""
        lost, unspent = np.maximum(until - self.since[car], 0.0), np.maximum(self.since[car] - until, 0.0)
        nothing = self.done[self.shard[car]] == self.first[car]
        self.meter.spend(car, self.since[car], until)
        setup = np.where(nothing, self.setup_s[car] - unspent, 0.0)
        self.meter.lost_s += np.bincount(why, weights=lost + setup, minlength=len(LOST))

    def _deliver(self, car: Ints, shard: Ints, stop: Ints, at_s: Floats) -> None:
        self.log.add(car, shard, self.first[car], stop, at_s)
        self.spoiled[shard] |= self.world.fleet.bad[car] & (stop > self.first[car])

    def take_by_cloud(self, shards: Ints, ends_s: Floats) -> None:
        """Trusted machines compute shards that nobody holds; their answers need no audit."""
        car = np.full(len(shards), CLOUD)
        self.log.add(car, shards, self.done[shards], self.world.work.row_groups[shards], ends_s)
        self.done[shards] = self.world.work.row_groups[shards]
        self.valid[shards] = ~self.spoiled[shards]
        self.returned_s[shards[self.spoiled[shards]]] = ends_s[self.spoiled[shards]]

    def holding(self) -> Bools:
        """Return which cars hold a shard."""
        return np.asarray((self.shard >= 0) & np.isfinite(self.since))

    def hand_in(self, at_s: float) -> None:
        """The night ends: what is delivered of shards in work stays delivered."""
        car = np.flatnonzero(self.holding())
        self._leave(car, np.full(len(car), at_s))
        self.settle(at_s + self.world.scenario.audit_after.total_seconds() + 1.0)

    def charges_later(self) -> int:
        """Return how many charges compute made end later: none, since it waits for them where a plug has no room."""
        return 0
