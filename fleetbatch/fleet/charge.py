"""From when and until when a car may compute without charging any later. Pure: arrays in, arrays out.

The car decides by itself (car.conditions); this only foresees it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetbatch.car.conditions import Limits

Floats = npt.NDArray[np.float64]

HORIZON_S = 96 * 900.0
"""Nothing is planned beyond the last point of a survival curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charging:
    """What the signals say of charging, one value a car; NaN where a car does not say."""

    soc: Floats
    """Share, 0 to 1."""
    reserve_soc: Floats
    full_in_s: Floats
    """Seconds until the charge is complete at the present power."""
    charge_w: Floats
    """What the charge draws from the plug now."""
    plug_w: Floats
    """What the plug can give."""
    compute_w: Floats
    departs_in_s: Floats
    """Seconds until the owner's stated departure."""


def ready_s(c: Charging) -> Floats:
    """Return the seconds until a car may compute: at the owner's reserve, and charged where its plug has no room.

    A plug without room for compute beside the charge is the battery's until that is done, whatever the owner stated
    (car.conditions). 0 where nothing is said of the charge.
    """
    missing = np.maximum(np.nan_to_num(c.reserve_soc - c.soc), 0.0)
    to_full = np.maximum(1.0 - c.soc, 1e-3)
    wait = missing / to_full * c.full_in_s
    reserve = np.where(missing <= 0.0, 0.0, np.where(np.isnan(wait), HORIZON_S, wait))
    busy = c.plug_w - c.charge_w < c.compute_w + Limits().start_spare_w
    charged = np.where(busy & (c.charge_w > 0.0), np.nan_to_num(c.full_in_s), 0.0)
    return np.asarray(np.clip(np.maximum(reserve, charged), 0.0, HORIZON_S))


def limit_s(c: Charging) -> Floats:
    """Return the seconds after which the car may not compute: the stated departure.

    Compute never delays a charge, so the departure alone bounds it; without one the survival curve decides.
    """
    return np.asarray(np.clip(np.where(np.isnan(c.departs_in_s), HORIZON_S, c.departs_in_s), 0.0, HORIZON_S))
