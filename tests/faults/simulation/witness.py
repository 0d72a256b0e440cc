"""What nobody may ever see: rules P1 to P5 against every answer of the ledger, by what was acknowledged before."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from faults.simulation.dials import Dials
from faults.simulation.facts import LockFacts, PartKey, ShardFacts, fence_of, part_key, shard_of, tiled
from ledger_nights import EVENING

from fleetbatch.ledger.machine import ending
from fleetbatch.ledger.messages import (
    Beat,
    BeatAnswer,
    Delivered,
    Delivery,
    Granted,
    GrantRequest,
    LeaseState,
    Refused,
    Release,
    Released,
    Terminal,
)
from fleetbatch.nouns import OrderKey
from fleetbatch.units import CLOUD_CAR

_MARGIN = timedelta(minutes=2)  # a clock that is set back may make a lease look too long by so much


class Witness:
    """Holds every answer against what was said before."""

    def __init__(self, dials: Dials) -> None:
        self.now = EVENING
        self.dials = dials
        self.served_at = self.resumed_at = EVENING - timedelta(days=1)
        self.violations: list[str] = []
        self.seen: Counter[str] = Counter()
        self.shards: dict[int, ShardFacts] = {}
        self.closed_orders: set[OrderKey] = set()
        self.recalls: set[OrderKey] = set()
        self.may_grant: dict[OrderKey, bool | None] = {}
        self.deadlines: dict[OrderKey, datetime] = {}
        self.attempts_max: dict[OrderKey, int] = {}
        self.consent: dict[tuple[int, str], bool | None] = {}
        self.distrusted: set[int] = set()
        self.classes: dict[OrderKey, str] = {}
        self.promised: dict[str, tuple[datetime, timedelta]] = {}
        self.moved: dict[str, datetime] = {}  # when a lease was granted or last delivered, at the earliest
        self.over: dict[tuple[int, str], Terminal | Released] = {}
        self.unsure: set[PartKey] = set()
        self.owners: dict[str, int] = {}
        self.exhausted: set[int] = set()
        """Shards that only trusted machines may have."""
        self.let_go: set[tuple[int, str]] = set()
        self.planner = LockFacts(holder=None, until=EVENING)

    def broken(self, rule: str, what: object) -> None:
        self.violations.append(f"{rule}: {what} (at {self.now:%d %H:%M:%S})")

    def check(self, rule: str, what: object, *, holds: bool) -> None:
        self.seen[rule[:2]] += 1
        if not holds:
            self.broken(rule, what)

    # -- answers

    def granted(self, asked: GrantRequest, answer: Granted | Refused) -> None:
        if isinstance(answer, Refused):
            return
        facts = self.shards[answer.shard_id]
        self._may_work(answer, facts)
        self.check("P1 work starts after what is durable", answer, holds=answer.start >= facts.durable)
        known = self.owners.get(answer.lease_id) == answer.car_id and answer.fence == facts.fence
        new = answer.again or answer.fence > facts.fence or known
        self.check("P2 a new lease has a new fence", answer, holds=new)
        self.check(
            "P2 an ended lease is not granted again", answer, holds=(answer.car_id, answer.lease_id) not in self.over
        )
        self.check(
            "P2 a car is granted what it asks for", answer, holds=answer.again or answer.shard_id == asked.shard_id
        )
        self.check(
            "P2 a lease has one car",
            answer,
            holds=self.owners.setdefault(answer.lease_id, answer.car_id) == answer.car_id == asked.car_id,
        )
        self.check(
            "P2 a lease has work left", answer, holds=answer.start < answer.row_groups == len(facts.row_group_rows)
        )
        facts.fence = max(facts.fence, answer.fence)
        self.moved.setdefault(answer.lease_id, EVENING if answer.again else self.now)
        self._promise(answer.lease_id, answer.expires_at, asked.lease_for)

    def _may_work(self, answer: Granted, facts: ShardFacts) -> None:
        order, car = facts.order, answer.car_id
        self.check("P2 a shard is granted under its order", answer, holds=answer.order_key == order)
        if answer.again:
            open_now = order not in self.closed_orders
        else:
            open_now = self.may_grant[order] is not False and self.now < self.deadlines[order]
        self.check("P2 only open orders are worked on", answer, holds=open_now)
        if car == CLOUD_CAR:
            return
        kind = self.classes[order]
        wanted = ["compute"] if kind == "open" else ["compute", f"data:{kind}"]
        said_no = [purpose for purpose in wanted if self.consent.get((car, purpose), False) is False]
        self.check("P4 no work without consent", (answer, said_no), holds=not said_no)
        self.check("P4 no work for a distrusted car", answer, holds=car not in self.distrusted)
        if not answer.again:
            left = facts.refusals < self.attempts_max[order]
            self.check("P2 too many attempts leave a shard to trusted machines", answer, holds=left)
            self.check("P2 whoever failed at a shard does not get it again", answer, holds=car not in facts.failed)

    def beaten(self, beat: Beat, answer: BeatAnswer) -> None:
        if self._forged(beat, success=answer.go_on):
            return
        if shard_of(beat.lease_id) not in self.shards:
            return
        known = self.over.get((beat.car_id, beat.lease_id))
        if answer.go_on:
            assert answer.expires_at is not None
            self.check("P2 an ended lease stays ended", (beat, known), holds=known is None)
            self._promise(beat.lease_id, answer.expires_at, None)
        elif isinstance(known, Terminal):
            self.check(
                "P2 an ended lease gets the same answer for ever", (answer, known), holds=known.reason == answer.reason
            )

    def delivered(self, part: Delivery, answer: Delivered | Terminal | Refused) -> None:
        shard, key = shard_of(part.lease_id), part_key(part)
        facts = self.shards.get(shard)
        if facts is None or self._forged(part, success=isinstance(answer, Delivered)):
            return
        if isinstance(answer, Terminal):
            self.check("P1 an acknowledged part stays acknowledged", part, holds=key not in facts.parts)
            self._ended(part.car_id, part.lease_id, answer)
        if not isinstance(answer, Delivered):
            self.check("P1 an acknowledged part is acknowledged again", part, holds=key not in facts.parts)
            return
        said = Delivered(done_through=part.stop, complete=part.stop == len(facts.row_group_rows))
        self.check("P1 the answer says how far the part reaches", (part, answer), holds=answer == said)
        if key not in facts.parts:
            self._taken(part, facts, late=key not in self.unsure)
        facts.parts[key] = part.car_id

    def _taken(self, part: Delivery, facts: ShardFacts, *, late: bool) -> None:
        known = self.over.get((part.car_id, part.lease_id))
        rows = sum(facts.row_group_rows[part.start : part.stop])
        if late:  # otherwise it was taken before its lease ended, and only the answer was lost
            self.check("P2 a part has all its rows", part, holds=rows == part.rows)
            self.check("P2 no part counts after its lease", (part, known), holds=known is None)
            self.check("P2 no part counts under an old fence", part, holds=part.fence >= facts.fence)
            self.check("P2 no row group counts twice", (part, facts.durable), holds=part.start >= facts.durable)
            self.moved[part.lease_id] = self.now
        if part.fence >= facts.fence and part.fence not in facts.voided:
            facts.durable = max(facts.durable, part.stop)

    def released(self, release: Release, answer: Released | Terminal) -> None:
        facts = self.shards.get(shard_of(release.lease_id))
        if facts is None or self._forged(release, success=isinstance(answer, Released)):
            return
        known = self.over.get((release.car_id, release.lease_id))
        if isinstance(answer, Terminal):
            self._ended(release.car_id, release.lease_id, answer)
            return
        if isinstance(known, Released):
            self.check("P2 a repeated release gets the same answer", (answer, known), holds=answer == known)
        elif known is not None:
            released = known.state is LeaseState.RELEASED
            self.check("P2 a lease that ended otherwise was not released", (answer, known), holds=released)
        else:
            self.over[release.car_id, release.lease_id] = answer
            if release.reason == "refused":
                self._failed(shard_of(release.lease_id), {release.car_id})
            if release.fence == facts.fence:
                self.check(
                    "P1 letting go keeps what is durable",
                    (release, answer, facts.durable),
                    holds=answer.done_through >= facts.durable,
                )

    def _ended(self, car: int, lease: str, answer: Terminal) -> None:
        if answer.state is None:
            self.check("P2 a holder's lease is known", (car, lease), holds=self.owners.get(lease) != car)
            return
        if answer.state is LeaseState.RELEASED:
            self.check("P2 a lease is released by its car", lease, holds=(car, lease) in self.let_go)
        known = self.over.setdefault((car, lease), answer)
        if isinstance(known, Terminal):
            self.check("P2 an ended lease gets the same answer for ever", (answer, known), holds=known == answer)

    def forged(self, message: Beat | Delivery | Release) -> bool:
        """Say whether a message names another's lease, as far as is known, or another fence."""
        owner = self.owners.get(message.lease_id, message.car_id)
        return owner != message.car_id or message.fence != fence_of(message.lease_id)

    def _forged(self, message: Beat | Delivery | Release, *, success: bool) -> bool:
        """Such a message never succeeds."""
        if not self.forged(message):
            return False
        self.check("P2 nobody speaks for another's lease or fence", message, holds=not success)
        return True

    # -- time

    def _promise(self, lease: str, until: datetime, lease_for: timedelta | None) -> None:
        """An instant that a car was told is kept to, whatever comes; beats renew it whole while work moves."""
        known, length = self.promised.get(lease, (until, lease_for or timedelta(0)))
        length, what = lease_for or length, (lease, until)
        least = min(self.now + length, self.moved.get(lease, EVENING) + self.dials.stalled_after)
        self.check("P5 a renewed lease is renewed for its whole length", what, holds=until >= max(known, least))
        most = max(known, self.now + length) + _MARGIN
        self.check("P5 a lease is for its own length", what, holds=until <= most)
        self.promised[lease] = (max(known, until), length)

    def served(self) -> None:
        """A sweep says that beats are answered: `ledger-and-gateway.md`, the outage rule."""
        if self.served_at < self.now - self.dials.outage_after:
            self.resumed_at = self.now
        # Where the first sweep died before its commit and the clock was set back since, grace began with a later one.
        self.resumed_at = min(self.resumed_at, self.now)
        self.served_at = max(self.served_at, self.now)

    def expired(self, lease: str) -> None:
        until, length = self.promised.get(lease, (self.now, timedelta(0)))
        self.check("P5 a lease lives as long as its car was told", (lease, until), holds=until <= self.now)
        grace = self.resumed_at + length
        self.check("P5 nothing expires before a full lease of service", (lease, grace), holds=grace <= self.now)
        self.promised.pop(lease, None)
        self._ended(self.owners.get(lease, -1), lease, ending(LeaseState.EXPIRED, "it was not renewed in time"))

    def locked(self, planner: object, lasts: timedelta) -> None:
        """One planner at a time has the lock."""
        self.check("P2 the planner's lock has one holder", planner, holds=self.planner.free_for(planner, self.now))
        self.planner = LockFacts(holder=planner, until=self.now + lasts)

    def wrote(self, planner: object, lasts: timedelta) -> None:
        """Who writes a round has the lock, or nobody has taken it since."""
        self.check("P2 a planner that lost its lock writes nothing", planner, holds=self.planner.holder is planner)
        self.planner = LockFacts(holder=planner, until=self.now + lasts)

    def refused_by_audit(self, shard: int, *, wrong: set[int], surely: bool) -> None:
        """A refusal voids what was durable; one that may not have counted takes only the promise away."""
        facts = self.shards[shard]
        if surely or facts.fence not in facts.judged:
            facts.durable = 0
            facts.voided.add(facts.fence)
        if surely:
            self._failed(shard, wrong)

    def recalled(self, order: OrderKey) -> None:
        """Nothing of it may be published from here on."""
        self.recalls.add(order)
        for facts in self.shards.values():
            facts.valid = facts.valid and facts.order != order

    def _failed(self, shard: int, by: set[int]) -> None:
        """Count an attempt that says something about the work."""
        facts = self.shards[shard]
        facts.refusals += 1
        facts.failed |= by
        if facts.refusals >= self.attempts_max[facts.order]:
            self.exhausted.add(shard)

    def judged(self, shard: int, fence: int) -> None:
        facts = self.shards[shard]
        self.check("P3 a verdict counts once", (shard, fence), holds=fence not in facts.judged)
        facts.judged.add(fence)

    def published(self, order: OrderKey, parts: Sequence[Mapping[str, object]], missing: set[int]) -> None:
        """Every row once, or named."""
        self.check("P2 nothing of a recalled order is published", order, holds=order not in self.recalls or not parts)
        of: dict[int, list[tuple[int, int]]] = {}
        for row in parts:
            span = (int(str(row["row_group_start"])), int(str(row["row_group_stop"])))
            of.setdefault(int(str(row["shard_id"])), []).append(span)
        for shard, facts in self.shards.items():
            if facts.order != order:
                continue
            spans = sorted(of.get(shard, []))
            if facts.valid:
                self.check("P2 what passed its audit is published", shard, holds=shard not in missing)
            once = not spans if shard in missing else tiled(spans, len(facts.row_group_rows))
            self.check("P2 each row is published once or its shard is named", (shard, spans), holds=once)
        self.closed_orders.add(order)

    def forget(self, order: OrderKey) -> None:
        """A night was dropped: nothing more is known of it, here as there."""
        self.shards = {shard: facts for shard, facts in self.shards.items() if facts.order != order}
        self.over = {key: said for key, said in self.over.items() if shard_of(key[1]) in self.shards}
        self.owners = {lease: car for lease, car in self.owners.items() if shard_of(lease) in self.shards}
        self.exhausted &= self.shards.keys()
        self.unsure = {key for key in self.unsure if shard_of(key[0]) in self.shards}
        self.promised = {lease: told for lease, told in self.promised.items() if shard_of(lease) in self.shards}

    def maybe(self, parts: list[Delivery]) -> None:  # the answer to these was lost: they may count, or not
        self.unsure.update(part_key(part) for part in parts)
