"""What will happen in a night of events, in order of time and, at one instant, of being noted."""

import heapq
import math
from collections.abc import Iterator
from typing import TypeAlias

from fleetbatch.simulate.driver import SECOND

Due: TypeAlias = tuple[int, int, int, int]
"""When in microseconds, what kind, and two numbers of its own."""


class Agenda:
    """Events by their time in whole microseconds from the night's start."""

    def __init__(self) -> None:
        """Begin with nothing to happen."""
        self.heap: list[tuple[int, int, int, int, int]] = []
        self.noted = 0

    def note(self, at_s: float, kind: int, one: int, other: int) -> None:
        """Note an event; it happens no earlier than told."""
        self.noted += 1
        heapq.heappush(self.heap, (math.ceil(at_s * SECOND), self.noted, kind, one, other))

    def due(self, until_s: float) -> Iterator[Due]:
        """Yield what happens before an instant, what is noted meanwhile included."""
        until = math.ceil(until_s * SECOND)
        while self.heap and self.heap[0][0] < until:
            us, _, kind, one, other = heapq.heappop(self.heap)
            yield us, kind, one, other
