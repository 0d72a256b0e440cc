import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetbatch.errors import RejectedError
from fleetbatch.runner.energy import Account, Drawn, Estimate, Packages, PowerSignal, open_meter
from fleetbatch.runner.memory import RUNNER_BYTES, refuse_too_large, share
from fleetbatch.runner.rota import AHEAD, Rota, Task, overdue
from fleetbatch.runner.whereabouts import Place, Whereabouts
from fleetbatch.units import MIB

# --- who computes what --------------------------------------------------------------------------------------------


def at(row_group: int, start: int, stop: int) -> Place:
    return Place(row_group=row_group, start=start, stop=stop, since_s=0.0)


def test_a_worker_has_one_row_group_in_work_and_one_ahead() -> None:
    rota = Rota.of(range(5))
    assert [task.row_group for task in rota.give(1)] == [0, 1]
    assert [task.row_group for task in rota.give(2)] == [2, 3]
    assert rota.give(1) == []
    assert rota.done(1, 0)
    assert [task.row_group for task in rota.give(1)] == [4]
    assert not rota.idle


def test_a_worker_lost_among_many_rows_has_them_tried_one_by_one_and_the_one_to_blame_is_given_up() -> None:
    rota = Rota.of(range(2))
    rota.give(1)
    assert rota.lost(1, at(0, 16, 32), "hangs")
    assert rota.waiting == [Task(row_group=0, one_by_one=True), Task(row_group=1)]
    rota.give(2)
    assert rota.lost(2, at(0, 20, 21), "hangs")
    assert rota.waiting[0] == Task(row_group=0, one_by_one=True, dead=((20, "hangs"),))


def test_nobody_is_blamed_for_a_worker_that_was_lost_elsewhere() -> None:
    rota = Rota.of(range(2))
    rota.give(1)
    assert not rota.lost(1, None, "opening the model")
    assert rota.waiting == [Task(row_group=0), Task(row_group=1)]
    assert rota.lost(9, None, "it had nothing to do")


def test_what_may_be_in_hand_when_another_is_idle_is_computed_few_rows_at_a_time() -> None:
    assert [task.last for task in Rota.of(range(6), workers=2).waiting] == [False, False, True, True, True, True]
    assert [task.last for task in Rota.of([7], workers=8).waiting] == [True]
    assert not any(task.last for task in Rota.of(range(6)).waiting)


def test_whoever_has_most_to_do_shares_with_each_that_is_idle_and_is_asked_once() -> None:
    rota = Rota.of(range(3), workers=4)
    rota.give(1, ahead=1)
    assert rota.ask() == []  # what waits is given out first
    rota.give(2)
    assert rota.ask() == [2, 1]
    assert rota.ask() == []
    assert rota.spared(2, Task(row_group=1, start=4, stop=8, rows=b"rows"))
    assert rota.ask() == []  # of two idle ones one can take this, and 1 is asked
    rota.give(3)
    assert rota.ask() == []
    assert rota.spared(1, Task(row_group=0, start=4, stop=8, rows=b"rows"))
    rota.give(4)
    assert rota.ask() == []
    assert rota.done(4, 0, 4)
    assert rota.ask() == [2]
    rota.lost(2, None, "it was ended")
    assert rota.asked == set()


def test_one_core_alone_is_never_asked() -> None:
    rota = Rota.of(range(3))
    rota.give(1)
    assert rota.ask() == []


def test_a_piece_goes_to_who_has_nothing_else_and_a_row_group_is_computed_with_its_last_piece() -> None:
    rota = Rota.of(range(2), workers=2)
    rota.give(1, ahead=1)
    rota.give(2, ahead=1)
    piece = Task(row_group=0, start=8, stop=16, rows=b"rows")
    assert rota.spared(1, piece)
    assert rota.give(2) == []
    assert rota.done(2, 1)
    assert rota.computed(1)
    assert rota.give(2) == [piece]
    assert rota.done(1, 0)
    assert not rota.computed(0)
    assert rota.done(2, 0, 8)
    assert rota.computed(0)
    assert rota.idle


