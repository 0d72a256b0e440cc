"""What a night on the laptop came to, read from the store's files without any process running."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import conform
from fleetbatch.errors import RejectedError
from fleetbatch.nouns import FrozenOrder, OrderKey
from fleetbatch.orders import order_from_json
from fleetbatch.units import Night, OrderName

_REFUSED = re.compile(r"was refused: (?P<reason>.+?)(?=\n\S|\Z)", re.DOTALL)


def published_summary(home: Path, order: str, night: str) -> dict[str, Any] | None:
    """Return the summary of a night's newest published generation; None when the night is not published."""
    store = home / "store"
    nights = store / layout.nights(OrderName(order))
    if not nights.is_file():
        return None
    table = conform(pq.read_table(nights), "nights")
    rows = table.filter(pc.field("night") == night).to_pylist()
    if not rows:
        return None
    key = OrderKey(night=Night(night), order=OrderName(order), generation=max(row["generation"] for row in rows))
    path = store / layout.summary(key)
    return json.loads(path.read_text()) if path.is_file() else None


def begun_order(home: Path, order: str, night: str) -> FrozenOrder | None:
    """Return what a night's newest generation was frozen with, published or not; None when it was never begun."""
    first = home / "store" / layout.order(OrderKey(night=Night(night), order=OrderName(order), generation=1))
    files = sorted(first.parents[1].glob("g*/order.json"), key=lambda file: int(file.parent.name[1:]))
    return order_from_json(files[-1].read_bytes()) if files else None


def refusal(log: str) -> RejectedError | None:
    """Find in a DAG's log the refusal with which one of our steps failed."""
    found = _REFUSED.search(log)
    if found is None:
        return None
    summary, *problems = found["reason"].rstrip().split("\n")
    return RejectedError(summary, [problem.strip().removeprefix("- ") for problem in problems if problem.strip()])
