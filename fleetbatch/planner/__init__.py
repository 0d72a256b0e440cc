"""A round: which parked car computes which row groups next, with the reason, the price and the proof. Pure."""

from fleetbatch.planner.answers import why, why_car, why_shard
from fleetbatch.planner.checked import verified
from fleetbatch.planner.energy import energy_of, read_energy, with_energy, with_powers, write_energy
from fleetbatch.planner.frames import FramedRound
from fleetbatch.planner.kept import explain, keep
from fleetbatch.planner.models import model_sizes
from fleetbatch.planner.nouns import Certificate, Round
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.reasons import Reason
from fleetbatch.planner.round import plan_round, plan_simply
from fleetbatch.planner.rules import Violation
from fleetbatch.planner.turns import owed_units, with_turns
from fleetbatch.planner.verify import verify_round
from fleetbatch.planner.work import (
    Beliefs,
    as_registered,
    given_away,
    measured_policy,
    offers_of,
    open_work,
    with_free_times,
)

__all__ = [
    "Beliefs",
    "Certificate",
    "FramedRound",
    "Policy",
    "Reason",
    "Round",
    "Violation",
    "as_registered",
    "energy_of",
    "explain",
    "given_away",
    "keep",
    "measured_policy",
    "model_sizes",
    "offers_of",
    "open_work",
    "owed_units",
    "plan_round",
    "plan_simply",
    "read_energy",
    "verified",
    "verify_round",
    "why",
    "why_car",
    "why_shard",
    "with_energy",
    "with_free_times",
    "with_powers",
    "with_turns",
    "write_energy",
]
