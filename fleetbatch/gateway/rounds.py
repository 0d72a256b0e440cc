"""A round as a gateway holds it: sorted arrays, looked up by car; an empty poll costs one search."""

from bisect import bisect_left
from typing import Final

import numpy as np

from fleetbatch.ledger.messages import Offers
from fleetbatch.units import CarId, RoundId, ShardId

_MARKS: Final = 1 << 23
"""One byte for all cars that end in the same bits: of a million offers, seven in eight other cars have none there."""
_MARK_OF: Final = _MARKS - 1


class OfferBook:
    """The newest round and what became of its offers here. The plan is advice: the ledger decides at the grant."""

    def __init__(self) -> None:
        """Start without a round."""
        self._round_id: RoundId | None = None
        nothing = np.empty(0, np.int64).data
        self._cars, self._shards = nothing, nothing
        """The round's own arrays; one number of a view is found in a tenth of the time that numpy needs for it."""
        self._marks = bytearray(_MARKS)
        self._taken: set[ShardId] = set()
        self._refused: set[tuple[CarId, ShardId]] = set()

    @property
    def round_id(self) -> RoundId | None:
        """Return which round is held."""
        return self._round_id

    def __len__(self) -> int:
        """Return how many offers are held."""
        return len(self._cars)

    @property
    def any_left(self) -> bool:
        """Tell whether offers may be left; a shard that was offered twice and taken may count as one that is."""
        return len(self) > len(self._taken)

    def turn(self, offers: Offers) -> None:
        """Hold the next round; what was taken or refused in the last one says nothing about this one."""
        self._round_id = offers.round_id
        self._cars, self._shards = offers.car_id.data, offers.shard_id.data
        self._marks = bytearray(_MARKS)
        np.frombuffer(self._marks, np.uint8)[offers.car_id & _MARK_OF] = 1
        self._taken.clear()
        self._refused.clear()

    def may_offer(self, car: CarId) -> bool:
        """Tell whether the car may have offers; False is certain, and costs next to nothing."""
        return bool(self._marks[car & _MARK_OF])

    def offers_for(self, car: CarId) -> list[ShardId]:
        """Return the car's shards in the plan's order, without those that are taken or were refused to it."""
        found: list[ShardId] = []
        if not self.may_offer(car):
            return found
        cars, shards = self._cars, self._shards
        for place in range(bisect_left(cars, car), len(cars)):
            if cars[place] != car:
                break
            shard = ShardId(shards[place])
            if shard not in self._taken and (car, shard) not in self._refused:
                found.append(shard)
        return found

    def took(self, shard: ShardId) -> None:
        """Offer the shard to nobody else."""
        self._taken.add(shard)

    def freed(self, shard: ShardId) -> None:
        """Offer the shard again: its holder let go."""
        self._taken.discard(shard)

    def refused(self, car: CarId, shard: ShardId) -> None:
        """Do not offer it to this car again in this round, whoever refused; another car may still want it."""
        self._refused.add((car, shard))
