"""Counts of one gateway, in Prometheus' text format."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Metrics:
    """What happened since the start."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self.answers[endpoint, status] += 1
        self.seconds[endpoint] = self.seconds.get(endpoint, 0.0) + seconds


def prometheus(metrics: Metrics, gauges: Mapping[str, float]) -> str:
    """Return the counts and gauges as text."""
    return "\n".join((*_lines(metrics, gauges), ""))


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
    for name, value in {**gauges, "in_flight": metrics.in_flight}.items():
        yield f"# TYPE fleetbatch_gateway_{name} gauge"
        yield f"fleetbatch_gateway_{name} {value:g}"
