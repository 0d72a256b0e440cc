"""A car asks for work, computes it, and delivers it part by part."""

from datetime import timedelta

import pytest
from agent_story import Car, lease, of

from fleetbatch.car import nouns as n
from fleetbatch.car.moment import asks_when_it_looks, lease_of


def test_a_car_that_is_switched_on_asks_at_once_and_then_when_the_server_says() -> None:
    car = Car()
    assert car.look() == [n.Poll()]
    assert car.look(seconds=30) == []  # one question at a time
    car.happens(n.PollAnswered(lease=None, retry_after=timedelta(seconds=40), chance=0.0))
    assert car.look(seconds=39) == []
    assert car.look(seconds=1) == [n.Poll()]


def test_chance_spreads_the_cars_but_never_brings_one_earlier_than_told() -> None:
    for chance in (0.0, 0.5, 0.99):
        car = Car()
        car.look()
        car.happens(n.PollAnswered(lease=None, retry_after=timedelta(seconds=40), chance=chance))
        assert car.look(seconds=39.9) == []
        assert car.look(seconds=5) == [n.Poll()]


def test_a_car_that_changes_its_mind_says_so_at_once() -> None:
    car = Car()
    car.look()
    car.happens(n.PollAnswered(lease=None, retry_after=timedelta(minutes=5), chance=0.0))
    assert car.look(seconds=1) == []
    assert car.leave("unplugged") == [n.Poll()]


def test_an_unreachable_gateway_is_asked_less_and_less_often_up_to_a_minute() -> None:
    car = Car()
    waits = []
    for _ in range(10):
        asked_at = car.now
        while not car.look(seconds=0.25):
            pass
        waits.append((car.now - asked_at).total_seconds())
        car.lost("poll")
    assert waits == sorted(waits)
    assert waits[-1] <= 60


def test_a_gateway_that_names_a_time_is_not_asked_earlier() -> None:
    car = Car()
    car.look()
    car.lost("poll", retry_after=timedelta(seconds=90), chance=0.9)
    assert car.look(seconds=89) == []
    assert car.look(seconds=60) == [n.Poll()]


def test_a_lease_that_comes_after_the_cable_was_pulled_is_given_back_at_once() -> None:
    car = Car()
    car.look()
    car.leave("unplugged")
    actions = car.happens(n.PollAnswered(lease=lease(), retry_after=timedelta(), chance=0.0))
    assert of(actions, n.StartWork) == []
    assert [released.reason for released in of(actions, n.Release)] == ["unplugged"]


def test_a_part_goes_out_about_every_minute_and_the_last_one_at_once() -> None:
    car = Car()
    car.take()
    for row_group in range(5):
        assert car.compute(row_group) == []
    assert car.compute(5) == [n.DeliverPart(lease=lease(), start=0, stop=6)]
    assert car.compute(6) == []
    car.delivered(6)
    assert car.compute(7) == []
    assert car.compute(8) == []
    assert car.compute(9) == [n.DeliverPart(lease=lease(), start=6, stop=10)]
    assert car.delivered(10, complete=True) == [n.KillWork(), n.Forget(lease_id="lease-1")]
    assert car.look() == [n.Poll()]


def test_a_long_row_group_does_not_keep_finished_ones_waiting() -> None:
    car = Car()
    car.take()
    car.compute(0)
    assert of(car.look(seconds=55), n.DeliverPart) == [n.DeliverPart(lease=lease(), start=0, stop=1)]


def test_one_part_is_on_its_way_at_a_time_and_the_next_holds_what_was_done_meanwhile() -> None:
    car = Car()
    car.take()
    assert of(car.compute(0, seconds=61), n.DeliverPart)
    assert of(car.compute(1, seconds=61), n.DeliverPart) == []
    assert of(car.compute(2, seconds=61), n.DeliverPart) == []
    assert car.delivered(1) == [n.DeliverPart(lease=lease(), start=1, stop=3)]


def test_a_part_that_did_not_arrive_is_sent_again_as_it_was() -> None:
    car = Car()
    car.take()
    first = of(car.compute(0, seconds=61), n.DeliverPart)
    car.compute(1)
    assert car.lost("part", retry_after=timedelta(seconds=30)) == []
    assert of(car.look(seconds=29), n.DeliverPart) == []
    assert of(car.look(seconds=2), n.DeliverPart) == first
    assert car.delivered(1) == []


def test_a_lease_that_starts_in_the_middle_is_computed_from_there() -> None:
    car = Car()
    car.take(lease(start=4))
    assert car.compute(4, seconds=61) == [n.DeliverPart(lease=lease(start=4), start=4, stop=5)]


