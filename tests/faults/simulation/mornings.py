"""Orders through their nights: opened, paused and cancelled by people, given up at the deadline, published, dropped."""

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
from faults.simulation.dials import Dials
from faults.simulation.facts import ShardFacts
from faults.simulation.faulty import CrashedError, Fault, FaultyLedger
from faults.simulation.gateways import failing
from faults.simulation.sound import ARCHIVED
from faults.simulation.store import RIGHT, SimulatedStore, digest
from faults.simulation.witness import Witness
from ledger_nights import EVENING, frozen_order, manifest

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.ledger.ids import lease_id
from fleetbatch.ledger.messages import OrderState
from fleetbatch.ledger.past import NIGHT_TABLES, NightRows
from fleetbatch.merge import parts_token
from fleetbatch.nouns import OrderKey
from fleetbatch.steps.closing import close_order

_FIRST_NIGHT = date(2026, 11, 22)
_CLASSES = ("open", "open", "confidential")


@dataclass(slots=True, kw_only=True)
class OpenNight:
    """One order, as the people who run it see it."""

    key: OrderKey
    deadline_at: datetime
    state: OrderState = OrderState.OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedNight:
    """What a merge has seen of an order, and what would be published of it."""

    token: str
    parts: list[dict[str, Any]]
    missing: set[int]


