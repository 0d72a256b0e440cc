"""What cars said waits in bounded memory until it is written, in the order heard."""

from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fleetbatch.gateway.hearing import Heard, Telemetry
from fleetbatch.units import CarId

NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)


@given(sizes=st.lists(st.integers(1, 5000), max_size=30), unwritten=st.integers(0, 30))
def test_what_is_kept_of_telemetry_is_bounded_in_bytes_and_in_the_order_heard(sizes: list[int], unwritten: int) -> None:
    kept, bound = Telemetry(8000), 8000
    rows = [Heard(CarId(n), NOW, b"x" * size) for n, size in enumerate(sizes)]
    for row in rows[:unwritten]:
        kept.hear(*row)
    waiting = kept.take()
    for row in rows[unwritten:]:
        kept.hear(*row)
    kept.put_back(waiting)
    dropped, left = kept.dropped, list(kept.take())
    assert left == sorted(left, key=lambda row: row.car_id)
    assert dropped + len(left) == len(rows)
    assert sum(len(row.said) for row in left) <= bound
    assert left == [rows[row.car_id] for row in left]


def test_of_telemetry_that_cannot_be_written_the_oldest_goes() -> None:
    kept = Telemetry(8000)
    for n in range(100):
        kept.hear(CarId(n), NOW, b"x" * 1000)
    left = [row.car_id for row in kept.take()]
    assert left == list(range(100 - len(left), 100))
    assert len(left) > 4


def test_what_a_store_refuses_again_and_again_is_kept_while_there_is_room_for_it() -> None:
    kept = Telemetry(1 << 20)
    for n in range(0, 600, 3):
        kept.hear(CarId(n), NOW, b"x" * 100)
        kept.hear(CarId(n + 1), NOW, b"x" * 100)
        waiting = kept.take()
        if n % 2:
            kept.hear(CarId(n + 2), NOW, b"x" * 100)  # while the others are being written
        kept.put_back(waiting)
        if not n % 2:
            kept.hear(CarId(n + 2), NOW, b"x" * 100)
    assert kept.dropped == 0
    assert list(kept.take()) == [Heard(CarId(n), NOW, b"x" * 100) for n in range(600)]


def test_cars_are_heard_while_whoever_failed_to_write_still_looks_at_what_came_back() -> None:
    kept, views = Telemetry(1 << 20), []
    for n in range(100):
        kept.hear(CarId(2 * n), NOW, b"a")
        waiting = kept.take()
        views += [(np.asarray(piece.cars), piece.lines) for piece in waiting.pieces]  # as a traceback would hold them
        kept.hear(CarId(2 * n + 1), NOW, b"b")
        kept.put_back(waiting)
    assert [row.car_id for row in kept.take()] == list(range(200))
    assert all(len(cars) == bytes(lines).count(b"\n") for cars, lines in views)
