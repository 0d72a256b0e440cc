"""What a planner writes and a gateway holds: rounds of offers, under a lock that changes hands."""

from dataclasses import dataclass
from typing import NewType

import numpy as np
import numpy.typing as npt

from fleetbatch.errors import FleetbatchError
from fleetbatch.units import CellName, RoundId


class FencedOff(FleetbatchError):  # noqa: N818 # the field's word
    """A planner wrote with the epoch of a lock that it no longer holds; nothing was written."""


Epoch = NewType("Epoch", int)
"""Grows whenever the planner's lock changes hands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerLock:
    """The right to write rounds for a cell; `epoch` fences off whoever held it before."""

    cell: CellName
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """A round as a gateway holds it: three arrays of equal length, sorted by (car_id, seq)."""

    round_id: RoundId
    car_id: npt.NDArray[np.int64]
    seq: npt.NDArray[np.int16]
    shard_id: npt.NDArray[np.int64]
