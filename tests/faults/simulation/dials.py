"""How hard the simulated world is to its ledger. Chances are per message, per call, or per tick, as their names say."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Dials:
    """One world; the defaults are a small cell on a bad day."""

    cars: int = 60
    gateways: int = 3
    orders: int = 3
    """How many are open at a time."""
    shards: int = 40
    """Of one order."""
    tick: timedelta = timedelta(seconds=10)
    lease_for: timedelta = timedelta(minutes=10)
    outage_after: timedelta = timedelta(seconds=30)
    audit_claim: timedelta = timedelta(minutes=5)
    planner_lock: timedelta = timedelta(seconds=60)
    stalled_after: timedelta = timedelta(minutes=30)
    long_deadline: timedelta = timedelta(hours=6)
    short_deadline: timedelta = timedelta(minutes=30)
    short: float = 0.25
    """Share of orders with the short one."""
    late: timedelta = timedelta(minutes=2)
    """How long after a deadline the night's task gives up what is left."""
    keep_nights: timedelta = timedelta(minutes=30)
    """How long a published night can still be asked about before its partitions are dropped."""
    sound_every: int = 24
    """Ticks between two looks at every table."""
    night_every: int = 1
    """Ticks between two looks at how far an order is."""

    # What the network does, per message.
    lost: float = 0.03
    doubled: float = 0.04
    delayed: float = 0.05
    delay_max: timedelta = timedelta(minutes=12)
    # What processes and the database do, per call.
    crash: float = 0.02
    again: float = 0.02
    """The connection breaks after the commit and the statement is sent again."""
    overlap: float = 0.04
    """Per tick: a transaction stays open while others work."""
    step_back: float = 0.01
    """Per tick: the database's clock is set back by up to `step_back_s`."""
    step_back_s: int = 5
    restarts: int = 0
    """How often the database itself is stopped without a checkpoint."""
    told_late: float = 0.1
    """Per verdict: its auditor says it again much later, when the shard may have come back under another fence."""
    told_late_max: timedelta = timedelta(minutes=60)
    outage: float = 0.002
    """Per tick: no gateway answers for a while."""
    # What the store does, per upload or look.
    cut_upload: float = 0.03
    store_away: float = 0.01
    # What cars and owners do.
    liars: float = 0.06
    zombies: float = 0.08
    vanish: float = 0.12
    """Per lease: the car is cut off for a while and comes back with what it has."""
    stalled_each: int = 0
    """Each so many-th car holds its shard and delivers nothing, also when the day is calm."""
    leave: float = 0.25
    unusable: float = 0.02
    withdraw: float = 0.0006
    """Per car and tick."""
    distrust: float = 0.00002
    tariff: float = 0.05
    """Per tick: an owner names a tariff, or the fleet its terms."""
    operator: float = 0.006
    """Per tick: an order is paused, cancelled or opened again."""


CALM = {
    "lost": 0.0, "doubled": 0.0, "delayed": 0.0, "crash": 0.0, "again": 0.0, "overlap": 0.0, "step_back": 0.0,
    "told_late": 0.0, "outage": 0.0, "cut_upload": 0.0, "store_away": 0.0, "liars": 0.0, "zombies": 0.0, "vanish": 0.0,
    "leave": 0.0, "unusable": 0.0, "withdraw": 0.0, "distrust": 0.0, "tariff": 0.0, "operator": 0.0,
}  # fmt: skip
"""What is changed when the bad day is over: whatever is still open must then be finished."""
