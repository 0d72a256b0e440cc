"""A gateway behind a door, and one car before it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_doors import Door, TestedCar, open_door
from gateway_lines import with_token


@pytest.fixture
def plain() -> bool:
    """Whether every call goes to the application; a suite that is about both ways has a parameter of this name."""
    return False


@pytest.fixture
def door(database_url: str, tmp_path: Path, plain: bool) -> Iterator[Door]:  # noqa: FBT001 # a fixture
    with open_door(database_url, tmp_path, plain=plain) as door:
        yield door


@pytest.fixture
def car(door: Door) -> TestedCar:
    """A car that was offered shard 7, with row groups of 3, 3 and 2 rows."""
    car = door.car()
    door.open({7: (3, 3, 2)})
    door.offer((car.id, 7))
    return car


@pytest.fixture
def idle(door: Door) -> TestedCar:
    """A car with a token for which there is no work."""
    door.gate.chance = lambda: 0.5
    return with_token(door, door.car(1))
