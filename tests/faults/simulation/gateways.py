"""Gateways: memory that may be lost at any moment, in front of the real ledger; batches as they come."""

import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from faults.simulation.cars import Message, Poll
from faults.simulation.dials import Dials
from faults.simulation.faulty import DEADLY, CrashedError, Fault, FaultyLedger
from ledger_nights import request

from fleetbatch.errors import TransientError
from fleetbatch.gateway.arrivals import look_at, part_key, upload_of
from fleetbatch.gateway.gate import Gate
from fleetbatch.ledger.messages import Beat, Delivery, LeaseState, Release
from fleetbatch.nouns import OrderKey
from fleetbatch.protocol import PartRequest
from fleetbatch.units import CarId, RoundId, ShardId, shard_hex

A = TypeVar("A")
Heard = tuple[Message, Any]


def failing(ledger: FaultyLedger, chance: random.Random, dials: Dials, call: Callable[[], A]) -> A:
    """Make a call that may die or be repeated on the way."""
    dice = chance.random()
    if dice < dials.crash:
        ledger.faults.arm(chance.choice(DEADLY), after=chance.choice((0, 0, 1, 2)))
    elif dice < dials.crash + dials.again:
        ledger.faults.arm(Fault.SENT_AGAIN, after=chance.choice((0, 0, 1)))
    try:
        return call()
    finally:
        ledger.faults.disarm()


class SimulatedGateway:
    """One gateway process."""

    def __init__(self, gate: Gate, ledger: FaultyLedger, chance: random.Random, dials: Dials) -> None:
        self.gate = gate
        self.ledger = ledger
        self.chance = chance
        self.dials = dials
        self.offers: dict[int, list[int]] = {}
        self.round_id: RoundId | None = None
        self.down_until = gate.clock()

    @property
    def alive(self) -> bool:
        return self.gate.clock() >= self.down_until

    def die(self, **span: float) -> None:
        """Lose all memory and be away for a while."""
        self.offers = {}
        self.round_id = None
        self.down_until = self.gate.clock() + timedelta(**span)

    def look(self) -> tuple[RoundId, int] | None:
        """Hold the newest round, if there is a newer one; return which and how many offers it has."""
        newest = self.ledger.latest_round()
        if newest is None or newest == self.round_id:
            return None
        found = self.ledger.offers(newest)
        self.offers = {}
        for car, shard in zip(found.car_id.tolist(), found.shard_id.tolist(), strict=True):
            self.offers.setdefault(car, []).append(shard)
        self.round_id = newest
        return newest, len(found.car_id)

    def handle(self, messages: Sequence[Message], stray: Callable[[], int | None]) -> tuple[list[Heard], list[Heard]]:
        """Answer a tick's messages, a statement a kind; return what was answered, and what nobody will hear of.

        `stray` names a shard that a car without an offer asks for all the same.
        """
        heard: list[Heard] = []
        lost: list[Heard] = []
        for batch, verb in self._batches(messages, stray):
            try:
                answers = failing(self.ledger, self.chance, self.dials, lambda v=verb, b=batch: v([q for _, q in b]))  # type: ignore[misc] # bound early
            except CrashedError:
                lost += batch
                self.die(seconds=self.chance.choice((0, 20, 60)))
                return heard, lost
            except TransientError:
                lost += batch
                continue
            pairs = zip(batch, answers, strict=True)
            heard += [(message, (question, answer)) for (message, question), answer in pairs]
        return heard, lost

    def checked(self, part: Delivery, order: OrderKey, shard: ShardId) -> bool | None:
        """Look at what lies in the store, as `/v1/part/confirm` does; None when that cannot be said now."""
        claim = _claim(part, shard_hex(shard))
        key = part_key(order, shard, claim)
        try:
            found = look_at(self.gate.store, self.gate.dials.part_bytes, upload_of(key, claim))
            if found == "damaged":
                row = self.ledger.lease(part.lease_id)
                if row is not None and row.state is LeaseState.GRANTED and row.done_through <= part.start:
                    self.gate.store.delete(key)
        except TransientError:
            return None
        return found == "whole"

    def _batches(
        self, messages: Sequence[Message], stray: Callable[[], int | None]
    ) -> list[tuple[list[Heard], Callable[[Any], Sequence[Any]]]]:
        grants = [
            (m, request(m.car_id, shard))
            for m in messages
            if isinstance(m, Poll)
            if (shard := self._offer(m.car_id, stray)) is not None
        ]
        ledger = self.ledger
        batches: list[tuple[list[Heard], Callable[[Any], Sequence[Any]]]] = [
            (list(grants), ledger.grant),
            ([(m, m) for m in messages if isinstance(m, Beat)], ledger.beat),
            ([(m, m) for m in messages if isinstance(m, Delivery)], ledger.deliver),
            ([(m, m) for m in messages if isinstance(m, Release)], ledger.release),
        ]
        self.chance.shuffle(batches)
        return [(batch, verb) for batch, verb in batches if batch]

    def _offer(self, car: CarId, stray: Callable[[], int | None]) -> int | None:
        offers = self.offers.get(car)
        if offers:
            return offers.pop(0)
        return stray()


def _claim(part: Delivery, shard: str) -> PartRequest:
    return PartRequest(
        lease_id=part.lease_id,
        fence=part.fence,
        shard_id=shard,
        start=part.start,
        stop=part.stop,
        rows=part.rows,
        bytes=part.size_bytes,
        sha256=part.sha256,
        energy_wh=part.energy_wh,
        energy_source="estimated",
        busy_s=part.busy_s,
        signature="",
    )
