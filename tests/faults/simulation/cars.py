"""Cars as they are: they leave, are cut off, come back late, lie, or never believe that their lease is over."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from faults.simulation.dials import Dials
from faults.simulation.store import SimulatedStore, answers, digest, part_key

from fleetbatch.errors import TransientError
from fleetbatch.ledger.ids import lease_id
from fleetbatch.ledger.messages import (
    Beat,
    BeatAnswer,
    Delivered,
    Delivery,
    Granted,
    Refused,
    Release,
    Released,
    Terminal,
)
from fleetbatch.units import CarId, Fence, Sha256, ShardId

FORGED = "forged"
NEVER = datetime.max.replace(tzinfo=UTC)
_REASONS = ("unplugged", "driving", "too_hot", "battery_low", "shutdown")


@dataclass(frozen=True, slots=True)
class Poll:
    """A car that would compute asks for a lease."""

    car_id: CarId


Message = Poll | Beat | Delivery | Release
Answer = Granted | Refused | BeatAnswer | Delivered | Released | Terminal | None
RowsOf = Callable[[int], tuple[int, ...]]


class SimulatedCar:
    """One car: what it holds, what it has computed and not yet delivered, and how it behaves."""

    def __init__(self, car: int, chance: random.Random, dials: Dials, *, now: datetime) -> None:
        self.id = CarId(car)
        self.chance = chance
        self.dials = dials
        self.liar = chance.random() < dials.liars
        self.zombie = chance.random() < dials.zombies
        self.stalled = bool(dials.stalled_each) and car % dials.stalled_each == 0
        """It says for ever that it computes, and delivers nothing; calm does not mend it."""
        self.pace = chance.uniform(0.8, 1.25)
        """How fast its clock runs: a car's time is its own."""
        self.lease: Granted | None = None
        self.done = 0
        self.pending: Delivery | None = None
        self.made = b""
        """The pending part's bytes: who turns honest meanwhile still has what it has."""
        self.uploaded = False
        self.next_at = now + timedelta(seconds=chance.uniform(0, 60))
        self.beat_at = self.part_at = self.leave_at = now
        self.reason = "unplugged"
        self.next_rows = 1
        """Of the row group that leaves a gap after the part that is due."""
        self.past: deque[Message] = deque(maxlen=6)
        self.acknowledged: deque[Message] = deque(maxlen=20)

    def act(self, now: datetime, store: SimulatedStore, rows_of: RowsOf) -> list[Message]:
        """Say what this car sends now."""
        said = self._haunt() if self.zombie and self.chance.random() < 0.25 else []
        if self.lease is None:
            self._again_in(now, 20, 40)
            return [*said, Poll(self.id)]
        self._again_in(now, 10, 25)
        if now >= self.leave_at:
            return [*said, self._goodbye(self.lease)]
        if now >= self.beat_at:
            self.beat_at = now + timedelta(seconds=60 * self.pace)
            said.append(self._beat(self.lease))
        if self.pending is None and now >= self.part_at and not self.stalled:
            self.pending, self.uploaded = self._part(self.lease, rows_of(self.lease.shard_id)), False
        if self.pending is not None and self._upload(self.lease, self.pending, store):
            said.append(self.pending)
        self.past.extend(said)
        return said

    def hear(self, message: Message, answer: Answer, now: datetime) -> None:
        """Believe an answer, if it is about what this car does now."""
        if isinstance(answer, Granted):
            self._take(answer, now)
        elif self.lease is None or not _about(message, self.lease) or (isinstance(answer, BeatAnswer) and answer.go_on):
            return
        elif isinstance(answer, Delivered):
            self._delivered(message, answer, now)
        else:  # over, released, or a part that does not fit: ask again
            self.lease = self.pending = None

    def damaged(self, part: Delivery) -> None:
        """What lay in the store was not what was claimed; it was removed."""
        if self.pending == part:
            self.uploaded = False

    def _again_in(self, now: datetime, least_s: float, most_s: float) -> None:
        self.next_at = now + timedelta(seconds=self.chance.uniform(least_s, most_s) * self.pace)

    def _take(self, lease: Granted, now: datetime) -> None:
        if self.lease is not None and self.lease.lease_id == lease.lease_id:
            return
        self.lease, self.done, self.pending = lease, lease.start, None
        self.beat_at = now + timedelta(seconds=60 * self.pace)
        self.part_at = now + self._work()
        self.leave_at = NEVER
        dice = self.chance.random()
        self.reason = self.chance.choice(_REASONS)
        if dice < self.dials.leave:
            self.leave_at = now + timedelta(seconds=self.chance.uniform(5, 400))
        elif dice < self.dials.leave + self.dials.unusable:
            self.leave_at, self.reason = now, "refused"
        elif dice < self.dials.leave + self.dials.unusable + self.dials.vanish:
            self.next_at = now + timedelta(minutes=self.chance.uniform(3, 30))

    def _work(self) -> timedelta:
        return timedelta(seconds=self.chance.uniform(20, 70) * self.pace)

    def _delivered(self, message: Message, answer: Delivered, now: datetime) -> None:
        self.done = max(self.done, answer.done_through)
        self.acknowledged.append(message)
        if message == self.pending:
            self.pending, self.part_at = None, now + self._work()
        if answer.complete:
            self.lease = self.pending = None

    def _beat(self, lease: Granted) -> Beat:
        return Beat(
            car_id=self.id,
            lease_id=lease.lease_id,
            fence=lease.fence,
            row_groups_done=self.done,
            energy_wh=float(self.done),
            busy_s=float(self.done),
        )

    def _goodbye(self, lease: Granted) -> Release:
        if self.chance.random() < 0.2:
            self.lease = self.pending = None  # gone, whether anyone heard it or not
        return Release(car_id=self.id, lease_id=lease.lease_id, fence=lease.fence, reason=self.reason)

    def _part(self, lease: Granted, rows: tuple[int, ...]) -> Delivery:
        stop = min(len(rows), self.done + self.chance.choice((1, 1, 2)))
        self.next_rows = rows[stop + 1] if stop + 1 < len(rows) else 1
        empty = Delivery(
            car_id=self.id,
            lease_id=lease.lease_id,
            fence=lease.fence,
            start=self.done,
            stop=stop,
            rows=sum(rows[self.done : stop]),
            size_bytes=0,
            sha256=Sha256(""),
            energy_wh=0.3 * (self.id % 5) ** 3,  # from nothing to more than any work takes
            energy_source="estimated",
            busy_s=30.0,
        )
        self.made = answers(empty, wrong=self._lies(lease, self.done))
        return replace(empty, size_bytes=len(self.made), sha256=digest(self.made))

    def _lies(self, lease: Granted, start: int) -> bool:
        return self.liar and (lease.fence + start) % 2 == 0

    def _upload(self, lease: Granted, part: Delivery, store: SimulatedStore) -> bool:
        """Put the part's bytes once; claim it in any case later, in case the answer alone was lost."""
        if not self.uploaded:
            try:
                store.upload(part_key(lease.order_key, lease.shard_id, part), self.made)
            except TransientError:
                return self.chance.random() < 0.1  # claims what it never uploaded
        self.uploaded = True
        return True

    def _haunt(self) -> list[Message]:
        """What a zombie sends: what it sent before, under its own fence and under others'."""
        said: list[Message] = []
        if self.lease is not None:  # as another car
            other = CarId(self.id + 1)
            said.append(Release(car_id=other, lease_id=self.lease.lease_id, fence=self.lease.fence, reason="driving"))
        for old in [*list(self.past)[-3:], *([self.pending] if self.pending else [])]:
            if old is not self.pending:
                said.append(old)
            if not isinstance(old, Poll):
                fence = Fence(old.fence + self.chance.choice((-1, 1, 1)))
                said.append(replace(old, fence=fence))
                day, shard = _night_and_shard(old.lease_id)
                said.append(replace(old, fence=fence, lease_id=lease_id(day, shard, max(0, fence))))
                said.append(replace(old, car_id=CarId(self.id + 1)))
            if isinstance(old, Delivery):
                said.append(replace(old, rows=old.rows + 1, signature=FORGED))
                said.append(replace(old, stop=old.stop + 5, signature=FORGED))
                if old is self.pending:
                    start = old.stop + 1
                    said.append(replace(old, start=start, stop=start + 1, rows=self.next_rows, signature=FORGED))
                if old in self.acknowledged:
                    said.append(replace(old, sha256=digest(b"other"), signature=FORGED))
        return said


def _about(message: Message, lease: Granted) -> bool:
    if isinstance(message, Poll):
        return False
    return (message.lease_id, message.fence, message.car_id) == (lease.lease_id, lease.fence, lease.car_id)


def _night_and_shard(lease: str) -> tuple[datetime, ShardId]:
    return datetime.strptime(lease[:8], "%Y%m%d"), ShardId(int(lease[9:25], 16))  # noqa: DTZ007 # a date
