"""The pure life of a shard: what happens to it, told in events."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from fleetbatch.ledger.life import (
    Answer,
    Beat,
    Deliver,
    Event,
    GiveUp,
    Judge,
    LetGo,
    OpenLease,
    Publish,
    Revoke,
    Shard,
    Take,
    TimePassed,
)
from fleetbatch.ledger.machine import NOT_YOURS, step
from fleetbatch.ledger.messages import BeatAnswer, Delivered, Refused, Released, Terminal
from fleetbatch.ledger.states import LeaseState, ShardState
from fleetbatch.units import CLOUD_CAR, CarId, Fence, Sha256

EVENING = datetime(2026, 11, 22, 20, tzinfo=UTC)
LEASE_FOR = timedelta(minutes=10)
RESUMED = EVENING - timedelta(hours=1)
STALLED_AFTER = timedelta(minutes=25)
SHARD = Shard(row_group_rows=(10, 10, 5), attempts_max=2)


def take(car: int = 1) -> Take:
    return Take(car_id=CarId(car), lease_for=LEASE_FOR)


def part(start: int, stop: int, *, car: int = 1, fence: int = 1, content: str = "right") -> Deliver:
    rows = sum(SHARD.row_group_rows[start:stop])
    return Deliver(car_id=CarId(car), fence=Fence(fence), start=start, stop=stop, rows=rows, sha256=Sha256(content))


def beat(car: int = 1, fence: int = 1, *, resumed_at: datetime = RESUMED) -> Beat:
    return Beat(car_id=CarId(car), fence=Fence(fence), resumed_at=resumed_at, stalled_after=STALLED_AFTER)


def let_go(reason: str = "unplugged", *, car: int = 1, fence: int = 1) -> LetGo:
    return LetGo(car_id=CarId(car), fence=Fence(fence), reason=reason)


def after(*events: Event, shard: Shard = SHARD, now: datetime = EVENING) -> Shard:
    for event in events:
        shard, _ = step(shard, event, now=now)
    return shard


def answer(shard: Shard, event: Event, *, now: datetime = EVENING) -> Answer:
    return step(shard, event, now=now)[1]


def test_a_shard_goes_out_comes_back_passes_and_is_published() -> None:
    shard = after(take(), part(0, 2), part(2, 3))
    assert (shard.state, shard.done_through, shard.lease) == (ShardState.RETURNED, 3, None)
    shard = after(Judge(fence=Fence(1), passed=True), shard=shard)
    assert shard.state is ShardState.VALID
    assert after(Publish(), shard=shard).state is ShardState.DONE


def test_whoever_comes_next_starts_where_the_last_one_stopped() -> None:
    shard = after(take(1), part(0, 2), let_go())
    assert (shard.state, shard.done_through) == (ShardState.READY, 2)
    lease = answer(shard, take(2))
    assert isinstance(lease, OpenLease)
    assert (lease.start, lease.fence) == (2, 2)


def test_a_silent_holder_loses_the_shard_when_its_time_in_service_is_over() -> None:
    shard = after(take())
    late = EVENING + LEASE_FOR
    assert answer(shard, TimePassed(resumed_at=RESUMED), now=late - timedelta(microseconds=1)) is False
    assert answer(shard, TimePassed(resumed_at=late), now=late) is False  # an outage just ended
    freed, expired = step(shard, TimePassed(resumed_at=RESUMED), now=late)
    assert (expired, freed.state, freed.ended[0].state) == (True, ShardState.READY, LeaseState.EXPIRED)


def test_beats_and_parts_keep_a_lease() -> None:
    later = EVENING + timedelta(minutes=5)
    for sign_of_life in (beat(), part(0, 1)):
        shard = after(sign_of_life, shard=after(take()), now=later)
        assert shard.lease is not None
        assert shard.lease.expires_at == later + LEASE_FOR


def test_beats_alone_keep_a_lease_for_so_long_after_its_last_part_in_time_of_service() -> None:
    shard, stalled = after(take()), EVENING + STALLED_AFTER
    for minutes in range(1, 25):
        shard = after(beat(), shard=shard, now=EVENING + timedelta(minutes=minutes))
    assert shard.lease is not None
    assert shard.lease.expires_at == stalled
    assert answer(shard, TimePassed(resumed_at=RESUMED), now=stalled) is True
    moving = after(part(0, 1), shard=shard, now=stalled - timedelta(minutes=1))
    moving = after(beat(), shard=moving, now=stalled)
    assert moving.lease is not None
    assert moving.lease.expires_at == stalled + LEASE_FOR
    late = after(beat(resumed_at=stalled), shard=shard, now=stalled)  # an outage just ended: it could not deliver
    assert late.lease is not None
    assert late.lease.expires_at == stalled + LEASE_FOR


def test_a_lease_never_gets_shorter() -> None:
    shard = after(beat(), shard=after(take()), now=EVENING - timedelta(minutes=3))
    assert shard.lease is not None
    assert shard.lease.expires_at == EVENING + LEASE_FOR


def test_an_old_fence_is_answered_and_never_obeyed() -> None:
    shard = after(take(1), let_go("driving"), take(1))
    for message in (part(0, 3), let_go(), beat()):
        unchanged, said = step(shard, message, now=EVENING)
        assert unchanged == shard
        match said:
            case Terminal(reason=reason) | BeatAnswer(go_on=False, reason=reason):
                assert reason == "the lease is released: driving"
            case _:
                assert said == Released(done_through=0)


def test_another_car_cannot_speak_for_the_holder() -> None:
    shard = after(take(1))
    assert step(shard, part(0, 1, car=2), now=EVENING) == (shard, NOT_YOURS)
    assert step(shard, let_go(car=2), now=EVENING) == (shard, NOT_YOURS)


def test_a_repeated_part_gets_its_first_answer_even_when_the_shard_went_on() -> None:
    shard = after(take(1), part(0, 1), let_go(), take(2), part(1, 3, car=2, fence=2))
    assert answer(shard, part(0, 1)) == Delivered(done_through=1, complete=False)
    assert answer(shard, part(1, 3, car=2, fence=2)) == Delivered(done_through=3, complete=True)


def test_a_part_must_continue_the_shard_with_all_its_rows() -> None:
    shard = after(take(), part(0, 1))
    for wrong in (part(2, 3), part(1, 1), replace(part(1, 2), rows=9), part(0, 1, content="other")):
        assert isinstance(answer(shard, wrong), Refused), wrong


def test_a_refused_shard_starts_again_and_in_the_end_only_in_the_cloud_lane() -> None:
    shard = after(take(1), part(0, 3), Judge(fence=Fence(1), passed=False))
    assert (shard.state, shard.done_through, shard.attempts, shard.valid_parts) == (ShardState.READY, 0, 1, ())
    shard = after(take(2), let_go("refused", car=2, fence=2), shard=shard)
    assert shard.cloud_only
    assert answer(shard, take(3)) == Refused(reason="the shard is left to the cloud lane")
    assert isinstance(answer(shard, take(CLOUD_CAR)), OpenLease)


def test_only_trusted_work_needs_no_audit() -> None:
    trusted = after(take(CLOUD_CAR), part(0, 3, car=CLOUD_CAR))
    assert trusted.state is ShardState.VALID
    mixed = after(take(1), part(0, 1), let_go(), take(CLOUD_CAR), part(1, 3, car=CLOUD_CAR, fence=2))
    assert mixed.state is ShardState.RETURNED
    again = after(Judge(fence=Fence(2), passed=False), take(CLOUD_CAR), part(0, 3, car=CLOUD_CAR, fence=3), shard=mixed)
    assert again.state is ShardState.VALID


def test_a_verdict_is_for_one_return_of_the_shard() -> None:
    shard = after(take(), part(0, 3))
    assert answer(shard, Judge(fence=Fence(2), passed=True)) is False
    judged = after(Judge(fence=Fence(1), passed=False), shard=shard)
    assert step(judged, Judge(fence=Fence(1), passed=True), now=EVENING) == (judged, False)


def test_giving_up_ends_the_lease_and_spares_what_is_valid() -> None:
    shard = after(take(), part(0, 1), GiveUp(reason="too late"))
    assert (shard.state, shard.reason) == (ShardState.MISSING, "too late")
    assert answer(shard, part(1, 3)) == Terminal(reason="the lease is revoked: too late", state=LeaseState.REVOKED)
    valid = after(take(CLOUD_CAR), part(0, 3, car=CLOUD_CAR))
    assert step(valid, GiveUp(reason="too late"), now=EVENING) == (valid, False)


CARS = st.integers(0, 3).map(CarId)
FENCES = st.integers(1, 4).map(Fence)
GROUPS = st.integers(0, 3)
EVENTS = st.one_of(
    st.builds(Take, car_id=CARS, lease_for=st.just(LEASE_FOR)),
    st.builds(beat, CARS, FENCES),
    st.builds(part, GROUPS, GROUPS, car=CARS, fence=FENCES, content=st.sampled_from(["right", "other"])),
    st.builds(let_go, st.sampled_from(["unplugged", "refused"]), car=CARS, fence=FENCES),
    st.builds(TimePassed, resumed_at=st.sampled_from([RESUMED, EVENING])),
    st.builds(Revoke, reason=st.just("withdrawn")),
    st.builds(Judge, fence=FENCES, passed=st.booleans()),
    st.builds(GiveUp, reason=st.just("late")),
    st.builds(Publish),
)
ORDERED = [ShardState.VALID, ShardState.DONE]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(EVENTS, st.integers(0, 8)), max_size=40))
def test_whatever_happens_a_shard_stays_sound(story: list[tuple[Event, int]]) -> None:
    shard, now = SHARD, EVENING
    for event, minutes in story:
        now += timedelta(minutes=minutes)
        before, (shard, _) = shard, step(shard, event, now=now)
        assert (shard.lease is not None) == (shard.state is ShardState.OUT)
        assert shard.lease is None or shard.lease.fence == shard.fence
        assert [e.fence for e in shard.ended] + ([shard.fence] if shard.lease else []) == list(
            range(1, shard.fence + 1)
        )
        edges = [0, *(p.stop for p in shard.valid_parts)]
        assert [p.start for p in shard.valid_parts] == edges[:-1]
        assert edges[-1] == shard.done_through
        assert all(a < b for a, b in pairwise(edges))
        assert before.parts == shard.parts[: len(before.parts)]  # an acknowledged part is never lost
        assert before.ended == shard.ended[: len(before.ended)]  # an ended lease never changes
        assert before.state not in ORDERED or shard.state in ORDERED
        assert before.state is not ShardState.MISSING or shard == before
        finished = {ShardState.RETURNED, ShardState.VALID, ShardState.DONE}
        assert shard.state not in finished or shard.done_through == shard.row_groups


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENTS, max_size=20), st.lists(EVENTS, max_size=20))
def test_a_terminal_answer_is_given_for_ever(first: list[Event], then: list[Event]) -> None:
    shard = after(*first)
    holders = [(car, fence) for car in (0, 1, 2) for fence in (1, 2)]
    questions: list[Event] = [part(0, 1, car=car, fence=fence) for car, fence in holders]
    questions += [let_go(car=car, fence=fence) for car, fence in holders]
    unmoved = [(q, said) for q in questions for moved, said in [step(shard, q, now=EVENING)] if moved == shard]
    final = {q: said for q, said in unmoved if isinstance(said, Terminal | Delivered | Released) and said != NOT_YOURS}
    later = after(*then, shard=shard)
    assert {q: answer(later, q) for q in final} == final
