"""How a ledger is kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerDials:
    """Dials of the ledger."""

    connections: int = 4
    outage_after: timedelta = timedelta(seconds=30)
    """A cell that swept nothing for so long had an outage: gateways sweep much more often."""
    sweep_batch: int = 1000
    audit_claim: timedelta = timedelta(minutes=10)
    planner_lock: timedelta = timedelta(seconds=60)
    retries: int = 5
    """How often a statement is sent again after a deadlock or a lost connection; every statement may be repeated."""
    session: Mapping[str, str] = field(default_factory=dict)
    """PostgreSQL settings of each connection."""
