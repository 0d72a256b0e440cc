"""How a ledger is kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

BY_KEY: Final[Mapping[str, str]] = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}
"""PostgreSQL settings for processes whose statements find rows by their key: a plan that was made while a table was
empty, or not yet analysed, must still be good when the table is full. One plan serves every batch: made anew for the
values of each, it costs more than what it does, and for a long batch and cars that nobody has analysed yet it read all
cars once a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerDials:
    """Dials of the ledger."""

    connections: int = 4
    outage_after: timedelta = timedelta(seconds=30)
    """A cell that swept nothing for so long had an outage: gateways sweep much more often."""
    stalled_after: timedelta = timedelta(hours=1)
    """How long after its grant or its last part beats still renew a lease. A part is about a minute of work, and a car
    whose uploads fail gives its shard back after ten minutes by itself."""
    sweep_batch: int = 1000
    sweep_pages: int = 2000
    """How much of the open leases one sweep reads, in pages of some thirty leases; the next one goes on from there."""
    batch_rows: int = 5000
    """How many rows a statement reads at most that forgets, or gives up an order's shards; the next one goes on."""
    audit_claim: timedelta = timedelta(minutes=10)
    planner_lock: timedelta = timedelta(seconds=60)
    strike_half_life: timedelta = timedelta(days=14)
    """How long until a car's strike weighs half."""
    decisions_a_day: int = 20
    """Records of what its owner said that a car has of the last day, from which on a further yes must wait: records are
    kept for ever, and each is read with every statement. A withdrawal never waits."""
    rates_over: timedelta = timedelta(days=7)
    """For how long what a car said of its speed counts."""
    voices: int = 1000
    """How many cars of a class are asked how fast it is, at most: the middle of a thousand lies, nineteen times of
    twenty, between the 47th and the 53rd hundredth of all."""
    rates_batch: timedelta = timedelta(minutes=5)
    """How much of a night one statement adds up at most: 130,000 leases of a cell that ends 450 in a second."""
    rates_batches: int = 500
    rates_leases: int = 500_000
    """After how many leases a round leaves the rest to the next one."""
    rates_settled_after: timedelta = timedelta(minutes=5)
    """Who has ended a lease has committed by then; a lease that comes later counts in no rate."""
    retries: int = 5
    """How often a statement is sent again after a deadlock or a lost connection; every statement may be repeated."""
    retry_after: timedelta = timedelta(milliseconds=50)
    """How long until it is sent again; twice as long each further time."""
    session: Mapping[str, str] = field(default_factory=dict)
    """PostgreSQL settings of each connection."""
