"""The ledger of a simulated night: every shard is moved by the real machine, and by nothing else."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from fleetbatch.ledger import life, machine
from fleetbatch.ledger.dials import LedgerDials
from fleetbatch.ledger.messages import BeatAnswer, Delivered, Refused, Released, Terminal
from fleetbatch.ledger.rounds import GIVEN_AWAY
from fleetbatch.ledger.states import ShardState
from fleetbatch.protocol import Lease
from fleetbatch.simulate.scenario import WORKLOADS
from fleetbatch.simulate.telemetry import CLOUD, NOBODY
from fleetbatch.simulate.world import Bools, Ints, World
from fleetbatch.units import CLOUD_CAR, CarId, Fence, Sha256, ShardId, shard_hex

CONTENT = Sha256("0" * 64)
ATTEMPTS_MAX = 3
_LEDGER = LedgerDials()
OPEN = frozenset({ShardState.READY, ShardState.OUT})


@dataclass(slots=True)
class Desk:
    """Shards by their place in the world; cars by their place + 1, since 0 is the cloud lane."""

    world: World
    shards: list[life.Shard] = field(init=False)
    steps: int = 0

    def __post_init__(self) -> None:
        """Register every shard, with a row a row group."""
        counts = self.world.work.row_groups.tolist()
        self.shards = [life.Shard(row_group_rows=(1,) * count, attempts_max=ATTEMPTS_MAX) for count in counts]

    def step(self, place: int, event: life.Event, now: datetime) -> life.Answer:
        """Move a shard; return what its machine answers."""
        self.shards[place], answer = machine.step(self.shards[place], event, now=now)
        self.steps += 1
        return answer

    def take(self, place: int, car: int, now: datetime) -> Lease | None:
        """Grant the shard if it is free."""
        scenario = self.world.scenario
        answer = self.step(place, life.Take(car_id=car_of(car), lease_for=scenario.lease_for), now)
        if not isinstance(answer, life.OpenLease):
            return None
        return Lease(
            lease_id=f"{place}-{answer.fence}",
            fence=answer.fence,
            shard_id=shard_hex(ShardId(int(self.world.work.shard_id[place]))),
            order_key="",
            workload=WORKLOADS[self.world.work.workload[place]],
            options={},
            model_sha256="",
            model_url="",
            model_bytes=0,
            shard_url="",
            shard_bytes=0,
            shard_sha256="",
            shard_key="",
            row_groups=self.shards[place].row_groups,
            start=answer.start,
            expires_in_s=scenario.lease_for.total_seconds(),
            beat_every_s=scenario.beat_every.total_seconds(),
            part_every_s=scenario.part_every.total_seconds(),
        )

    def compute_whole(self, place: int, car: int, now: datetime) -> Lease | None:
        """Grant the shard if it is free, and take all that is left of it at once."""
        lease = self.take(place, car, now)
        if lease is not None:
            self.deliver(place, (car, lease.fence), (lease.start, lease.row_groups), now)
        return lease

    def beat(self, place: int, car: int, fence: int, now: datetime) -> BeatAnswer:
        """Renew a lease, or say why it is over."""
        event = life.Beat(
            car_id=car_of(car), fence=Fence(fence), resumed_at=self._resumed_at(), stalled_after=_LEDGER.stalled_after
        )
        answer = self.step(place, event, now)
        assert isinstance(answer, BeatAnswer)
        return answer

    def deliver(self, place: int, holder: tuple[int, int], span: tuple[int, int], now: datetime) -> life.Answer:
        """Take row groups [start, stop) from the holder (car, fence)."""
        event = life.Deliver(
            car_id=car_of(holder[0]), fence=Fence(holder[1]), start=span[0], stop=span[1], rows=span[1] - span[0],
            sha256=CONTENT,
        )  # fmt: skip
        answer = self.step(place, event, now)
        assert isinstance(answer, Delivered | Terminal | Refused)
        return answer

    def let_go(self, place: int, holder: tuple[int, int], reason: str, now: datetime) -> life.Answer:
        """Take a lease back from its holder (car, fence)."""
        answer = self.step(place, life.LetGo(car_id=car_of(holder[0]), fence=Fence(holder[1]), reason=reason), now)
        assert isinstance(answer, Released | Terminal)
        return answer

    def expire(self, place: int, now: datetime) -> datetime | None:
        """End a silent lease; return when to look again while one is open."""
        self.step(place, life.TimePassed(resumed_at=self._resumed_at()), now)
        lease = self.shards[place].lease
        return None if lease is None else lease.expires_at

    def _resumed_at(self) -> datetime:
        """Return since when the cell is in service: it has no outages here."""
        return self.world.scenario.starts_at - timedelta(days=1)

    def give_away(self, places: Ints, now: datetime) -> None:
        """End the leases of shards that a round gives to other cars."""
        for place in places.tolist():
            self.step(place, life.Revoke(reason=GIVEN_AWAY), now)

    def holders(self) -> Ints:
        """Return each shard's holder as a place."""
        leases = (shard.lease for shard in self.shards)
        cars = (NOBODY if one is None else CLOUD if one.car_id == CLOUD_CAR else one.car_id - 1 for one in leases)
        return np.fromiter(cars, np.int64, len(self.shards))

    def done(self) -> Ints:
        """Return each shard's row groups delivered."""
        return np.fromiter((shard.done_through for shard in self.shards), np.int64, len(self.shards))

    def among(self, states: frozenset[ShardState]) -> Bools:
        """Return which shards are in one of the states."""
        return np.fromiter((shard.state in states for shard in self.shards), np.bool_, len(self.shards))


def car_of(place: int) -> CarId:
    """Return the ledger's name of the car at a place."""
    return CLOUD_CAR if place == CLOUD else CarId(place + 1)
