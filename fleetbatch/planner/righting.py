"""Swaps after a fill: what was given back against less urgent shards of its list that stand last on a car. Pure.

A shard comes back when the car whose turn it was leaves too early for it; another car may have taken a less urgent one
meanwhile. Few do, and most find a place in the first pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fleetbatch.planner.inputs import CHUNK
from fleetbatch.planner.pieces import Pieces, room_for

if TYPE_CHECKING:
    from fleetbatch.planner.fill import Filling
    from fleetbatch.planner.inputs import Ints

PASSES = 3


def righted(filling: Filling, pieces: Pieces) -> Pieces:
    """Swap among the pieces and return them."""
    if not filling.lists.back:
        return pieces
    waiting = sorted(filling.lists.back)
    rows = _rows(filling, pieces, waiting)
    for _ in range(PASSES):
        swapped = [_swap(filling, pieces, rows[list_], list_) for list_ in waiting]
        if not any(swapped):
            break
    return pieces


def _rows(filling: Filling, pieces: Pieces, waiting: list[tuple[int, int]]) -> dict[tuple[int, int], Ints]:
    """Return the last pieces of cars that are less urgent than the most urgent that waits in their list."""
    work, shards = filling.given.work, filling.given.shards
    _, deadlines, levels = work.demand.shape
    gives_way = np.zeros(work.demand.size + 1, bool)
    for kind, deadline in waiting:
        first = (kind * deadlines + deadline) * levels
        most = min(int(shards.priority[filling.lists.back[kind, deadline]].min()), levels - 1)
        gives_way[first + most + 1 : first + levels] = True
    some = set((np.flatnonzero(gives_way) // (deadlines * levels)).tolist())
    rows = [np.zeros(0, np.int64)]
    for kind, put, end in filling.waves:
        for first in range(put, end if kind in some else put, CHUNK):
            part = Pieces(pieces.records[first : min(first + CHUNK, end)])
            fits = np.flatnonzero(gives_way.take(work.tiers(part.shard)))
            queue = filling.queue.take(filling.place_of(part.car.take(fits)))
            rows.append(fits[part.turn.take(fits) + np.uint16(1) == queue] + first)
    last = np.concatenate(rows)
    list_of = work.tiers(pieces.shard.take(last)) // levels
    return {(kind, deadline): last[list_of == kind * deadlines + deadline] for kind, deadline in waiting}


def _swap(filling: Filling, pieces: Pieces, rows: Ints, list_: tuple[int, int]) -> bool:
    """Swap within one list, most urgent against least urgent, and say whether anything changed."""
    priority = filling.given.shards.priority
    back = filling.lists.back[list_]
    back = back[np.argsort(priority[back], kind="stable")]
    level = priority[pieces.shard[rows]]
    less = np.flatnonzero(level > priority[back[:1]])
    rows = rows[less[np.argsort(np.iinfo(np.uint8).max - level[less], kind="stable")]]
    pairs = min(len(back), len(rows))
    rows, urgent = rows[:pairs], back[:pairs]
    gains = np.flatnonzero(priority[urgent] < priority[pieces.shard[rows]])
    rows, urgent = rows[gains], urgent[gains]
    if not len(rows):
        return False
    cars = filling.place_of(pieces.car[rows]).astype(np.int64)
    filling.free[cars] = pieces.begins[rows]
    new, loaded = room_for(len(cars)), filling.loaded
    if len(loaded):  # what goes may have been what loads the model
        filling.loaded = loaded.copy()
        filling.loaded[cars] = filling.given.cars.cached[pieces.car[rows]]
    filling.decide(list_[0], cars, (urgent, filling.given.shards.deadline.take(urgent)), new)
    filling.loaded = loaded
    new.put(turn=pieces.turn[rows])
    fits = np.flatnonzero(new.stop > new.start)
    filling.free[cars] = pieces.ends[rows]
    filling.free[cars[fits]] = new.ends[fits]
    placed, freed = urgent[fits], pieces.shard[rows[fits]]
    back = filling.lists.back.pop(list_)
    filling.lists.give_back(*list_, np.concatenate([back[~np.isin(back, placed)], freed]))
    pieces.records[rows[fits]] = new.records.take(fits)
    return bool(len(fits))
