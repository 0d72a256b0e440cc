"""What a round's pieces are expected to emit. Pure."""

import numpy as np

from fleetbatch.planner.inputs import Cars, Floats
from fleetbatch.planner.policy import HORIZON_S, Policy
from fleetbatch.planner.weighing import Weighed


def carbon_g(cars: Cars, policy: Policy, found: Weighed) -> float:
    """Return the grams that the pieces emit, each as far as it is expected; 0 where no intensity is known.

    A car draws its power evenly from a piece's begin to its end, as intensities are in between.
    """
    if not policy.carbon_g_per_j:
        return 0.0
    pieces = found.pieces
    edges = np.maximum([0.0, *policy.price_until_s[:-1], HORIZON_S], 0.0)
    whole = (pieces.stop - pieces.start).astype(np.float64) * pieces.units
    power = np.asarray(policy.power_w, np.float64)[cars.hw[pieces.car]]
    power *= np.divide(found.expected, whole, out=np.zeros_like(whole), where=whole > 0.0)
    zone, grams = cars.zone[pieces.car], 0.0
    for number, intensities in enumerate(policy.carbon_g_per_j):
        upto: Floats = np.append(0.0, np.cumsum(np.diff(edges) * np.asarray(intensities, np.float64)))
        mine = np.flatnonzero(zone == number)
        a_watt = np.interp(pieces.ends[mine], edges, upto) - np.interp(pieces.begins[mine], edges, upto)
        grams += float(np.dot(power[mine], a_watt))
    return grams
