"""Do speculative copies near the deadline pay? One night with them beside the same night without, departures alike.

A copy is as favourable as it could be: a car that the round leaves idle computes on at the shard of a holder who will
probably leave, begins with what is delivered, and is its holder at once when the other one leaves; nothing is counted
twice but the energy. A storm takes three cars in ten at one instant, an hour before the night ends.
"""

import sys

import numpy as np

from benchmarks.planner_fleet import NIGHT_S, evening
from benchmarks.planner_pulls import CARS, STEP_S, Choose, Floats, Ints, Night, ours
from benchmarks.run import tell

SEEDS = (3, 4, 5)
STORM_AT_S = NIGHT_S - 3600.0
STORM_SHARE = 0.3
NEAR_S = 7200.0
"""Copies are made of what is due so soon; earlier, whatever is lost can still be computed again."""
NOBODY = -1


class Copying(Night):
    """A night in which idle cars follow the holders of shards that may not end."""

    def storm(self, seed: int) -> None:
        """Let some of the cars leave at once."""
        struck = np.random.default_rng(seed).random(CARS) < STORM_SHARE
        self.gone = np.where(struck, np.minimum(self.gone, STORM_AT_S), self.gone)

    def copy(self, choose: Choose, at: float) -> None:
        """Live one step in which idle cars copy what is most likely to be lost."""
        holder = np.flatnonzero((self.running != NOBODY) & (self.gone > at))
        before = {int(self.running[car]): int(car) for car in holder}
        from_group = self.done.copy()
        self.live(choose, at, at + STEP_S)
        idle = self._longest(at)
        for shard in self._endangered(before, at).tolist():
            tau = self.row_group_s(idle, np.full(len(idle), shard))
            able = np.flatnonzero(np.isfinite(tau))
            if len(able):
                self._compute_copy(int(idle[able[0]]), shard, float(tau[able[0]]), (int(from_group[shard]), at))
                idle = np.delete(idle, able[0])

    def _compute_copy(self, car: int, shard: int, tau: float, standing: tuple[int, float]) -> None:
        """Compute a copy from where the shard stood when the step began."""
        done, at = standing
        stop = min(at + STEP_S, float(self.gone[car]), float(self.s["deadline_s"][shard]))
        begins = at + float(self.s["bytes"][shard] / self.c["link_down_Bps"][car])
        groups = min(max(int((stop - begins) / tau), 0), int(self.s["row_groups"][shard]) - done)
        self._follow(shard, car, done + groups, at + STEP_S)
        self.energy += self._energy(car, groups * tau, at)

    def _endangered(self, before: dict[int, int], at: float) -> Ints:
        """Return held shards by what is likely to be lost of them, the most first."""
        shards, cars = np.array(list(before), np.int64), np.array(list(before.values()), np.int64)
        ends = at + self.row_group_s(cars, shards) * (self.s["row_groups"] - self.done)[shards]
        here = np.maximum(self._stays(cars, np.full(len(cars), at)), 1e-9)
        lost = self.s["units"][shards] * (1.0 - self._stays(cars, ends) / here)
        lost[self.s["deadline_s"][shards] - at > NEAR_S] = 0.0
        return shards[np.argsort(-lost, kind="stable")][: int(np.count_nonzero(lost))]

    def _longest(self, at: float) -> Ints:
        """Return the cars that stand idle, those who will probably stay longest first."""
        free = (self.free <= at) & (self.running == NOBODY) & (self.gone > at) & (self.c["ready_s"] <= at)
        idle = np.flatnonzero(free)
        return idle[np.argsort(-self._stays(idle, np.full(len(idle), at + 2 * STEP_S)), kind="stable")]

    def _stays(self, cars: Ints, at: Floats) -> Floats:
        place = np.minimum(at / 900.0, 95.0).astype(np.int64)
        return np.asarray(self.survival[cars, place])

    def _follow(self, shard: int, car: int, done: int, until_s: float) -> None:
        """Count what the copy has more than its holder; it goes on where the holder left."""
        self.done[shard] = max(int(self.done[shard]), done)
        holders = np.flatnonzero(self.running == shard)
        if self.done[shard] == self.s["row_groups"][shard]:
            self.running[holders], self.held[shard] = NOBODY, False
        elif not len(holders) and not self.held[shard]:
            self.running[car], self.held[shard], self.free[car] = shard, True, until_s

    def _energy(self, car: int, seconds: float, at: float) -> float:
        policy = self.e.policy
        step = min(int(np.searchsorted(policy.price_until_s, at, "right")), 5)
        watts = policy.power_w[int(self.c["hw"][car])]
        return policy.price_per_j[0][step] * watts * seconds / policy.unit_currency


def lived(load: float, seed: int, *, copies: bool) -> tuple[float, float]:
    """Return the value of a night as a share of all its work, and the share of row groups that are done."""
    night = Copying(evening(CARS, load=load, seed=seed), seed=seed)
    night.storm(seed)
    for at in np.arange(0.0, NIGHT_S, STEP_S).tolist():
        choose = ours(night, at)
        if copies:
            night.copy(choose, at)
        else:
            night.live(choose, at, at + STEP_S)
    worth = np.array(night.e.policy.value_per_unit)[night.s["priority"].astype(np.int64)] * night.s["work_units"]
    return night.value() / float(worth.sum()), float(night.done.sum() / night.s["row_groups"].sum())


def main(load: float) -> None:
    """Live the same nights with copies and without."""
    found = np.array([[lived(load, seed, copies=copies) for copies in (False, True)] for seed in SEEDS])
    without, with_ = np.median(found, axis=0)
    gain = np.median(found[:, 1] - found[:, 0], axis=0)
    name = f"a night of {CARS:,} cars with a storm, load {load}"
    tell(f"{name}: value without copies", float(without[0]), "share")
    tell(f"{name}: value with copies", float(with_[0]), "share")
    tell(f"{name}: gain of copies in value", float(gain[0]), "share")
    tell(f"{name}: row groups undone without copies", 1.0 - float(without[1]), "share")
    tell(f"{name}: gain of copies in row groups", float(gain[1]), "share")


if __name__ == "__main__":
    main(float(sys.argv[1]))
