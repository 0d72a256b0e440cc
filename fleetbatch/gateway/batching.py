"""Many small questions to the ledger become one call: collected for a moment, answered each on its own."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from datetime import timedelta
from typing import Generic, TypeVar

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
    ) -> None:
        """Ask through `call`, in `executor`."""
        self._call, self._about, self._executor = call, about, executor
        self._gather_s, self._batch_max = gather_for.total_seconds(), batch_max
        self._waiting: deque[tuple[Asked, asyncio.Future[Answered]]] = deque()
        self._asking: asyncio.Task[None] | None = None

    async def ask(self, question: Asked) -> Answered:
        """Return the answer to one question."""
        answer: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all())
        return await answer

    async def _ask_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._gather_s)
            batch = self._next()
            try:
                call = asyncio.get_running_loop().run_in_executor(self._executor, self._call, [q for q, _ in batch])
                answers = await call
            except Exception as error:  # noqa: BLE001 # whoever asked must hear of it, whatever it is
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), value in zip(batch, answers, strict=True):
                if not answer.done():  # the caller may have gone away
                    answer.set_result(value)

    def _next(self) -> list[tuple[Asked, asyncio.Future[Answered]]]:
        seen: set[Hashable] = set()
        batch: list[tuple[Asked, asyncio.Future[Answered]]] = []
        later: list[tuple[Asked, asyncio.Future[Answered]]] = []
        while self._waiting and len(batch) < self._batch_max:
            item = self._waiting.popleft()
            subject = self._about(item[0])
            (later if subject in seen else batch).append(item)
            seen.add(subject)
        self._waiting.extendleft(reversed(later))
        return batch
