"""One call at a time about each thing, in the order of coming, for what `drive` runs."""

import asyncio
from collections import deque
from collections.abc import Generator, Hashable
from functools import partial
from types import coroutine
from typing import Generic, TypeVar

from fleetbatch.gateway.driving import Start, Then

Thing = TypeVar("Thing", bound=Hashable)


class Turns(Generic[Thing]):
    """Whoever is about a thing keeps those that come meanwhile waiting.

    Hardly ever anybody does: a lock for each thing, made anew and held weakly, would be a tenth of what a call costs.
    """

    def __init__(self) -> None:
        """Begin with nobody about anything."""
        self._waiting: dict[Thing, deque[Then[None]]] = {}

    def __len__(self) -> int:
        """Return how many things somebody is about."""
        return len(self._waiting)

    @coroutine
    def begin(self, thing: Thing) -> Generator[Start, None, None]:
        """Wait until nobody else is about the thing; `end` must follow, whatever happens."""
        if thing in self._waiting:
            yield partial(self._wait, thing)
        else:
            self._waiting[thing] = _NOBODY

    def end(self, thing: Thing) -> None:
        """Let the next go on, if anybody waits: the thing is theirs from now on, whoever else comes before they run."""
        waiting = self._waiting[thing]
        if waiting:
            asyncio.get_running_loop().call_soon(waiting.popleft(), None)
        else:
            del self._waiting[thing]

    def _wait(self, thing: Thing, then: Then[None]) -> None:
        if self._waiting[thing] is _NOBODY:
            self._waiting[thing] = deque()
        self._waiting[thing].append(then)


_NOBODY: deque[Then[None]] = deque()
"""Waits for most things; nothing is added to it."""
