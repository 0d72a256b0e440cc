"""What a gateway counts, in the words of Prometheus."""

import re

from hypothesis import given
from hypothesis import strategies as st

from fleetbatch.gateway.metrics import Metrics, prometheus

BUCKET = re.compile(r'fleetbatch_gateway_batch_seconds_bucket\{batch="grants",le="(.+)"\} (\d+)')


@given(spans_s=st.lists(st.floats(0, 100), max_size=30))
def test_a_histogram_says_of_each_bound_how_many_batches_took_no_longer(spans_s: list[float]) -> None:
    metrics = Metrics()
    took = metrics.batch("grants")
    for span_s in spans_s:
        took(span_s)
    text = prometheus(metrics, {}, None)
    buckets = {float(bound): int(count) for bound, count in BUCKET.findall(text)}
    assert buckets == {bound: sum(span_s <= bound for span_s in spans_s) for bound in buckets}
    assert max(buckets) == float("inf")
    assert f'fleetbatch_gateway_batch_seconds_sum{{batch="grants"}} {sum(spans_s):.6f}' in text
    assert f'fleetbatch_gateway_batch_seconds_count{{batch="grants"}} {len(spans_s)}' in text


def test_how_late_the_event_loop_was_is_a_histogram_without_labels() -> None:
    metrics = Metrics()
    late = metrics.loop_late
    late.took(0.004)
    late.took(7.0)
    text = prometheus(metrics, {}, None)
    assert 'fleetbatch_gateway_loop_late_seconds_bucket{le="0.005"} 1' in text
    assert 'fleetbatch_gateway_loop_late_seconds_bucket{le="10.0"} 2' in text
    assert "fleetbatch_gateway_loop_late_seconds_sum 7.004000" in text
