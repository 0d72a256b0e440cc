"""Counts of one gateway, and of its cell, in Prometheus' text format.

Names with `gateway` are this process's own: sum them over gateways. The others are the whole cell's, the same from
every gateway of it: take any one.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Final

from fleetbatch.ledger.glance import AGES_S, CellGlance

_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(slots=True)
class Spans:
    """How often something took how long, as a Prometheus histogram."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS_S) + 1))
    sum_s: float = 0.0

    def took(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def lines(self, name: str, label: str = "") -> Iterator[str]:
        """Give the histogram's lines; `label` is `name="value"`."""
        for bound, count in zip((*map(str, _BOUNDS_S), "+Inf"), accumulate(self.counts), strict=True):
            yield f'{name}_bucket{{{label}{"," * bool(label)}le="{bound}"}} {count}'
        labels = f"{{{label}}}" if label else ""
        yield f"{name}_sum{labels} {self.sum_s:.6f}"
        yield f"{name}_count{labels} {sum(self.counts)}"


@dataclass(slots=True)
class Metrics:
    """What happened since the start."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    bodies_awaited: int = 0
    owners_under_way: Counter[str] = field(default_factory=Counter)
    """Calls of owners that are being answered, by path."""
    puts_under_way: Counter[str] = field(default_factory=Counter)
    """Uploads to signed URLs that have begun, by the object's key."""
    loop_late: Spans = field(default_factory=Spans)
    """By how much the event loop came late to what it was to do every half second."""
    batches: dict[str, Spans] = field(default_factory=dict)
    """By kind of question: from when a batch began to collect until the ledger or the store had answered it."""

    def batch(self, kind: str) -> Callable[[float], None]:
        """Return what is told how long each batch of that kind took."""
        return self.batches.setdefault(kind, Spans()).took

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self.answers[endpoint, status] += 1
        self.seconds[endpoint] = self.seconds.get(endpoint, 0.0) + seconds


def prometheus(metrics: Metrics, gauges: Mapping[str, float], cell: CellGlance | None) -> str:
    """Return the counts and gauges as text; without the cell's when the ledger does not answer."""
    return "\n".join((*_lines(metrics, gauges), *(_cell_lines(cell) if cell else ()), ""))


def _lines(metrics: Metrics, gauges: Mapping[str, float]) -> Iterator[str]:
    yield "# TYPE fleetbatch_gateway_answers_total counter"
    for (endpoint, status), count in sorted(metrics.answers.items()):
        yield f'fleetbatch_gateway_answers_total{{endpoint="{endpoint}",status="{status}"}} {count}'
    yield "# TYPE fleetbatch_gateway_seconds_total counter"
    for endpoint, seconds in sorted(metrics.seconds.items()):
        yield f'fleetbatch_gateway_seconds_total{{endpoint="{endpoint}"}} {seconds:.6f}'
    yield "# TYPE fleetbatch_gateway_events_total counter"
    for event, count in sorted(metrics.events.items()):
        yield f'fleetbatch_gateway_events_total{{event="{event}"}} {count}'
    for name, value in {**gauges, "in_flight": metrics.in_flight, "bodies_awaited": metrics.bodies_awaited}.items():
        yield f"# TYPE fleetbatch_gateway_{name} gauge"
        yield f"fleetbatch_gateway_{name} {value:g}"
    yield "# HELP fleetbatch_gateway_loop_late_seconds how late the event loop was, looked at twice a second"
    yield "# TYPE fleetbatch_gateway_loop_late_seconds histogram"
    yield from metrics.loop_late.lines("fleetbatch_gateway_loop_late_seconds")
    yield "# HELP fleetbatch_gateway_batch_seconds from when a batch began to collect until all in it had answers"
    yield "# TYPE fleetbatch_gateway_batch_seconds histogram"
    for kind, spans in sorted(metrics.batches.items()):
        yield from spans.lines("fleetbatch_gateway_batch_seconds", f'batch="{kind}"')


def _cell_lines(cell: CellGlance) -> Iterator[str]:
    yield "# HELP fleetbatch_shards shards of the orders that are open or paused"
    yield from _gauges("shards", "state", asdict(cell.shards))
    yield "# HELP fleetbatch_open_leases open leases by age: younger than `age_s`, not than the age before"
    ages = (*map(str, AGES_S), "+Inf")
    yield from _gauges("open_leases", "age_s", dict(zip(ages, cell.leases.counts, strict=True)))
    yield from _gauges("cloud_leases", "", {"": cell.leases.cloud})
    yield from _gauges("cars", "state", asdict(cell.cars))
    yield from _gauges("orders_open", "", {"": len(cell.orders)})
    yield from _gauges("orders_publishing", "", {"": len(cell.publishing)})
    yield "# HELP fleetbatch_locks_needed when every connection looks at all nights; warn beyond fleetbatch_locks_room"
    yield from _gauges("locks_needed", "", {"": cell.locks.needed})
    yield from _gauges("locks_room", "", {"": cell.locks.room})
    if cell.last_round is not None:
        yield from _gauges("round_id", "", {"": cell.last_round.round_id})
        yield from _gauges("round_offers", "", {"": cell.last_round.offers})
        yield from _gauges("round_age_seconds", "", {"": cell.last_round.age_s})


def _gauges(name: str, label: str, values: Mapping[str, float]) -> Iterator[str]:
    yield f"# TYPE fleetbatch_{name} gauge"
    for key, value in values.items():
        labels = f'{{{label}="{key}"}}' if label else ""
        yield f"fleetbatch_{name}{labels} {value:.10g}"
