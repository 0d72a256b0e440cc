"""Whatever order the world sends its messages in, PostgreSQL does what the pure machine does."""

from contextlib import ExitStack

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from ledger_model import STALLED_AFTER, Model, beat_of
from ledger_nights import (
    EVENING,
    Cell,
    digest,
    enrolment,
    frozen_order,
    manifest,
    no,
    open_cell,
    publish,
    request,
    yes,
)
from ledger_sound import assert_sound, wipe

from fleetbatch.errors import RejectedError
from fleetbatch.ledger import life
from fleetbatch.ledger.dials import LedgerDials
from fleetbatch.ledger.ids import lease_id
from fleetbatch.ledger.messages import (
    AuditVerdict,
    Beat,
    Delivery,
    Granted,
    LeaseFinding,
    OrderState,
    Refused,
    Release,
    ShardState,
)
from fleetbatch.units import CarId, Fence, LeaseId, ShardId

NIGHT = EVENING.date()
ORDERS = {"one": {11: (2, 1), 12: (3,)}, "two": {21: (1, 1, 1), 22: (2, 2)}}
"""Each order's shards with the rows of their row groups; order two gives its shards two attempts, order one three."""
SHARDS = [shard for shards in ORDERS.values() for shard in shards]
CARS = st.integers(0, 4)
HOLDERS = st.tuples(st.sampled_from(SHARDS), st.integers(1, 4), CARS)
Drawn = tuple[tuple[int, int, int], int, int, str]
PARTS = st.tuples(HOLDERS, st.integers(0, 2), st.integers(1, 3), st.sampled_from(["right", "right", "other"]))