def test_a_worker_lost_after_it_spared_rows_leaves_only_what_it_had_kept() -> None:
    rota = Rota.of([3], workers=2)
    rota.give(1)
    piece = Task(row_group=3, start=4, stop=8, rows=b"rows")
    rota.spared(1, piece)
    assert rota.lost(1, at(3, 0, 4), "hangs")
    assert rota.waiting == [Task(row_group=3, stop=4, one_by_one=True, last=True), piece]
    assert not rota.spared(1, Task(row_group=3, start=2, stop=4, rows=b"rows"))
    assert rota.give(2) == [Task(row_group=3, stop=4, one_by_one=True, last=True)]


def test_rows_that_are_dead_go_with_the_half_that_is_given_up() -> None:
    rota = Rota.of([0], workers=2)
    rota.give(1)
    rota.lost(1, at(0, 0, 10), "hangs")
    rota.give(2)
    rota.lost(2, at(0, 7, 8), "row 7")
    rota.give(3)
    assert rota.spared(3, Task(row_group=0, start=5, stop=10, rows=b"rows"))
    rota.lost(3, at(0, 2, 3), "row 2")
    assert rota.waiting[0].stop == 5
    assert rota.waiting[0].dead == ((2, "row 2"),)


ROWS = 8
"""Of every row group in the story below."""


class Crowd:
    """Four workers under one rota; every row that somebody computed, as (row group, row)."""

    def __init__(self, groups: int) -> None:
        self.rota, self.computed = Rota.of(range(groups), workers=4), list[tuple[int, int]]()
        self.work: dict[int, list[Task]] = {}

    def give(self, worker: int) -> None:
        self.work.setdefault(worker, []).extend(self.rota.give(worker))
        assert len(self.work[worker]) <= AHEAD

    def lose(self, worker: int) -> None:
        self.rota.lost(worker, None, "")
        self.work[worker] = []

    def spare(self, worker: int) -> None:
        """Hand the later half of what is in work over, as often as that is asked for."""
        for task in self.work[worker][:1]:
            stop = ROWS if task.stop is None else task.stop
            cut = (task.start + stop) // 2
            if task.start < cut:
                assert self.rota.spared(worker, Task(row_group=task.row_group, start=cut, stop=stop, rows=b"rows"))
                self.work[worker][0] = replace(task, stop=cut)

    def finish(self, worker: int) -> None:
        for task in self.work[worker][:1]:
            stop = ROWS if task.stop is None else task.stop
            self.computed += [(task.row_group, row) for row in range(task.start, stop)]
            assert self.rota.done(worker, task.row_group, task.start)
            self.work[worker].pop(0)


@given(
    st.integers(0, 8), st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["lose", "spare", "finish"])), max_size=60)
)
def test_whoever_is_lost_and_whatever_is_spared_every_row_is_computed_once(
    groups: int, events: list[tuple[int, Literal["lose", "spare", "finish"]]]
) -> None:
    crowd = Crowd(groups)
    for worker, happens in events:
        crowd.give(worker)
        getattr(crowd, happens)(worker)
        assert crowd.rota.idle == (len(crowd.computed) == groups * ROWS)
    while not crowd.rota.idle:
        for worker in range(4):
            crowd.give(worker)
            crowd.finish(worker)
    assert sorted(crowd.computed) == [(group, row) for group in range(groups) for row in range(ROWS)]
    assert all(crowd.rota.computed(group) for group in range(groups))


def test_where_a_worker_is_can_be_read_by_another_and_has_an_age() -> None:
    mine = Whereabouts.create()
    assert mine.place() is None
    mine.enter(3, 16, 32)
    place = mine.place()
    assert place is not None
    assert (place.row_group, place.start, place.stop) == (3, 16, 32)
    assert not overdue(place, now_s=time.monotonic(), row_limit_s=60)
    assert overdue(place, now_s=time.monotonic() + 61, row_limit_s=60)
    mine.leave()
    assert not overdue(mine.place(), now_s=time.monotonic() + 61, row_limit_s=60)
    mine.close()


