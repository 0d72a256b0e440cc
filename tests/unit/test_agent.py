from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetbatch.car import nouns as n
from fleetbatch.car.agent import parked, step
from fleetbatch.car.conditions import Latch, WhyNot
from fleetbatch.car.moment import Dials, lease_of
from fleetbatch.protocol import Lease, ReleaseReason

NIGHT = datetime(2026, 11, 22, 23, tzinfo=UTC)
DIALS = Dials()
WILLING = Latch(willing=True)
Kind = TypeVar("Kind", bound=n.Action)


def lease(name: str = "lease-1", *, start: int = 0, row_groups: int = 10) -> Lease:
    return Lease(
        lease_id=name,
        fence=1,
        shard_id="00000000000000aa",
        order_key="2026-11-22/signs/g1",
        workload="image",
        options={},
        model_sha256="0" * 64,
        model_url="http://store/model",
        model_bytes=1,
        shard_url="http://store/shard",
        shard_bytes=1,
        shard_sha256="0" * 64,
        shard_key="key",
        row_groups=row_groups,
        start=start,
        expires_in_s=600.0,
        beat_every_s=60.0,
        part_every_s=60.0,
    )


@dataclass
class Car:
    """An agent under a clock turned by hand."""

    agent: n.Agent = field(default_factory=lambda: parked(NIGHT))
    now: datetime = NIGHT
    willing: Latch = WILLING
    doing: list[n.Action] = field(default_factory=list)
    """Everything it was ever told to do."""

    def happens(self, event: n.Event) -> list[n.Action]:
        self.agent, actions = step(self.agent, event, DIALS, now=self.now)
        self.doing += actions
        return list(actions)

    def look(self, **passes: float) -> list[n.Action]:
        """Let time pass and look at the signals."""
        self.now += timedelta(**passes)
        return self.happens(n.Looked(latch=self.willing))

    def leave(self, reason: ReleaseReason) -> list[n.Action]:
        self.willing = Latch(willing=False, why_not=WhyNot(reason=reason, detail=reason))
        return self.look()

    def take(self, granted: Lease | None = None) -> None:
        """Poll and get a lease."""
        assert self.look() == [n.Poll()]
        granted = granted or lease()
        actions = self.happens(n.PollAnswered(lease=granted, retry_after=timedelta(), chance=0.5))
        assert actions == [n.StartWork(lease=granted, start=granted.start)]

    def compute(self, row_group: int, *, seconds: float = 10.0) -> list[n.Action]:
        self.now += timedelta(seconds=seconds)
        return self.happens(n.RowGroupDone(lease_id="lease-1", row_group=row_group, busy_s=seconds))

    def delivered(self, through: int, *, complete: bool = False) -> list[n.Action]:
        return self.happens(n.PartDelivered(lease_id="lease-1", done_through=through, complete=complete))

    def lost(self, call: n.Call, *, retry_after: timedelta | None = None, chance: float = 0.0) -> list[n.Action]:
        about = "" if call == "poll" else "lease-1"
        return self.happens(n.Unreached(call=call, lease_id=about, retry_after=retry_after, chance=chance))

    def beat_answered(self, *, go_on: bool = True, minutes: float = 10) -> list[n.Action]:
        return self.happens(n.BeatAnswered(lease_id="lease-1", go_on=go_on, expires_in=timedelta(minutes=minutes)))

    def done(self, kind: type[Kind]) -> list[Kind]:
        return [action for action in self.doing if isinstance(action, kind)]


def of(actions: list[n.Action], kind: type[Kind]) -> list[Kind]:
    return [action for action in actions if isinstance(action, kind)]


# --- no lease -----------------------------------------------------------------------------------------------------


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


# --- a lease ------------------------------------------------------------------------------------------------------


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


def test_a_gateway_that_says_stop_ends_the_work_and_everything_is_forgotten() -> None:
    car = Car()
    car.take()
    car.compute(0)
    car.look(seconds=60)
    assert car.beat_answered(go_on=False) == [n.KillWork(), n.Forget(lease_id="lease-1")]
    assert lease_of(car.agent) is None


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


# --- leaving ------------------------------------------------------------------------------------------------------


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


# --- trouble ------------------------------------------------------------------------------------------------------


def test_without_contact_a_car_computes_until_its_lease_is_over_then_keeps_what_it_has() -> None:
    car = Car()
    car.take(lease(row_groups=1000))
    row_group = 0
    while not car.done(n.KillWork):
        car.compute(row_group, seconds=5)
        row_group += 1
        car.look(seconds=1)
        if car.agent.phase.held.beating:  # type: ignore[union-attr] # it holds a lease throughout
            car.lost("beat")
        if car.agent.phase.held.sending and not car.agent.phase.held.send_at:  # type: ignore[union-attr] # same
            car.lost("part")
    assert timedelta(minutes=10) <= car.now - NIGHT < timedelta(minutes=12)
    again = car.beat_answered()  # the cell is back
    assert again == [n.StartWork(lease=lease(row_groups=1000), start=row_group)]


def test_a_worker_that_died_is_started_again_where_it_stopped() -> None:
    car = Car()
    car.take()
    car.compute(0)
    assert car.happens(n.WorkFailed(lease_id="lease-1", kind="crashed", detail="worker ended")) == [n.KillWork()]
    assert of(car.look(seconds=0.5), n.StartWork) == []
    assert of(car.look(seconds=1), n.StartWork) == [n.StartWork(lease=lease(), start=1)]


