"""Nothing is published unchecked: one profile row per shard, judged by Great Expectations."""

from fleetbatch.checks.checking import Checking, Verdict, check_order, load_verdict
from fleetbatch.checks.expectations import in_words

__all__ = ["Checking", "Verdict", "check_order", "in_words", "load_verdict"]