# --- memory -------------------------------------------------------------------------------------------------------


def test_as_many_workers_as_cores_and_memory_allow() -> None:
    assert share(8192 * MIB, 4).workers == 4
    assert share(1024 * MIB, 8).workers == 2
    for memory, cores in ((8192 * MIB, 4), (1024 * MIB, 8), (600 * MIB, 1)):
        found = share(memory, cores)
        assert found.workers * found.worker_bytes + RUNNER_BYTES <= memory
    with pytest.raises(RejectedError, match="needs 448 MiB"):
        share(400 * MIB, 1)


def test_what_does_not_fit_is_refused_with_its_sizes_before_it_is_opened() -> None:
    refuse_too_large(400 * MIB, model_bytes=5 * MIB, group_bytes=4 * MIB, row_bytes=120_000_000)
    with pytest.raises(RejectedError, match="its largest row 720000000 bytes"):
        refuse_too_large(400 * MIB, model_bytes=5 * MIB, group_bytes=4 * MIB, row_bytes=720_000_000)
    with pytest.raises(RejectedError, match="needs"):
        refuse_too_large(400 * MIB, model_bytes=80 * MIB, group_bytes=4 * MIB)


# --- energy -------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_cuts_of_an_account_and_what_was_lost_between_them_are_the_whole() -> None:
    clock = Clock()
    account = Account(meter=Estimate(power_w=60.0), clock=clock)
    account.begin()
    clock.now += 30
    first = account.cut()
    clock.now += 15
    assert account.whole_wh() == pytest.approx(0.75)
    account.end()  # the row group in work is lost
    clock.now += 1000
    account.begin()
    clock.now += 60
    second = account.cut()
    assert first == Drawn(wh=0.5, busy_s=30.0, source="estimated")
    assert second == Drawn(wh=1.0, busy_s=60.0, source="estimated")
    assert account.whole_wh() == pytest.approx(first.wh + 0.25 + second.wh)
    account.reset()
    assert account.whole_wh() == 0


def test_a_vehicle_that_tells_its_draw_is_measured_and_a_gap_is_an_estimate() -> None:
    meter = PowerSignal(power_w=60.0)
    assert meter.drawn(3600.0) == Drawn(wh=60.0, busy_s=3600.0, source="estimated")
    meter.saw(100.0)
    meter.drawn(1.0)
    for watts in (100.0, 200.0, 300.0):
        meter.saw(watts)
    assert meter.drawn(3600.0) == Drawn(wh=175.0, busy_s=3600.0, source="measured")
    meter.saw(None)
    assert meter.drawn(3600.0).source == "estimated"
    assert (Drawn(wh=1, busy_s=1) + Drawn(wh=1, busy_s=1, source="estimated")).source == "estimated"


def test_the_processors_counters_are_read_through_their_overflow(tmp_path: Path) -> None:
    for name, content in (("energy_uj", "900"), ("max_energy_range_uj", "1000")):
        for zone in ("intel-rapl:0", "intel-rapl:0:0"):  # the second is a part of the first
            (tmp_path / zone).mkdir(exist_ok=True)
            (tmp_path / zone / name).write_text(content)
    meter = open_meter(60.0, signal=False, powercap=tmp_path)
    assert isinstance(meter, Packages)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100")
    assert meter.drawn(1.0) == Drawn(wh=200 / 1e6 / 3600, busy_s=1.0, source="measured")


def test_without_counters_energy_is_an_estimate(tmp_path: Path) -> None:
    assert open_meter(60.0, signal=False, powercap=tmp_path) == Estimate(power_w=60.0)
    assert isinstance(open_meter(60.0, signal=True, powercap=tmp_path), PowerSignal)