def test_a_worker_that_keeps_dying_costs_the_lease_not_the_car() -> None:
    car = Car()
    car.take()
    for _ in range(DIALS.crashes_max):
        car.happens(n.WorkFailed(lease_id="lease-1", kind="crashed", detail="worker ended"))
        car.look(seconds=30)
    actions = car.happens(n.WorkFailed(lease_id="lease-1", kind="crashed", detail="worker ended"))
    assert [released.reason for released in of(actions, n.Release)] == ["refused"]


def test_a_store_that_does_not_answer_is_asked_again_for_the_whole_lease() -> None:
    car = Car()
    car.take()
    car.compute(0)
    starts = 0
    while car.now - NIGHT < timedelta(minutes=9):
        car.happens(n.WorkFailed(lease_id="lease-1", kind="unreached", detail="the shard could not be read"))
        while not of(car.look(seconds=1), n.StartWork):
            car.beat_answered()
        starts += 1
    assert starts >= 10
    assert car.done(n.Release) == []
    car.compute(1)
    assert car.done(n.StartWork)[-1] == n.StartWork(lease=lease(), start=1)


def test_a_shard_that_cannot_be_read_while_the_gateway_answers_is_given_back_in_the_end() -> None:
    car = Car()
    car.take()
    while not car.done(n.Release):
        car.happens(n.WorkFailed(lease_id="lease-1", kind="unreached", detail="404"))
        car.look(minutes=1)
        car.beat_answered()
    assert timedelta(minutes=9) < car.now - NIGHT < timedelta(minutes=15)
    assert car.done(n.Release)[0].reason == "refused"


def test_a_bundle_or_shard_that_is_unusable_is_given_back_after_what_was_finished() -> None:
    car = Car()
    car.take()
    car.compute(0)
    actions = car.happens(n.WorkFailed(lease_id="lease-1", kind="refused", detail="row group 1 cannot be unsealed"))
    assert of(actions, n.DeliverPart) == [n.DeliverPart(lease=lease(), start=0, stop=1)]
    [released] = of(car.delivered(1), n.Release)
    assert (released.reason, released.detail) == ("refused", "row group 1 cannot be unsealed")
    car.happens(n.Released(lease_id="lease-1"))
    assert car.look(seconds=59) == []  # it would be offered the same again
    assert car.look(seconds=1) == [n.Poll()]


def test_a_worker_that_hangs_is_replaced() -> None:
    car = Car()
    car.take()
    car.compute(0)
    for _ in range(14):
        assert of(car.look(minutes=1), n.KillWork) == []
        car.beat_answered()
    assert of(car.look(minutes=2), n.KillWork)


# --- ending -------------------------------------------------------------------------------------------------------


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


# --- always -------------------------------------------------------------------------------------------------------

names = st.sampled_from(["lease-1", "lease-1", "lease-1", "lease-2"])
kinds = st.sampled_from(["refused", "crashed", "unreached"])
soon = st.one_of(st.none(), st.timedeltas(timedelta(), timedelta(minutes=2)))
latches = st.sampled_from(
    [WILLING, WILLING, WILLING, Latch(willing=False, why_not=WhyNot(reason="unplugged", detail="out"))]
)
events: st.SearchStrategy[Any] = st.one_of(
    st.builds(n.Looked, latch=latches),
    st.builds(n.PollAnswered, lease=st.one_of(st.none(), st.just(lease())), retry_after=st.just(timedelta(seconds=9)),
              chance=st.floats(0, 0.99)),
    st.builds(n.BeatAnswered, lease_id=names, go_on=st.booleans(), expires_in=st.just(timedelta(minutes=10))),
    st.builds(n.RowGroupDone, lease_id=names, row_group=st.integers(0, 9), busy_s=st.floats(0, 50)),
    st.builds(n.WorkFailed, lease_id=names, kind=kinds, detail=st.just("x")),
    st.builds(n.PartDelivered, lease_id=names, done_through=st.integers(0, 10), complete=st.booleans()),
    st.builds(n.PartRefused, lease_id=names, detail=st.just("x")),
    st.builds(n.Released, lease_id=names),
    st.builds(n.Ended, lease_id=names, reason=st.just("x")),
    st.builds(n.Unreached, call=st.sampled_from(["poll", "beat", "part", "release"]), lease_id=names, retry_after=soon,
              chance=st.floats(0, 0.99)),
    st.just(n.Stop()),
)  # fmt: skip


@given(st.lists(st.tuples(st.floats(0, 90), events), max_size=120))
@settings(max_examples=300, deadline=None)
def test_whatever_happens_a_car_computes_only_while_it_may(story: list[tuple[float, n.Event]]) -> None:
    """The worker runs only under a lease, while willing; parts continue each other; an exit is the last thing done."""
    car = Car()
    at_work = False
    for seconds, event in story:
        car.now += timedelta(seconds=seconds)
        if isinstance(event, n.Looked):
            car.willing = event.latch
        ended = bool(car.done(n.Exit))
        actions = car.happens(event)
        assert not (ended and actions)
        at_work = is_at_work(actions, willing=car.willing.willing, before=at_work)
        if lease_of(car.agent) is None or (isinstance(event, n.Looked) and not car.willing.willing):
            assert not at_work
        assert all(0 <= part.start < part.stop <= 10 for part in of(actions, n.DeliverPart))


def is_at_work(actions: list[n.Action], *, willing: bool, before: bool) -> bool:
    at_work = before
    for action in actions:
        if isinstance(action, n.StartWork):
            assert willing
            at_work = True
        if isinstance(action, n.KillWork):
            at_work = False
    return at_work


# --- several workers ----------------------------------------------------------------------------------------------


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
