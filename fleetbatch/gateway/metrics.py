"""Counts of one gateway, and of its cell, in Prometheus' text format.

Names with `gateway` are this process's own: sum them over gateways. The others are the whole cell's, the same from
every gateway of it: take any one.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

from fleetbatch.ledger.glance import AGES_S, CellGlance


@dataclass(slots=True)
class Metrics:
    """What happened since the start."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    bodies_awaited: int = 0

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


def _cell_lines(cell: CellGlance) -> Iterator[str]:
    yield "# HELP fleetbatch_shards shards of the orders that are open or paused"
    yield from _gauges("shards", "state", asdict(cell.shards))
    yield "# HELP fleetbatch_open_leases open leases by age: younger than `age_s`, not than the age before"
    ages = (*map(str, AGES_S), "+Inf")
    yield from _gauges("open_leases", "age_s", dict(zip(ages, cell.leases.counts, strict=True)))
    yield from _gauges("cloud_leases", "", {"": cell.leases.cloud})
    yield from _gauges("cars", "state", asdict(cell.cars))
    yield from _gauges("orders_open", "", {"": len(cell.orders)})
    if cell.last_round is not None:
        yield from _gauges("round_id", "", {"": cell.last_round.round_id})
        yield from _gauges("round_offers", "", {"": cell.last_round.offers})
        yield from _gauges("round_age_seconds", "", {"": cell.last_round.age_s})


def _gauges(name: str, label: str, values: Mapping[str, float]) -> Iterator[str]:
    yield f"# TYPE fleetbatch_{name} gauge"
    for key, value in values.items():
        labels = f'{{{label}="{key}"}}' if label else ""
        yield f"fleetbatch_{name}{labels} {value:.10g}"
