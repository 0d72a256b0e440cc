"""Messages on their way: lost, doubled, late, and out of order."""

import heapq
import random
from datetime import datetime, timedelta

from faults.simulation.cars import Message
from faults.simulation.dials import Dials


class Network:
    """Carries messages to gateways; what arrives together arrives in any order."""

    def __init__(self, chance: random.Random, dials: Dials) -> None:
        self.chance = chance
        self.dials = dials
        self._way: list[tuple[datetime, int, Message]] = []
        self._sent = 0

    def send(self, message: Message, now: datetime) -> None:
        dials, dice = self.dials, self.chance.random()
        if dice < dials.lost:
            return
        self._put(message, now + self._delay())
        if dice > 1 - dials.doubled:
            self._put(message, now + self._delay())

    def arrived(self, now: datetime) -> list[Message]:
        found = []
        while self._way and self._way[0][0] <= now:
            found.append(heapq.heappop(self._way)[2])
        self.chance.shuffle(found)
        return found

    def _delay(self) -> timedelta:
        if self.chance.random() >= self.dials.delayed:
            return timedelta(0)
        return self.dials.delay_max * self.chance.random() ** 2

    def _put(self, message: Message, at: datetime) -> None:
        self._sent += 1
        heapq.heappush(self._way, (at, self._sent, message))