class NightMachine(RuleBasedStateMachine):
    """A ledger and its model, told the same."""

    def __init__(self, url: str) -> None:
        super().__init__()
        wipe(url)
        self.url = url
        self.stack = ExitStack()
        dials = LedgerDials(decisions_a_day=1000, stalled_after=STALLED_AFTER)
        self.cell: Cell = self.stack.enter_context(open_cell(url, dials))
        self.ledger = self.cell.ledger
        self.frozen = {"one": frozen_order(name="one", attempts=3), "two": frozen_order(name="two", attempts=2)}
        self.ledger.enrol([enrolment(car) for car in (1, 2, 3)])
        for car in (1, 2):
            self.ledger.set_consent(yes(car))
        for name, frozen in self.frozen.items():
            self.ledger.open_order(frozen)
            self.ledger.register_shards(frozen.key, manifest(ORDERS[name]))
        attempts = {name: frozen.order.auditing.attempts_max for name, frozen in self.frozen.items()}
        self.model = Model(ORDERS, attempts, self.frozen["one"].deadline_at)
        self.model.willing = {1, 2}

    def teardown(self) -> None:
        self.stack.close()
        assert_sound(self.url)

    # -- work

    @rule(asked=st.lists(st.tuples(CARS, st.sampled_from(SHARDS)), min_size=1, max_size=4, unique=True))
    def grant(self, asked: list[tuple[int, int]]) -> None:
        taken: dict[tuple[int, int], life.Answer | None] = {}
        for car, shard in sorted(asked):
            taken[car, shard] = self.model.take(car, shard)
        for (car, shard), answer in zip(asked, self.ledger.grant([request(*one) for one in asked]), strict=True):
            held = self.model.held_by(car)
            if isinstance(taken[car, shard], life.OpenLease) or held is None:
                assert_granted(answer, taken[car, shard], shard)
            else:
                assert_granted(answer, self.model.again(car, held), held)

    @rule(holders=st.lists(HOLDERS, min_size=1, max_size=4))
    def beat(self, holders: list[tuple[int, int, int]]) -> None:
        said = [self.model.tell(s, beat_of(c, f, self.model.resumed_at)) for s, f, c in holders]
        beats = [
            Beat(car_id=CarId(c), lease_id=named(s, f), fence=Fence(f), row_groups_done=0, energy_wh=1.0, busy_s=1.0)
            for s, f, c in holders
        ]
        assert self.ledger.beat(beats) == said

    @rule(parts=st.lists(PARTS, min_size=1, max_size=4), honest=st.booleans())
    def deliver(self, parts: list[Drawn], honest: bool) -> None:  # noqa: FBT001 # drawn
        expected, deliveries = [], []
        for drawn in parts:
            shard, event = self.part(drawn, honest=honest)
            expected.append(self.model.tell(shard, event))
            deliveries.append(
                Delivery(
                    car_id=event.car_id,
                    lease_id=named(shard, event.fence),
                    fence=event.fence,
                    start=event.start,
                    stop=event.stop,
                    rows=event.rows,
                    size_bytes=1,
                    sha256=event.sha256,
                    energy_wh=1.0,
                    energy_source="estimated",
                    busy_s=1.0,
                )
            )
        for answer, said in zip(self.ledger.deliver(deliveries), expected, strict=True):
            assert answer == said or (isinstance(answer, Refused) and isinstance(said, Refused))

    def part(self, drawn: Drawn, *, honest: bool) -> tuple[int, life.Deliver]:
        """Return the part that was drawn, or mostly the holder's next one: else little would ever come back."""
        (shard, fence, car), start, stop, content = drawn
        model = self.model.shards[shard]
        if honest and model.lease is not None:
            fence, car, start = model.lease.fence, model.lease.car_id, model.done_through
            stop = max(start + 1, stop)
        event = life.Deliver(
            car_id=CarId(car),
            fence=Fence(fence),
            start=start,
            stop=stop,
            rows=sum(model.row_group_rows[start:stop]),
            sha256=digest(shard, fence, start, stop, content),
        )
        return shard, event

    @rule(holders=st.lists(HOLDERS, min_size=1, max_size=4), reason=st.sampled_from(["unplugged", "refused"]))
    def release(self, holders: list[tuple[int, int, int]], reason: str) -> None:
        said = [self.model.tell(s, life.LetGo(car_id=CarId(c), fence=Fence(f), reason=reason)) for s, f, c in holders]
        releases = [
            Release(car_id=CarId(c), lease_id=named(s, f), fence=Fence(f), reason=reason) for s, f, c in holders
        ]
        assert self.ledger.release(releases) == said

    # -- time

    @rule(seconds=st.sampled_from([1, 20, 31, 590, 601]))
    def pass_time(self, seconds: int) -> None:
        self.cell.pass_time(seconds=seconds)
        self.model.now = self.cell.now

    @rule(minutes=st.sampled_from([1, 5, 11]))
    def serve(self, minutes: int) -> None:
        for _ in range(minutes * 2):
            self.pass_time(30)
            self.sweep()

    @rule()
    def sweep(self) -> None:
        fences = {shard: model.fence for shard, model in self.model.shards.items()}
        gone = {named(shard, fences[shard]) for shard in self.model.sweep()}
        assert set(self.ledger.sweep().expired) == gone

    # -- from above

    @rule(car=st.integers(1, 3), granted=st.booleans())
    def consent(self, car: int, granted: bool) -> None:  # noqa: FBT001 # drawn
        self.ledger.set_consent(yes(car) if granted else no(car))
        if granted:
            self.model.willing.add(car)
        else:
            self.model.willing.discard(car)
            self.model.revoke(lambda _, lease: lease.car_id == car, "consent to compute is withdrawn")

    @precondition(lambda self: not self.model.revoked)
    @rule()
    def distrust(self) -> None:
        self.ledger.revoke_car(CarId(2), "copied")
        self.model.revoked.add(2)
        self.model.revoke(lambda _, lease: lease.car_id == 2, "the car is revoked: copied")

    @rule(shard=st.sampled_from(SHARDS), passed=st.booleans(), late=st.integers(0, 1))
    def judge(self, shard: int, passed: bool, late: int) -> None:  # noqa: FBT001 # drawn
        fence = Fence(max(0, self.model.shards[shard].fence - late))
        finding = LeaseFinding(lease_id=named(shard, fence), audited_rows=1, disagreements=int(not passed))
        verdict = AuditVerdict(
            shard_id=ShardId(shard),
            order_key=self.frozen[self.model.order_of[shard]].key,
            fence=fence,
            passed=passed,
            findings=(finding,),
        )
        wrong = frozenset(e.car_id for e in self.model.shards[shard].ended if e.fence == fence and not passed)
        event = life.Judge(fence=fence, passed=passed, wrong=wrong)
        assert self.ledger.record_audit(verdict) == self.model.tell(shard, event)

    @rule(name=st.sampled_from(list(ORDERS)), paused=st.booleans())
    def pause_or_resume(self, name: str, paused: bool) -> None:  # noqa: FBT001 # drawn
        turn = self.ledger.pause if paused else self.ledger.resume
        if self.model.orders[name] in {OrderState.CANCELLED, OrderState.CLOSED}:
            with pytest.raises(RejectedError, match="for good"):
                turn(self.frozen[name].key)
            return
        turn(self.frozen[name].key)
        self.model.orders[name] = OrderState.PAUSED if paused else OrderState.OPEN

    @rule(name=st.sampled_from(list(ORDERS)), recalled=st.booleans(), chance=st.integers(0, 5))
    def cancel_or_recall(self, name: str, recalled: bool, chance: int) -> None:  # noqa: FBT001 # drawn
        if chance or self.model.orders[name] is OrderState.CLOSED:
            return  # rarely, or the night would be over before it began
        key = self.frozen[name].key
        said = self.ledger.recall(key, "why") if recalled else self.ledger.cancel(key, "why")
        word, gone = ("recalled", UNPUBLISHED) if recalled else ("cancelled", UNCOMPUTED)
        event = life.GiveUp(reason=f"the order is {word}: why", gone=gone)
        assert said == sum(bool(self.model.tell(shard, event)) for shard in ORDERS[name])
        self.model.orders[name] = OrderState.CANCELLED

    @rule(name=st.sampled_from(list(ORDERS)), published=st.booleans(), chance=st.integers(0, 5))
    def close(self, name: str, published: bool, chance: int) -> None:  # noqa: FBT001 # drawn
        if chance:
            return  # rarely, or the night would be over before it began
        lost = sum(bool(self.model.tell(shard, life.GiveUp(reason="late"))) for shard in ORDERS[name])
        assert self.ledger.give_up(self.frozen[name].key, "late") == lost
        if published:
            publish(self.ledger, self.frozen[name].key)
            self.model.orders[name] = OrderState.CLOSED
            for shard in ORDERS[name]:
                self.model.tell(shard, life.Publish())

    @invariant()
    def rows_are_what_the_model_says(self) -> None:
        expected = {
            shard: (m.state.value, m.fence, m.void_fence, m.done_through, m.attempts, m.cloud_only, m.car_made)
            for shard, m in self.model.shards.items()
        }
        with psycopg.connect(self.url) as connection:
            rows = connection.execute(SNAPSHOT).fetchall()
        assert {row[0]: row[1:] for row in rows} == expected


