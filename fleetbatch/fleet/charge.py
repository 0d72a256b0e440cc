"""From when and until when a car may compute without charging a minute later. Pure: arrays in, arrays out."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
    """Present power into the battery."""
    plug_w: Floats
    """What the plug can give."""
    compute_w: Floats
    departs_in_s: Floats
    """Seconds until the owner's stated departure."""


def ready_s(c: Charging) -> Floats:
    """Return the seconds until the charge stands at the owner's reserve; 0 where it does or nothing is said."""
    missing = np.maximum(np.nan_to_num(c.reserve_soc - c.soc), 0.0)
    to_full = np.maximum(1.0 - c.soc, 1e-3)
    wait = missing / to_full * c.full_in_s
    return np.where(missing <= 0.0, 0.0, np.where(np.isnan(wait), HORIZON_S, np.clip(wait, 0.0, HORIZON_S)))


def limit_s(c: Charging) -> Floats:
    """Return the seconds after which the car may not compute: the charge must be complete at departure.

    Where the plug can give charge and compute together, only the departure bounds. Otherwise every computed second
    takes `compute_w / charge_w` of a charging second (dispatch 3.7), so computing first and charging after may last
    `(departure - full_in) * charge_w / compute_w`. Without a stated departure the survival curve alone decides.
    """
    departs = np.clip(np.where(np.isnan(c.departs_in_s), HORIZON_S, c.departs_in_s), 0.0, HORIZON_S)
    room = c.plug_w - c.charge_w >= c.compute_w
    known = ~(np.isnan(c.plug_w) | np.isnan(c.charge_w) | np.isnan(c.full_in_s) | np.isnan(c.departs_in_s))
    slack = np.maximum(departs - c.full_in_s, 0.0) * np.maximum(c.charge_w, 0.0) / np.maximum(c.compute_w, 1e-9)
    return np.where(known & ~room & (c.full_in_s > 0.0), np.minimum(departs, slack), departs)
