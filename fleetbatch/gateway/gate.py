"""What one gateway process holds in memory: nothing that may not be lost with it."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import ParamSpec, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from fleetbatch import layout
from fleetbatch.errors import TransientError
from fleetbatch.gateway.arrivals import Announced, Arrived, Counted, Found, Lacking, counted, looked_up
from fleetbatch.gateway.batching import Batcher
from fleetbatch.gateway.dials import Dials
from fleetbatch.gateway.hearing import Telemetry
from fleetbatch.gateway.identity import Assertion, TokenKey, es256_key, token_key
from fleetbatch.gateway.metrics import Metrics
from fleetbatch.gateway.pacing import Allowance, Failures, Refusals, beat_every_s, gather_s, pressure_holding, wait_s
from fleetbatch.gateway.rounds import OfferBook
from fleetbatch.gateway.turns import Turns
from fleetbatch.gateway.uploads import Unconfirmed
from fleetbatch.ledger.glance import CellGlance
from fleetbatch.ledger.messages import (
    Beat,
    BeatAnswer,
    CarKey,
    Granted,
    GrantRequest,
    LeaseRow,
    Refused,
    Release,
    Released,
    Terminal,
)
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.nouns import Cell, Order, OrderKey
from fleetbatch.protocol import PollRequest
from fleetbatch.sealing import unwrap_secret
from fleetbatch.store import Store
from fleetbatch.units import CarId, LeaseId, OwnerId, Sha256, ShardId

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCar:
    """A car as the ledger knew it when last asked."""

    car_id: CarId
    owner_id: OwnerId
    key: ec.EllipticCurvePublicKey
    telemetry: bool
    """Its owner lets vehicle signals be kept."""
    tokens_void_at: datetime | None
    """Tokens that were bought before this instant are void, by the database's clock."""
    known_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownOrder:
    """What of an order goes into its leases; it never changes."""

    order: Order
    secret: bytes
    model_sha256: Sha256
    model_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A lease that this gateway granted; only a shortcut, the ledger knows it too."""

    car_id: CarId
    order_key: OrderKey
    shard_id: ShardId
    request: PollRequest
    """The poll that got the lease, without its signals."""


@dataclass(slots=True, kw_only=True)
class Gate:
    """One gateway of one cell."""

    cell: Cell
    deployment_key: bytes
    store: Store
    ledger: PostgresLedger
    executor: Executor
    clock: Callable[[], datetime]
    dials: Dials = field(default_factory=Dials)
    chance: Callable[[], float] = field(default_factory=lambda: random.Random().random)  # noqa: S311 # jitter is no secret

    pressure: float = field(init=False, default=1.0)
    busy: float = field(init=False, default=0.0)
    """Share of a core that the process used of late."""
    ledger_answers: bool = field(init=False, default=True)
    metrics: Metrics = field(init=False, default_factory=Metrics)
    book: OfferBook = field(init=False, default_factory=OfferBook)
    held: dict[LeaseId, Held] = field(init=False, default_factory=dict)
    heard_at: dict[LeaseId, datetime] = field(init=False, default_factory=dict)
    """When the cars of held leases last spoke here."""
    lease_of: dict[CarId, LeaseId] = field(init=False, default_factory=dict)
    polling: set[CarId] = field(init=False, default_factory=set)
    hardware: set[bytes] = field(init=False, default_factory=set)
    """Texts of hardware that were found valid."""
    cars: dict[CarId, KnownCar] = field(init=False, default_factory=dict)
    orders: dict[OrderKey, KnownOrder] = field(init=False, default_factory=dict)
    model_urls: dict[Sha256, tuple[datetime, str]] = field(init=False, default_factory=dict)
    """When a model's URL was signed, and the URL; the leases of a minute share it."""
    away_said_at: dict[str, datetime] = field(init=False, default_factory=dict)
    """By path, when the log was last told that ledger or store do not answer."""
    turns: Turns[str] = field(init=False, default_factory=Turns)
    """About each lease's objects one call at a time."""
    glances: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    statements: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    """One statement is read at a time: many years of archives would keep every thread from the cars."""
    car_tokens: TokenKey = field(init=False)
    owner_tokens: TokenKey = field(init=False)
    telemetry: Telemetry = field(init=False)
    allowance: Allowance[CarId] = field(init=False)
    token_allowance: Allowance[CarId] = field(init=False)
    owner_allowance: Allowance[OwnerId] = field(init=False)
    refusals: Refusals = field(init=False)
    failures: Failures = field(init=False)
    unconfirmed: Unconfirmed = field(init=False)
    void_until: dict[int, float] = field(init=False, default_factory=dict)
    """Cars whose older tokens are void: no token counts that expires by then (seconds since 1970)."""
    cell_glance: tuple[datetime, CellGlance | None] | None = field(init=False, default=None)
    grants: Batcher[GrantRequest, Granted | Refused] = field(init=False)
    beats: Batcher[Beat, BeatAnswer] = field(init=False)
    announcements: Batcher[Announced, tuple[LeaseRow | None, Found]] = field(init=False)
    arrivals: Batcher[Arrived, Lacking | Counted] = field(init=False)
    releases: Batcher[Release, Released | Terminal] = field(init=False)
    leases: Batcher[LeaseId, LeaseRow | None] = field(init=False)
    keys: Batcher[CarId, CarKey | None] = field(init=False)
    first_uses: Batcher[Assertion, bool] = field(init=False)

    def __post_init__(self) -> None:
        """Make what follows from the rest."""
        self.car_tokens = token_key(self.deployment_key, self.cell.name, "car")
        self.owner_tokens = token_key(self.deployment_key, self.cell.name, "owner")
        self.telemetry = Telemetry(self.dials.telemetry_bytes)
        self.allowance = Allowance(self.dials.requests_per_window, now=self.clock())
        self.token_allowance = Allowance(self.dials.tokens_per_window, now=self.clock())
        self.owner_allowance = Allowance(self.dials.owner_requests_per_window, now=self.clock())
        self.refusals = Refusals(self.dials, now=self.clock())
        self.failures = Failures(self.dials, now=self.clock())
        self.unconfirmed = Unconfirmed(self.dials, now=self.clock())
        batcher = partial(
            Batcher,
            executor=self.executor,
            gather_s=lambda: gather_s(self.dials, busy=self.busy),
            batch_max=self.dials.batch_max,
        )
        took = self.metrics.batch
        self.grants = batcher(self.ledger.grant, lambda question: question.car_id, took=took("grants"))
        beats = partial(batcher, gather_s=self.dials.gather_beats_for.total_seconds, took=took("beats"))
        self.beats = beats(self.ledger.beat, lambda question: question.lease_id)
        about_parts = self.ledger, self.store, self.dials.part_bytes
        announced, arrived = partial(looked_up, *about_parts), partial(counted, *about_parts)
        self.announcements = batcher(announced, lambda question: question.part.lease_id, took=took("announcements"))
        self.arrivals = batcher(arrived, lambda question: question.delivery.lease_id, took=took("parts"))
        self.releases = batcher(self.ledger.release, lambda question: question.lease_id, took=took("releases"))
        self.leases = batcher(self.ledger.leases, lambda lease: lease, took=took("leases"))
        self.keys = batcher(self.ledger.car_keys, lambda car: car, took=took("keys"))
        self.first_uses = batcher(
            self._first_uses, lambda assertion: (assertion.car_id, assertion.jti), took=took("assertions")
        )

    def wait_s(self, *, holding: bool = False) -> float:
        """Return when the next car comes back, in seconds; one that may hold a lease comes before it runs out."""
        pressure = min(self.pressure, pressure_holding(self.dials)) if holding else self.pressure
        return wait_s(self.dials, pressure=pressure, chance=self.chance())

    def beat_every_s(self) -> float:
        """Return the seconds until a lease's next beat."""
        return beat_every_s(self.dials, pressure=self.pressure)

    async def off_loop(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what blocks on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, partial(call, *args, **kwargs))

    async def car(self, car: CarId, *, afresh: bool = False) -> KnownCar | None:
        """Return a car that may speak, as the ledger knew it a minute ago at most; None when unknown or revoked."""
        known, now = self.cars.get(car), self.clock()
        if known is not None and now - known.known_at < self.dials.key_for and not afresh:
            return known
        row = await self.keys.ask(car)
        if row is not None:
            return self.know(row)
        self.cars.pop(car, None)
        return None

    def know(self, row: CarKey) -> KnownCar | None:
        """Return a car as the ledger has just told of it, and remember it; None when it may not speak any more."""
        key = None if row.revoked else es256_key(row.public_key_pem)
        if key is None:
            self.cars.pop(row.car_id, None)
            return None
        if len(self.cars) >= self.dials.cars_known_max:
            self.cars.clear()
        known = self.cars[row.car_id] = KnownCar(
            car_id=row.car_id,
            owner_id=row.owner_id,
            key=key,
            telemetry=row.telemetry,
            tokens_void_at=row.tokens_void_at,
            known_at=self.clock(),
        )
        return known

    def void_tokens(self, voided: Mapping[CarId, datetime]) -> dict[int, float]:
        """Return until when tokens that were bought before these instants would have lived."""
        return {car: self.tokens_end(at).timestamp() for car, at in voided.items()}

    def tokens_end(self, at: datetime) -> datetime:
        """Return when the last token that was bought before an instant of the database ends, by any gateway's clock."""
        return at + self.dials.token_for + self.dials.clock_skew

    async def glance(self) -> CellGlance | None:
        """Return what the whole cell was doing some seconds ago at most; None when the ledger does not answer."""
        async with self.glances:
            now = self.clock()
            if self.cell_glance is not None and now - self.cell_glance[0] < self.dials.glance_for:
                return self.cell_glance[1]
            seen = None
            with contextlib.suppress(TransientError):
                seen = await self.off_loop(self.ledger.glance)
            self.cell_glance = now, seen
            return seen

    async def order(self, key: OrderKey) -> KnownOrder:
        """Return what an order's leases need; raise TransientError when ledger or store cannot say now."""
        known = self.orders.get(key)
        if known is None:
            known = self.orders[key] = await self.off_loop(self._read_order, key)
        return known

    def model_url(self, model: Sha256, *, now: datetime) -> str:
        """Return a URL that reads a model; it lives for a lease, and long after."""
        known = self.model_urls.get(model)
        if known is None or not known[0] <= now < known[0] + self.dials.model_url_for:
            url = self.store.sign_get(layout.bundle(model), now=now, expires=self.dials.url_for)
            known = self.model_urls[model] = now, url
        return known[1]

    def hold(self, granted: Granted, request: PollRequest) -> None:
        """Remember a lease that was just granted."""
        self.held[granted.lease_id] = Held(
            car_id=granted.car_id, order_key=granted.order_key, shard_id=granted.shard_id, request=request
        )
        self.heard_at[granted.lease_id] = self.clock()
        self.lease_of[granted.car_id] = granted.lease_id
        self.book.took(granted.shard_id)

    def shard_of(self, car: CarId) -> ShardId | None:
        """Return the shard of the lease that this gateway granted the car and has not seen end."""
        held = self.held.get(self.lease_of[car]) if car in self.lease_of else None
        return None if held is None else held.shard_id

    def let_go(self, lease: LeaseId, *, told: CarId | None = None) -> Held | None:
        """Forget a lease that ended; when a car was told so, only if it is that car's: others are told of any lease."""
        held = self.held.get(lease)
        if held is None or told not in {None, held.car_id}:
            return None
        del self.held[lease]
        self.heard_at.pop(lease, None)
        if self.lease_of.get(held.car_id) == lease:
            del self.lease_of[held.car_id]
        return held

    def _first_uses(self, assertions: Sequence[Assertion]) -> list[bool]:
        """Say of each assertion whether it is used for the first time, at whatever gateway of the cell."""
        margin = 2 * self.dials.clock_skew  # the ledger forgets by its own clock
        return self.ledger.use_assertions([(one.car_id, one.jti, one.until + margin) for one in assertions])

    def _read_order(self, key: OrderKey) -> KnownOrder:
        row = self.ledger.order(key)
        if row is None:
            message = f"the ledger has a lease of order {key} and not the order"
            raise TransientError(message)
        model = row.frozen.model_sha256
        size = self.store.size(layout.bundle(model)) if model else 0
        if size is None:
            message = f"the bundle {model} of order {key} is not in the store"
            raise TransientError(message)
        secret = unwrap_secret(row.frozen.secret_wrapped, self.deployment_key)
        return KnownOrder(order=row.frozen.order, secret=secret, model_sha256=model, model_bytes=size)