UNCOMPUTED = frozenset({ShardState.READY, ShardState.OUT})
UNPUBLISHED = UNCOMPUTED | {ShardState.RETURNED, ShardState.VALID}
SNAPSHOT = b"""
    SELECT shard_id, state::text, fence, void_fence, done_through, attempts, cloud_only, car_made
    FROM fleetbatch.shards"""


def assert_granted(answer: Granted | Refused, expected: life.Answer | None, shard: int) -> None:
    if not isinstance(expected, life.OpenLease):
        assert isinstance(answer, Refused)
        return
    assert isinstance(answer, Granted), answer
    assert (answer.shard_id, answer.fence, answer.start) == (shard, expected.fence, expected.start)
    assert answer.expires_at == expected.expires_at


def machine_on(url: str) -> type[NightMachine]:
    class OnThisDatabase(NightMachine):
        def __init__(self) -> None:
            super().__init__(url)

    return OnThisDatabase


def named(shard: int, fence: int) -> LeaseId:
    return lease_id(NIGHT, shard, fence)


QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much]
SMALL = settings(derandomize=True, max_examples=10, stateful_step_count=25, deadline=None, suppress_health_check=QUIET)
LARGE = settings(SMALL, derandomize=False, database=None, max_examples=300, stateful_step_count=60)


def test_postgresql_lives_the_life_of_the_machine(cell_url: str) -> None:
    run_state_machine_as_test(machine_on(cell_url), settings=SMALL)


@pytest.mark.prove
@pytest.mark.timeout(3600)
def test_postgresql_lives_the_life_of_the_machine_for_long(cell_url: str) -> None:
    run_state_machine_as_test(machine_on(cell_url), settings=LARGE)
