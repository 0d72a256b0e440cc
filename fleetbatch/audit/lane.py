"""When trusted machines must take over what cars have not computed, so that the night still ends in time. Pure."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Dials of the cloud lane."""

    safety: float = 1.5
    """Trusted machines are trusted to be this much slower than measured."""
    margin: timedelta = timedelta(seconds=30)
    """For what is neither computing nor measured: starting, reading, delivering."""
    rows_per_s_unmeasured: float = 10.0
    """What one trusted worker is believed to do of a workload that none has computed yet."""
    last: timedelta = timedelta.max
    """A deadline concerns the lane in so long before it only; shorter leaves more of the night to the cars, and to
    chance what the trusted workers cannot do in that time."""


def due_before(
    open_shards: pa.Table, rows_per_s: Mapping[str, float], workers: int, lane: Lane, *, now: datetime
) -> datetime:
    """Return the instant before which all deadlines are due for the lane now; `now` itself when none is.

    Earliest deadline first: an order is due when its own and all more urgent open rows, computed by the trusted workers
    alone (`rows_per_s` each, by workload), would take the time that is left. Shards that cars hold count in full for
    what is not delivered, because a car may leave; so while cars keep pace, nothing becomes due.

    `open_shards` is the ledger's: deadline_at, workload, rows, row_groups, done_through.
    """
    done = pc.divide(pc.cast(open_shards["done_through"], pa.float64()), open_shards["row_groups"])
    left = pc.multiply(open_shards["rows"], pc.subtract(1.0, done))
    table = open_shards.select(["deadline_at", "workload"]).append_column("left", left)
    needed_s: defaultdict[datetime, float] = defaultdict(float)
    for row in table.group_by(["deadline_at", "workload"]).aggregate([("left", "sum")]).to_pylist():
        speed = rows_per_s.get(row["workload"], lane.rows_per_s_unmeasured)
        needed_s[row["deadline_at"]] += row["left_sum"] / speed / max(1, workers)
    due, sum_s = now, 0.0
    for deadline_at in sorted(one for one in needed_s if one - now <= lane.last):
        sum_s += needed_s[deadline_at]
        if now + timedelta(seconds=sum_s * lane.safety) + lane.margin >= deadline_at:
            due = max(due, deadline_at)
    return due
