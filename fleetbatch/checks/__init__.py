"""Nothing is published unchecked: one profile row per shard, judged by Great Expectations."""

from fleetbatch.checks.checking import Checking, Verdict, check_order, load_verdict

__all__ = ["Checking", "Verdict", "check_order", "load_verdict"]
