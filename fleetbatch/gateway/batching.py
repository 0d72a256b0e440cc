"""Many small questions to the ledger become one call: collected for a moment, answered each on its own."""

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Hashable, Sequence
from concurrent.futures import Executor
from functools import partial
from time import perf_counter
from types import coroutine
from typing import Generic, TypeVar

from fleetbatch.gateway.driving import Start, Then
from fleetbatch.ledger.pool import is_of_some_rows

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
Batch = list[tuple[Asked, Then[Answered]]]


class Batcher(Generic[Asked, Answered]):
    """Collects questions for `gather_s` and asks them in one call on a thread.

    One call at a time; what comes meanwhile goes into the next. Two questions about one thing (`about`) never share a
    call, since one statement changes a row once. An error of the call is the answer to every question in it; one that
    some of them alone may be to blame for is the answer to those.
    """

    def __init__(
        self,
        call: Callable[[list[Asked]], Sequence[Answered]],
        about: Callable[[Asked], Hashable],
        *,
        executor: Executor,
        gather_s: Callable[[], float],
        batch_max: int,
        took: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Ask through `call`, in `executor`; `gather_s` is asked anew each time.

        `took` hears the seconds from a batch's beginning to its answers.
        """
        self._call, self._about, self._executor = call, about, executor
        self._gather_s, self._batch_max, self._took = gather_s, batch_max, took
        self._waiting: deque[tuple[Asked, Then[Answered]]] = deque()
        self._busy = False
        self._since = 0.0
        """When the batch began that is being collected."""

    @coroutine
    def ask(self, question: Asked) -> Generator[Start, Answered, Answered]:
        """Return the answer to one question; to be awaited in what `drive` runs."""
        return (yield partial(self.put, question))

    def put(self, question: Asked, then: Then[Answered]) -> None:
        """Ask one question; `then` is called in the event loop: no task, and no future, waits for it."""
        self._waiting.append((question, then))
        if not self._busy:
            self._busy, self._since = True, perf_counter()
            self._collect()

    def _collect(self) -> None:
        asyncio.get_running_loop().call_later(self._gather_s(), self._ask_all)

    def _ask_all(self) -> None:
        batch, began, self._since = self._next(), self._since, perf_counter()
        questions = [question for question, _ in batch]
        try:
            call = asyncio.get_running_loop().run_in_executor(self._executor, _answers, self._call, questions)
        except RuntimeError as error:  # the process is ending
            self._busy = False
            _tell_all(batch, [error] * len(batch))
        else:
            call.add_done_callback(partial(self._answer_all, batch, began))

    def _answer_all(
        self, batch: "Batch[Asked, Answered]", began: float, call: asyncio.Future[list[Answered | Exception]]
    ) -> None:
        try:
            answers = call.result()
        except Exception as error:  # noqa: BLE001 # whoever asked must hear of it, whatever it is
            answers = [error] * len(batch)
        self._took(perf_counter() - began)
        _tell_all(batch, answers)
        self._busy = bool(self._waiting)
        if self._busy:
            self._collect()

    def _next(self) -> "Batch[Asked, Answered]":
        seen: set[Hashable] = set()
        batch: Batch[Asked, Answered] = []
        later: Batch[Asked, Answered] = []
        while self._waiting and len(batch) < self._batch_max:
            item = self._waiting.popleft()
            subject = self._about(item[0])
            (later if subject in seen else batch).append(item)
            seen.add(subject)
        self._waiting.extendleft(reversed(later))
        return batch


def _answers(call: Callable[[list[Asked]], Sequence[Answered]], questions: list[Asked]) -> list[Answered | Exception]:
    """Ask all at once; when some may have spoiled the call, each half anew, until they are alone with their error.

    A call that failed has changed nothing, or may be made again: the ledger's every statement may.
    """
    try:
        return list(call(questions))
    except Exception as error:  # noqa: BLE001 # whoever asked must hear of it, whatever it is
        if len(questions) == 1 or not is_of_some_rows(error):
            return [error] * len(questions)
    half = len(questions) // 2
    return [*_answers(call, questions[:half]), *_answers(call, questions[half:])]


def _tell_all(batch: Batch[Asked, Answered], answers: Sequence[Answered | Exception]) -> None:
    for (_, then), answer in zip(batch, answers, strict=True):
        then(answer)
