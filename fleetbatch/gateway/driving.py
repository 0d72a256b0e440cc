"""Runs what answers a call without a task: making one costs more than most calls have to do between their waits."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

Then = Callable[[T | Exception], None]
"""What happens with an answer, or with the error in its place; it must not raise."""
Start = Callable[[Then[Any]], None]
"""Something that is waited for: begin it, and say what to do with its answer."""


def drive(coroutine: Coroutine[Start | asyncio.Future[Any], Any, T], then: Then[T]) -> None:
    """Run a coroutine as far as it goes, and on with every answer that it waits for; tell `then` how it ended.

    It may wait for futures, as in a task, and for what `Batcher.ask` gives. There is no task that it could ask for.
    """
    _go_on(coroutine, then, None)


async def driven(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns that only `drive` can run; for whoever is in a task."""
    ended: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    drive(coroutine, partial(_settle, ended))
    return await ended


def _go_on(coroutine: Coroutine[Any, Any, T], then: Then[T], answer: object) -> None:
    try:
        waits_for = coroutine.throw(answer) if isinstance(answer, Exception) else coroutine.send(answer)
    except StopIteration as end:
        then(end.value)
    except Exception as error:  # noqa: BLE001 # handed on
        then(error)
    else:
        go_on = partial(_go_on, coroutine, then)
        if callable(waits_for):  # no future is; to ask whether it is one takes ten times as long
            waits_for(go_on)
        else:
            waits_for._asyncio_future_blocking = False  # noqa: SLF001 # so a task says that it has seen it
            waits_for.add_done_callback(lambda _: go_on(None))  # the future tells the coroutine itself how it ended


def _settle(future: asyncio.Future[T], answer: T | Exception) -> None:
    if future.done():  # the caller went away
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
