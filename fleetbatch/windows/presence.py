"""How long cars stood plugged in, of late. Pure."""

from datetime import datetime

import numpy as np
import pyarrow as pa

from fleetbatch.windows.stays import Stays

SECONDS_PER_H = 3600.0


def plugged_since(past: Stays, since: datetime) -> pa.Table:
    """Return car_id (uint64) and plugged_s of every car with a closed stay that ended after `since`, by car_id."""
    since_h = since.timestamp() / SECONDS_PER_H
    spent_h = np.maximum(past.end_h - np.maximum(past.closed.begin_h, since_h), 0.0)
    total_s = np.add.reduceat(np.append(spent_h, 0.0), past.starts[:-1]) * SECONDS_PER_H if len(past.cars) else spent_h
    late = total_s > 0.0
    return pa.table({"car_id": past.cars[late], "plugged_s": total_s[late]})
