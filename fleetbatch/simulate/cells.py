"""A region's fleet as cells that share nothing: cars and shards are dealt out by their ids. Pure."""

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from fleetbatch.simulate.charge import Plugs
from fleetbatch.simulate.world import Bools, Fleet, Work, World

SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: the upper bits of an id times this are spread evenly (Knuth, TAOCP 6.4)."""
UPPER: Final = np.uint64(32)
OF_CARS: Final = ("car_id", "hw", "speed", "link", "consent", "cached", "bad", "crash_s", "outage_s", "gone_s")


def split(world: World, cells: int) -> list[World]:
    """Return the night of each cell; every car and every shard is in exactly one, what is known of stays in all."""
    fleet, work = world.fleet, world.work
    car, absent, shard = (cell_of(ids, cells) for ids in (fleet.car_id, fleet.absent_id, work.shard_id))
    return [_part(world, (car == cell, absent == cell, shard == cell)) for cell in range(cells)]


def cell_of(ids: npt.NDArray[np.uint64], cells: int) -> npt.NDArray[np.uint64]:
    """Return the cell of each id."""
    return np.asarray(((ids * SPREAD) >> UPPER) % np.uint64(cells))


def _part(world: World, mine: tuple[Bools, Bools, Bools]) -> World:
    car, absent, shard = mine
    fleet, work = world.fleet, world.work
    plugs = Plugs(**{name: getattr(fleet.plugs, name)[car] for name in Plugs.__slots__})
    columns = {name: getattr(fleet, name)[car] for name in OF_CARS}
    enrolled = int(car.sum() + absent.sum())
    return World(
        scenario=replace(world.scenario, cars=enrolled, shards=int(shard.sum())),
        fleet=Fleet(
            **columns, absent_id=fleet.absent_id[absent], plugs=plugs, past=fleet.past, timezone=fleet.timezone
        ),
        work=Work(**{name: getattr(work, name)[shard] for name in Work.__slots__}),
    )
