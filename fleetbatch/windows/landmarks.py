"""Moments out of past stays, to learn from and to be judged by: full local hours and the plug-in. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from fleetbatch.windows.clock import BoolArray, FloatArray, IntArray, wall_h
from fleetbatch.windows.stays import Moments, Started, Stays

LONGEST_H: Final = 48.0
"""Moments later in a stay are left out: a few stays of a week would outweigh the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landmarks:
    """Moments and what became of them; the outcome stands apart from what was known."""

    moments: Moments
    remaining_h: FloatArray
    """How much longer the stay lasted, or was seen to last."""
    ended: BoolArray
    """False where the stay went on out of sight."""
    at_plug_in: BoolArray

    def __len__(self) -> int:
        """Return the number of moments."""
        return len(self.moments)

    def take(self, rows: IntArray) -> "Landmarks":
        """Return some of the landmarks."""
        return Landmarks(
            moments=self.moments.take(rows),
            remaining_h=self.remaining_h[rows],
            ended=self.ended[rows],
            at_plug_in=self.at_plug_in[rows],
        )

    def between(self, first_h: float, last_h: float) -> "Landmarks":
        """Return the landmarks of stays that began in [first, last)."""
        begin = self.moments.stay.begin_h
        return self.take(np.flatnonzero((begin >= first_h) & (begin < last_h)))


def thinned(stays: pa.Table, since: datetime, landmarks_max: int) -> pa.Table:
    """Return the stays (contract `stays`) of whole cars, so few that about `landmarks_max` landmarks are since then.

    Ids of cars are digests, so every n-th speaks for all; it is the same ones every day.
    """
    frame = pl.DataFrame(stays)
    last = pl.coalesce("unplugged_at", "seen_until", "plugged_in_at")
    lasted_h = (last - pl.col("plugged_in_at")).dt.total_hours().clip(0, LONGEST_H)
    count = frame.filter(pl.col("plugged_in_at") >= since).select((lasted_h + 1).sum()).item()
    every = -(-int(count) // landmarks_max)
    return stays if every <= 1 else frame.filter(pl.col("car_id") % every == 0).to_arrow()


def landmarks(stays: Stays) -> Landmarks:
    """Return every full local hour of every stay and its plug-in, sorted by instant, then car.

    Open stays are told apart by `ended`; what is known of them stops where they were last seen.
    """
    ended = _hourly(stays.closed, stays.end_h, ended=True)
    still = _hourly(stays.open, stays.open_seen_h, ended=False)
    both = _join(ended, still) if len(still) and len(ended) else (ended if len(ended) else still)
    order = np.lexsort((both.moments.stay.begin_h, both.moments.stay.car, both.moments.now_h))
    return both.take(order)


def _hourly(started: Started, end_h: FloatArray, *, ended: bool) -> Landmarks:
    first_h = np.floor(wall_h(started.begin_h, started.zones)) + 1.0 - wall_h(started.begin_h, started.zones)
    until_h = np.minimum(end_h - started.begin_h, LONGEST_H) - 1e-9
    hourly = np.maximum(np.ceil(until_h - first_h), 0).astype(np.int64)
    row = np.repeat(np.arange(len(started)), hourly + 1)
    place = np.arange(len(row)) - np.repeat(np.cumsum(hourly + 1) - (hourly + 1), hourly + 1)
    elapsed = np.where(place == 0, 0.0, first_h[row] + place - 1.0)
    now = started.begin_h[row] + elapsed
    return Landmarks(
        moments=Moments(stay=started.take(row), now_h=now),
        remaining_h=end_h[row] - now,
        ended=np.full(len(row), ended),
        at_plug_in=place == 0,
    )


def _join(a: Landmarks, b: Landmarks) -> Landmarks:
    one, two = a.moments.stay, b.moments.stay
    stay = Started(
        car=np.concatenate([one.car, two.car]),
        begin_h=np.concatenate([one.begin_h, two.begin_h]),
        zones=one.zones.join(two.zones),
        sites=one.sites.join(two.sites),
        soc=np.concatenate([one.soc, two.soc]),
        complete_at_h=np.concatenate([one.complete_at_h, two.complete_at_h]),
        departure_at_h=np.concatenate([one.departure_at_h, two.departure_at_h]),
        trip_at_h=np.concatenate([one.trip_at_h, two.trip_at_h]),
        stated_at_h=np.concatenate([one.stated_at_h, two.stated_at_h]),
    )
    return Landmarks(
        moments=Moments(stay=stay, now_h=np.concatenate([a.moments.now_h, b.moments.now_h])),
        remaining_h=np.concatenate([a.remaining_h, b.remaining_h]),
        ended=np.concatenate([a.ended, b.ended]),
        at_plug_in=np.concatenate([a.at_plug_in, b.at_plug_in]),
    )
