"""A round: which parked car computes which row groups next, with the reason, the price and the proof. Pure."""

from fleetbatch.planner.answers import why, why_car, why_shard
from fleetbatch.planner.kept import explain, keep
from fleetbatch.planner.nouns import Certificate, Round
from fleetbatch.planner.policy import Policy
from fleetbatch.planner.reasons import Reason
from fleetbatch.planner.round import plan_round, plan_simply
from fleetbatch.planner.rules import Violation
from fleetbatch.planner.verify import verify_round
from fleetbatch.planner.work import Beliefs, given_away, measured_policy, open_work, with_free_times

__all__ = [
    "Beliefs",
    "Certificate",
    "Policy",
    "Reason",
    "Round",
    "Violation",
    "explain",
    "given_away",
    "keep",
    "measured_policy",
    "open_work",
    "plan_round",
    "plan_simply",
    "verify_round",
    "why",
    "why_car",
    "why_shard",
    "with_free_times",
]
