"""How far a night is: counts summed over its cells, and whether the wait for the cars is over. Cheap: one look."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fleetbatch.ledger.messages import ShardCounts
from fleetbatch.nouns import OrderKey
from fleetbatch.settings import Settings
from fleetbatch.steps.doors import find_order, open_ledgers

AUDIT_GRACE: Final = timedelta(minutes=10)
"""How long after the deadline shards that came back in time may still be audited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One look at a night."""

    key: OrderKey
    counts: ShardCounts
    deadline_at: datetime
    late: bool
    """The deadline has passed."""
    over: bool
    """Nothing is left to wait for."""

    def line(self) -> str:
        """Return one line for the night watch."""
        c = self.counts
        accounted = c.valid + c.done + c.missing
        text = f"{self.key}: {accounted} of {c.total} shards accounted for"
        text += f"; {c.ready} free, {c.out} on cars, {c.returned} being audited, {c.missing} missing"
        return f"{text}; the deadline {self.deadline_at:%Y-%m-%d %H:%M} UTC has passed" if self.late else text


def progress(settings: Settings, key: OrderKey, *, now: datetime) -> Progress:
    """Look at an order in every cell that computes it.

    Raises:
        RejectedError: no cell knows the order.
        TransientError: a cell's ledger cannot be reached.
    """
    with open_ledgers(settings) as ledgers:
        opened = find_order(ledgers, key)
        counts = total(ledger.counts(key) for ledger in opened.ledgers)
    return judge_wait(key, counts, opened.frozen.deadline_at, now=now)


def judge_wait(key: OrderKey, counts: ShardCounts, deadline_at: datetime, *, now: datetime) -> Progress:
    """Say whether the wait is over: all accounted for, or too late, with a grace for what waits for its audit. Pure."""
    late = now >= deadline_at
    grace_left = counts.returned > 0 and now < deadline_at + AUDIT_GRACE
    over = counts.finished or (late and not grace_left)
    return Progress(key=key, counts=counts, deadline_at=deadline_at, late=late, over=over)


def total(counts: Iterable[ShardCounts]) -> ShardCounts:
    """Sum counts over cells. Pure."""
    each = list(counts)
    names = ("ready", "out", "returned", "valid", "done", "missing")
    return ShardCounts(**{name: sum(getattr(one, name) for one in each) for name in names})