class Mornings:
    """The night's tasks, which may crash between any two steps and are then run again."""

    def __init__(
        self,
        ledger: FaultyLedger,
        witness: Witness,
        store: SimulatedStore,
        chance: random.Random,
        dials: Dials,
        *,
        folder: Path,
    ) -> None:
        self.ledger = ledger
        self.witness = witness
        self.store = store
        self.chance = chance
        self.dials = dials
        self.folder = folder
        self.nights: list[OpenNight] = []
        self.published: list[tuple[datetime, OrderKey]] = []
        self.count = 0
        self.rows = self.missing_rows = 0

    def open_next(self, now: datetime) -> None:
        """Open one more order, on a night of its own."""
        self.count += 1
        kind, attempts = self.chance.choice(_CLASSES), self.chance.choice((1, 2, 3))
        short = self.chance.random() < self.dials.short
        night = (_FIRST_NIGHT + timedelta(days=self.count)).isoformat()
        usual = frozen_order(night, data_class=kind, attempts=attempts)
        deadline = now + (self.dials.short_deadline if short else self.dials.long_deadline)
        frozen = replace(usual, frozen_at=EVENING, deadline_at=deadline)
        shards = {(self.count << 20) + n: self._rows() for n in range(self.dials.shards)}
        facts, witness = self.witness.shards, self.witness
        witness.classes[frozen.key], witness.deadlines[frozen.key] = kind, deadline
        witness.attempts_max[frozen.key], witness.may_grant[frozen.key] = attempts, True
        facts.update({s: ShardFacts(order=frozen.key, row_group_rows=rows) for s, rows in shards.items()})
        self.nights.append(OpenNight(key=frozen.key, deadline_at=deadline))
        table = manifest(shards)
        self._until_heard(lambda: self.ledger.open_order(frozen))
        self._until_heard(lambda: self.ledger.register_shards(frozen.key, table))

    def operate(self) -> None:
        """Pause, resume, cancel or recall an order."""
        night, ledger = self.chance.choice(self.nights), self.ledger
        dice = self.chance.random()
        if night.state is OrderState.PAUSED:
            self._turn(night, OrderState.OPEN, ledger.resume)
        elif night.state is OrderState.OPEN and dice < 0.6:
            self._turn(night, OrderState.PAUSED, ledger.pause)
        elif dice < 0.85:
            self._turn(night, OrderState.CANCELLED, lambda key: ledger.cancel(key, "not wanted"))
        else:
            self._recall(night)
        if night.state is OrderState.CANCELLED and dice > 0.75:
            refused = self._is_refused(lambda: ledger.resume(night.key))
            self.witness.check("P2 a cancelled order stays cancelled", night, holds=refused)

    def resume(self) -> None:
        """Open what is paused."""
        for night in self.nights:
            if night.state is OrderState.PAUSED:
                self._turn(night, OrderState.OPEN, self.ledger.resume)

    def _recall(self, night: OpenNight) -> None:
        self.witness.recalled(night.key)
        self._turn(night, OrderState.CANCELLED, lambda key: self.ledger.recall(key, "wrong"))

    def _begin_to_recall(self, night: OpenNight) -> None:
        """Recall an order, and be gone when the first word of it is written."""
        self.witness.recalled(night.key)
        self.ledger.faults.arm(Fault.COMMITTED, after=self.chance.choice((1, 2, 3)))
        with suppress(CrashedError):
            self.ledger.recall(night.key, "wrong")
        self.ledger.faults.disarm()
        night.state = OrderState.CANCELLED

    def _is_refused(self, call: Callable[[], object]) -> bool:
        try:
            self._until_heard(call)
        except RejectedError:
            return True
        return False

    def _turn(self, night: OpenNight, state: OrderState, turn: Callable[[OrderKey], object]) -> None:
        night.state = state
        self.witness.may_grant[night.key] = None  # while the call is under way
        self._until_heard(lambda: turn(night.key))
        self.witness.may_grant[night.key] = state is OrderState.OPEN

    def look(self, now: datetime) -> None:
        """Publish what is finished, give up what is due, drop what is old."""
        for night in list(self.nights):
            counts = self.ledger.counts(night.key)
            self.witness.check("P2 no shard disappears", (night, counts), holds=counts.total == self.dials.shards)
            if night.state is OrderState.CANCELLED:
                waits = counts.ready + counts.out
                self.witness.check("P2 nothing of a cancelled order waits for cars", (night, counts), holds=not waits)
            if counts.finished or now >= night.deadline_at + self.dials.late:
                self._close(night, now)
        while self.published and self.published[0][0] <= now - self.dials.keep_nights:
            self._drop(self.published.pop(0)[1])

    def _close(self, night: OpenNight, now: datetime) -> None:
        """Give up what is left, check what would be published, and publish; whoever crashes begins again."""
        self.nights.remove(night)
        self.witness.may_grant[night.key] = False
        merged = self._merge(night.key)
        self._operate_on_what_is_merged(night)
        if self._is_refused(lambda: close_order((self.ledger,), night.key, merged.token)):
            merged = self._merge(night.key)
            refused = self._is_refused(lambda: close_order((self.ledger,), night.key, merged.token))
            self.witness.check("P6 what is merged again can be published", night, holds=not refused)
        if self.chance.random() < 0.2:
            refused = self._is_refused(lambda: self.ledger.recall(night.key, "too late"))
            self.witness.check("P2 what is being published is not recalled", night, holds=refused)
        self.witness.published(night.key, merged.parts, merged.missing)
        for row in merged.parts:
            self._published_part(row)
        self._until_heard(lambda: self.ledger.mark_published(night.key))
        counts = self.ledger.counts(night.key)
        whole = counts.done + counts.missing == self.dials.shards and counts.missing == len(merged.missing)
        self.witness.check("P2 a closed night is done or missing, shard by shard", counts, holds=whole)
        self.published.append((now, night.key))

    def _merge(self, key: OrderKey) -> MergedNight:
        self._until_heard(lambda: self.ledger.give_up(key, "the deadline is here"))
        parts, missing = self.ledger.valid_parts(key), self.ledger.missing_shards(key)
        return MergedNight(
            token=parts_token(key, parts, missing),
            parts=parts.to_pylist(),
            missing=set(missing["shard_id"].to_numpy().tolist()),
        )

    def _operate_on_what_is_merged(self, night: OpenNight) -> None:
        """What was merged is being checked, and now and then somebody looks at it and wants it back."""
        dice, ledger = self.chance.random(), self.ledger
        if dice < 0.1:
            self._recall(night)
        elif dice < 0.2:
            self._begin_to_recall(night)
        elif dice < 0.25:
            self._turn(night, OrderState.CANCELLED, lambda key: ledger.cancel(key, "not wanted"))
        elif dice < 0.3 and night.state is OrderState.OPEN:
            self._turn(night, OrderState.PAUSED, ledger.pause)

    def _published_part(self, row: dict[str, Any]) -> None:
        """Its bytes are what was claimed, right, and, if a car made them, audited."""
        data = self.store.objects.get(row["key"])
        self.witness.check("P1 what is published lies in the store", row, holds=data is not None)
        self.witness.check(
            "P2 nothing wrong is published",
            (row, data),
            holds=data is not None and data.startswith(RIGHT) and digest(data) == row["sha256"],
        )
        audited = row["audit_state"] == ("credited" if row["car_id"] else "none") or not row["car_id"]
        self.witness.check("P3 what a car made is published after its audit", row, holds=audited)
        facts = self.witness.shards[row["shard_id"]]
        span = facts.row_group_rows[row["row_group_start"] : row["row_group_stop"]]
        self.witness.check("P2 a published part has all its rows", row, holds=row["rows"] == sum(span))
        self.rows += row["rows"]

    def _drop(self, key: OrderKey) -> None:
        """Archive a night and drop it, as maintenance does; from then on its archive is all that is known of it."""
        night = date.fromisoformat(key.night)
        self._until_heard(lambda: self._archive(night))
        self._hold_against(key, pq.read_table(self.folder / "parts.parquet").to_pylist())
        earned: dict[int, Counter[str]] = {}
        for row in pq.read_table(self.folder / "leases.parquet").to_pylist():
            car = earned.setdefault(row["car_id"], Counter({"rows": 0, "wrong": 0, "strikes": 0}))
            car.update(rows=row["audited_rows"], wrong=row["disagreements"], strikes=row["credit"] == "refused")
        with psycopg.connect(self.ledger.faults.url, autocommit=True) as owner, owner.cursor() as cursor:
            cursor.executemany(ARCHIVED.encode(), [{"car_id": car, **sums} for car, sums in earned.items()])
        self.witness.forget(key)
        self.store.forget(f"nights/{key.night}/")

    def _hold_against(self, key: OrderKey, archived: list[dict[str, Any]]) -> None:
        """Every part that was acknowledged lies in the archive, as it was."""
        held = {
            (lease_id(row["night"], row["shard_id"], row["fence"]), row["start"], row["stop"], row["sha256"].hex())
            for row in archived
        }
        for shard, facts in self.witness.shards.items():
            if facts.order == key:
                lost = facts.parts.keys() - held
                self.witness.check("P1 what was acknowledged is archived", (shard, lost), holds=not lost)

    def _archive(self, night: date) -> None:
        if night not in self.ledger.closed_nights(self.witness.now):
            return  # it was dropped, and nobody heard
        rows = {name: self.ledger.archive_night(night, name, self.folder / f"{name}.parquet") for name in NIGHT_TABLES}
        dropped = self.ledger.drop_night(night, NightRows(**rows))
        self.witness.check("P1 a night that is over is dropped once it is archived", night, holds=dropped)

    def _rows(self) -> tuple[int, ...]:
        return tuple(self.chance.randint(1, 3) for _ in range(self.chance.randint(1, 5)))

    def _until_heard(self, call: Callable[[], object]) -> None:
        """A task that crashed is started again by whoever watches it."""
        for _ in range(20):
            try:
                failing(self.ledger, self.chance, self.dials, call)
            except (CrashedError, TransientError):
                continue
            return
        self.witness.broken("P6 a night's task that is run again succeeds", call)
