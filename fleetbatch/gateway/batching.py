"""Many small questions to the ledger become one call: collected for a moment, answered each on its own."""

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Hashable, Sequence
from concurrent.futures import Executor
from datetime import timedelta
from functools import partial
from time import perf_counter
from types import coroutine
from typing import Generic, TypeVar

from fleetbatch.gateway.driving import Start, Then

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


class Batcher(Generic[Asked, Answered]):
    """Collects questions for `gather_for` and asks them in one call on a thread.

    One call at a time; what comes meanwhile goes into the next. Two questions about one thing (`about`) never share a
    call, since one statement changes a row once. An error of the call is the answer to every question in it.
    """

    def __init__(
        self,
        call: Callable[[list[Asked]], Sequence[Answered]],
        about: Callable[[Asked], Hashable],
        *,
        executor: Executor,
        gather_for: timedelta,
        batch_max: int,
        took: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Ask through `call`, in `executor`; `took` hears the seconds from a batch's beginning to its answers."""
        self._call, self._about, self._executor = call, about, executor
        self._gather_s, self._batch_max = gather_for.total_seconds(), batch_max
        self._took = took
        self._waiting: deque[tuple[Asked, Then[Answered]]] = deque()
        self._asking: asyncio.Task[None] | None = None

    @coroutine
    def ask(self, question: Asked) -> Generator[Start, Answered, Answered]:
        """Return the answer to one question; to be awaited in what `drive` runs."""
        return (yield partial(self.put, question))

    def put(self, question: Asked, then: Then[Answered]) -> None:
        """Ask one question; `then` is called in the event loop: no task, and no future, waits for it."""
        self._waiting.append((question, then))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all())

    async def _ask_all(self) -> None:
        since = perf_counter()
        while self._waiting:
            await asyncio.sleep(self._gather_s)
            batch, began, since = self._next(), since, perf_counter()
            answers: Sequence[Answered | Exception]
            try:
                call = asyncio.get_running_loop().run_in_executor(self._executor, self._call, [q for q, _ in batch])
                answers = await call
            except Exception as error:  # noqa: BLE001 # whoever asked must hear of it, whatever it is
                answers = [error] * len(batch)
            self._took(perf_counter() - began)
            for (_, then), answer in zip(batch, answers, strict=True):
                then(answer)

    def _next(self) -> list[tuple[Asked, Then[Answered]]]:
        seen: set[Hashable] = set()
        batch: list[tuple[Asked, Then[Answered]]] = []
        later: list[tuple[Asked, Then[Answered]]] = []
        while self._waiting and len(batch) < self._batch_max:
            item = self._waiting.popleft()
            subject = self._about(item[0])
            (later if subject in seen else batch).append(item)
            seen.add(subject)
        self._waiting.extendleft(reversed(later))
        return batch
