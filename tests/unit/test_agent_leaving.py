"""A car leaves or loses its network: what is finished counts, and nothing is kept that must not be."""

from datetime import timedelta

import pytest
from agent_story import NIGHT, Car, lease, of

from fleetbatch.car import nouns as n
from fleetbatch.car.moment import lease_of


def test_an_unplugged_car_stops_delivers_what_is_finished_and_lets_go() -> None:
    car = Car()
    car.take()
    car.compute(0)
    car.compute(1)
    assert car.leave("unplugged") == [n.KillWork(), n.DeliverPart(lease=lease(), start=0, stop=2)]
    actions = car.delivered(2)
    [released] = of(actions, n.Release)
    assert released.reason == "unplugged"
    assert car.happens(n.Released(lease_id="lease-1")) == [n.KillWork(), n.Forget(lease_id="lease-1")]
    assert car.look() == [n.Poll()]


def test_the_time_of_the_row_group_that_is_lost_is_counted() -> None:
    car = Car()
    car.take()
    car.compute(0, seconds=10)
    car.now += timedelta(seconds=7)
    car.leave("unplugged")
    [released] = of(car.delivered(1), n.Release)
    assert released.busy_s == pytest.approx(17.0)


def test_a_part_that_is_on_its_way_is_waited_for_before_the_rest_goes_out() -> None:
    car = Car()
    car.take()
    car.compute(0, seconds=61)
    car.compute(1)
    assert car.leave("driving") == [n.KillWork()]
    assert car.delivered(1) == [n.DeliverPart(lease=lease(), start=1, stop=2)]
    assert of(car.delivered(2), n.Release)


def test_a_last_part_that_completes_the_shard_needs_no_release() -> None:
    car = Car()
    car.take(lease(row_groups=1))
    car.compute(0)
    car.leave("unplugged")
    assert of(car.delivered(1, complete=True), n.Release) == []
    assert car.look() == [n.Poll()]


def test_a_withdrawn_consent_erases_what_was_not_delivered() -> None:
    car = Car()
    car.take()
    car.compute(0)
    actions = car.leave("consent")
    assert of(actions, n.DeliverPart) == []
    assert of(actions, n.Release)


def test_a_car_without_network_keeps_its_part_and_delivers_it_hours_later() -> None:
    car = Car()
    car.take()
    car.compute(0)
    car.leave("unplugged")
    for _ in range(200):
        car.lost("part")
        while not of(car.look(seconds=5), n.DeliverPart):
            pass
    assert car.now - NIGHT > timedelta(hours=1)
    assert of(car.delivered(1), n.Release)


def test_a_part_is_not_kept_for_ever() -> None:
    car = Car()
    car.take()
    car.compute(0)
    car.leave("unplugged")
    car.lost("part")
    assert of(car.look(hours=13), n.Forget)
    assert lease_of(car.agent) is None


def test_a_release_that_did_not_arrive_is_sent_again() -> None:
    car = Car()
    car.take()
    first = of(car.leave("too_hot"), n.Release)
    car.lost("release")
    assert of(car.look(seconds=5), n.Release) == first


def test_a_part_that_is_refused_is_dropped_and_the_lease_given_back() -> None:
    car = Car()
    car.take()
    car.compute(0, seconds=61)
    actions = car.happens(n.PartRefused(lease_id="lease-1", detail="422: too large"))
    assert of(actions, n.DeliverPart) == []
    assert [released.reason for released in of(actions, n.Release)] == ["refused"]


def test_a_runner_without_a_lease_ends_at_once() -> None:
    car = Car()
    car.look()
    car.happens(n.PollAnswered(lease=None, retry_after=timedelta(minutes=1), chance=0.0))
    assert of(car.happens(n.Stop()), n.Exit)


def test_a_runner_with_a_lease_delivers_releases_and_ends() -> None:
    car = Car()
    car.take()
    car.compute(0)
    actions = car.happens(n.Stop())
    assert of(actions, n.KillWork)
    assert of(actions, n.DeliverPart)
    [released] = of(car.delivered(1), n.Release)
    assert released.reason == "shutdown"
    assert of(car.happens(n.Released(lease_id="lease-1")), n.Exit)


def test_a_runner_that_reaches_nobody_ends_all_the_same_within_two_seconds() -> None:
    car = Car()
    car.take()
    car.compute(0)
    car.happens(n.Stop())
    assert of(car.look(seconds=1.5), n.Exit)


def test_a_lease_that_is_granted_while_the_runner_ends_is_given_back() -> None:
    car = Car()
    car.look()
    assert car.happens(n.Stop()) == []
    actions = car.happens(n.PollAnswered(lease=lease(), retry_after=timedelta(), chance=0.0))
    assert [released.reason for released in of(actions, n.Release)] == ["shutdown"]
