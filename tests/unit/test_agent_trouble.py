"""Whatever goes wrong, and in whatever order, a car computes only while it may."""

from datetime import timedelta
from typing import Any

from agent_story import DIALS, NIGHT, WILLING, Car, lease, of
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetbatch.car import nouns as n
from fleetbatch.car.conditions import Latch, WhyNot
from fleetbatch.car.moment import lease_of


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
