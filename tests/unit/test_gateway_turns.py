"""One call at a time about each lease's objects."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from fleetbatch.gateway.driving import driven
from fleetbatch.gateway.turns import Turns


def side_by_side(*calls: Coroutine[Any, Any, None]) -> list[BaseException | None]:
    """Run calls as the gateway does, all at once."""

    async def all_of_them() -> list[BaseException | None]:
        return await asyncio.gather(*map(driven, calls), return_exceptions=True)

    return asyncio.run(all_of_them())


async def about(turns: Turns[str], thing: str, name: str, seen: list[str], *, fails: bool = False) -> None:
    """Be about a thing for a while, as an endpoint is about a lease's objects."""
    await turns.begin(thing)
    try:
        seen.append(f"{name} begins")
        for _ in range(3):
            await a_moment()
        if fails:
            raise ValueError(name)
        seen.append(f"{name} ends")
    finally:
        turns.end(thing)


async def a_moment() -> None:
    loop = asyncio.get_running_loop()
    moment = loop.create_future()
    loop.call_soon(moment.set_result, None)
    await moment


def test_those_about_one_thing_go_one_after_the_other_as_they_came() -> None:
    turns, seen = Turns[str](), list[str]()
    assert side_by_side(*(about(turns, "lease", name, seen) for name in "abc")) == [None] * 3
    assert seen == [f"{name} {what}" for name in "abc" for what in ("begins", "ends")]
    assert len(turns) == 0, "nothing is kept of what nobody is about"


def test_those_about_other_things_wait_for_nobody() -> None:
    turns, seen = Turns[str](), list[str]()
    side_by_side(about(turns, "lease", "a", seen), about(turns, "another", "b", seen))
    assert seen[:2] == ["a begins", "b begins"]


def test_whoever_fails_lets_the_next_go_on() -> None:
    turns, seen = Turns[str](), list[str]()
    [error, _] = side_by_side(about(turns, "lease", "a", seen, fails=True), about(turns, "lease", "b", seen))
    assert isinstance(error, ValueError)
    assert seen == ["a begins", "b begins", "b ends"]
    assert len(turns) == 0


def test_whoever_comes_while_a_turn_is_handed_over_waits_behind_those_who_came_before() -> None:
    turns, seen = Turns[str](), list[str]()

    async def twice() -> None:
        await about(turns, "lease", "a", seen)
        await about(turns, "lease", "a again", seen)

    side_by_side(twice(), about(turns, "lease", "b", seen))
    assert [one for one in seen if one.endswith("begins")] == ["a begins", "b begins", "a again begins"]