def test_a_beat_every_minute_says_how_far_it_got() -> None:
    car = Car()
    car.take()
    car.compute(0)
    car.compute(1)
    assert car.look(seconds=39) == []
    assert of(car.look(seconds=1), n.Beat) == [n.Beat(lease=lease(), done=2, busy_s=20.0)]
    assert of(car.look(seconds=120), n.Beat) == []  # the answer is still out
    car.beat_answered()
    assert of(car.look(seconds=1), n.Beat)


def test_a_gateway_that_has_much_to_do_is_beaten_less_often_and_never_too_late_for_the_lease() -> None:
    car = Car()
    car.take()
    car.look(seconds=60)
    car.beat_answered(every_s=90)
    assert of(car.look(seconds=89), n.Beat) == []
    assert of(car.look(seconds=1), n.Beat)
    car.beat_answered(minutes=4, every_s=3600)
    assert of(car.look(seconds=119), n.Beat) == []
    assert of(car.look(seconds=1), n.Beat)


def test_a_gateway_that_says_stop_ends_the_work_and_everything_is_forgotten() -> None:
    car = Car()
    car.take()
    car.compute(0)
    car.look(seconds=60)
    assert car.beat_answered(go_on=False) == [n.KillWork(), n.Forget(lease_id="lease-1")]
    assert lease_of(car.agent) is None


def test_a_car_asks_for_the_next_shard_as_soon_as_one_is_delivered() -> None:
    car = Car()
    assert asks_when_it_looks(car.agent, now=car.now)
    car.take(lease(row_groups=1))
    assert not asks_when_it_looks(car.agent, now=car.now)
    car.compute(0)
    car.delivered(1, complete=True)
    assert asks_when_it_looks(car.agent, now=car.now)
    car.look()
    assert not asks_when_it_looks(car.agent, now=car.now)  # the answer is on its way
    car.happens(n.PollAnswered(lease=None, retry_after=timedelta(seconds=30), chance=0.0))
    assert not asks_when_it_looks(car.agent, now=car.now + timedelta(seconds=29))
    assert asks_when_it_looks(car.agent, now=car.now + timedelta(seconds=30))


@pytest.mark.parametrize("through", ["beat", "part"])
def test_a_terminal_answer_ends_the_lease_wherever_it_comes_from(through: str) -> None:
    car = Car()
    car.take()
    car.compute(0, seconds=61)
    assert car.happens(n.Ended(lease_id="lease-1", reason=f"expired ({through})")) == [
        n.KillWork(),
        n.Forget(lease_id="lease-1"),
    ]
    assert car.look() == [n.Poll()]


def test_what_is_said_of_an_older_lease_changes_nothing() -> None:
    car = Car()
    car.take(lease("lease-2"))
    before = car.agent
    for event in (
        n.RowGroupDone(lease_id="lease-1", row_group=0, busy_s=1.0),
        n.PartDelivered(lease_id="lease-1", done_through=10, complete=True),
        n.Ended(lease_id="lease-1", reason="expired"),
        n.BeatAnswered(lease_id="lease-1", go_on=False, expires_in=timedelta()),
        n.Unreached(call="part", lease_id="lease-1", retry_after=None, chance=0.0),
        n.WorkFailed(lease_id="lease-1", kind="refused", detail=""),
        n.Released(lease_id="lease-1"),
    ):
        assert car.happens(event) == []
        assert car.agent == before


def test_a_part_ends_before_the_first_gap_that_a_slower_worker_has_left() -> None:
    car = Car()
    car.take()
    car.compute(0)
    car.compute(2)
    [part] = of(car.look(seconds=60), n.DeliverPart)
    assert (part.start, part.stop) == (0, 1)
    car.compute(1)
    [part] = of([*car.delivered(1), *car.look(seconds=60)], n.DeliverPart)
    assert (part.start, part.stop) == (1, 3)


def test_what_was_computed_ahead_is_not_computed_again_after_a_crash() -> None:
    car = Car()
    car.take()
    car.compute(3)
    car.happens(n.WorkFailed(lease_id="lease-1", kind="crashed", detail="x"))
    [work] = of(car.look(seconds=60), n.StartWork)
    assert (work.start, work.ahead) == (0, frozenset({3}))


def test_a_refused_beat_gives_the_lease_back_with_what_is_finished() -> None:
    car = Car()
    car.take()
    car.compute(0)
    actions = car.happens(n.BeatRefused(lease_id="lease-1", detail="/v1/beat refused with 422"))
    assert [(part.start, part.stop) for part in of(actions, n.DeliverPart)] == [(0, 1)]
    [released] = of(car.delivered(1), n.Release)
    assert (released.reason, released.detail) == ("refused", "/v1/beat refused with 422")
