"""A store in memory that is sometimes away, and whose uploads sometimes end half-way."""

import hashlib
import random
from datetime import datetime, timedelta
from typing import NoReturn, cast

from fleetbatch import layout
from fleetbatch.errors import TransientError
from fleetbatch.ledger.messages import Delivery
from fleetbatch.nouns import OrderKey
from fleetbatch.store import MissingObject, Store
from fleetbatch.units import Sha256, ShardId

RIGHT, WRONG = b"right", b"wrong"


def answers(part: Delivery, *, wrong: bool) -> bytes:
    """What a car made of its row groups; the same car makes the same of the same."""
    return b"%s|%s|%d|%d" % (WRONG if wrong else RIGHT, part.lease_id.encode(), part.start, part.stop)


def digest(data: bytes) -> Sha256:
    return Sha256(hashlib.sha256(data).hexdigest())


class SimulatedStore:
    """Objects by key. Only what gateways, cars and auditors call is here."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.away = 0.0
        self.cut = 0.0
        self.objects: dict[str, bytes] = {}

    def as_store(self) -> Store:
        return cast("Store", self)

    def upload(self, key: str, data: bytes) -> None:
        """Create an object, or fail, or leave half of it behind."""
        self._answer()
        if self.chance.random() < self.cut:
            data = data[: self.chance.randrange(len(data))]
        self.objects.setdefault(key, data)

    def size(self, key: str) -> int | None:
        self._answer()
        return len(self.objects[key]) if key in self.objects else None

    def read(self, key: str) -> bytes:
        self._answer()
        if key not in self.objects:
            raise MissingObject(key)
        return self.objects[key]

    def delete(self, key: str) -> None:
        self._answer()
        self.objects.pop(key, None)

    def forget(self, prefix: str) -> None:
        """Drop a night's objects."""
        for key in [key for key in self.objects if key.startswith(prefix)]:
            del self.objects[key]

    def sign_get(self, key: str, *, now: datetime, expires: timedelta) -> NoReturn:
        """Nobody signs here."""
        raise NotImplementedError

    def _answer(self) -> None:
        if self.chance.random() < self.away:
            message = "the store is away"
            raise TransientError(message)


def part_key(key: OrderKey, shard_id: int, part: Delivery) -> str:
    return layout.part(key, ShardId(shard_id), part.lease_id, part.start, part.stop, part.sha256)
