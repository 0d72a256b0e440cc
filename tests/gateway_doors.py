"""A real gateway on a free port for tests: real ledger, real folder, real HTTP; the clock is turned by hand."""

import asyncio
import hashlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import uvicorn
import uvloop
from gateway_words import assignments, poll, release, shard_bytes
from ledger_nights import EVENING, frozen_order, manifest, no, yes
from turned_clock import migrate_with_turned_clock

from fleetbatch import layout
from fleetbatch.car.identity import Identity, make_key, open_identity, public_pem, sign, token_assertion
from fleetbatch.gateway.app import application
from fleetbatch.gateway.bodies import Receive, Scope, Send
from fleetbatch.gateway.chores import chores
from fleetbatch.gateway.connection import connections
from fleetbatch.gateway.dials import Dials
from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.identity import ASSERTION_TYPE
from fleetbatch.ledger.dials import BY_KEY, LedgerDials
from fleetbatch.ledger.messages import Enrolment
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.nouns import Cell, FrozenOrder, OrderKey
from fleetbatch.protocol import ConfirmReply, Lease, PartReply, PartRequest, PollReply, part_claim
from fleetbatch.sealing import wrap_secret
from fleetbatch.store.local import LocalStore
from fleetbatch.store.opening import open_local
from fleetbatch.units import CarId, CellName, OwnerId, RoundId, ShardId

KEY = bytes(range(32))
SECRET = bytes(reversed(range(32)))
BUNDLE = b"a bundle " * 100
QUICK = Dials(
    poll_every=timedelta(seconds=1),
    telemetry_every=timedelta(hours=1),
    sweep_every=timedelta(hours=1),
    look_every=timedelta(seconds=1),
    listen_for=timedelta(milliseconds=50),
    behind_after=timedelta(hours=1),
    busy_most=float("inf"),
)
"""Chores happen when a test asks for them, except that rounds are noticed; a slow machine is no pressure."""


@dataclass(slots=True)
class Clock:
    now: datetime = EVENING


@dataclass(slots=True, kw_only=True)
class Door:
    """A running gateway and the trusted side behind it."""

    url: str
    gate: Gate
    ledger: PostgresLedger
    store: LocalStore
    clock: Clock
    http: httpx.Client
    loop: asyncio.AbstractEventLoop
    passed_on: list[str]
    """The paths of the calls that the application answered."""
    stop: threading.Event = field(default_factory=threading.Event)

    def pass_time(self, **span: float) -> None:
        """Let time pass for the ledger and the gateway while beats are answered; then sweep."""
        until = self.clock.now + timedelta(**span)
        while self.clock.now < until:
            self.clock.now = min(until, self.clock.now + timedelta(seconds=20))
            self.gate.ledger.turn_clock(self.clock.now)
            self.ledger.turn_clock(self.clock.now)
            self.gate.ledger.sweep()

    def car(self, number: int = 1, *, consent: bool = True) -> "TestedCar":
        """Enrol a car."""
        identity = open_identity(make_key())
        pem = public_pem(_pem(identity))
        car = Enrolment(car_id=identity.car_id, owner_id=OwnerId(number), public_key_pem=pem, region="eu")
        self.ledger.enrol([car])
        if consent:
            self.ledger.set_consent(yes(identity.car_id))
            self.ledger.set_consent(yes(identity.car_id, "telemetry"))
        return TestedCar(door=self, identity=identity, owner=OwnerId(number))

    def open(self, shards: dict[int, tuple[int, ...]], frozen: FrozenOrder | None = None) -> OrderKey:
        """Open an order whose shards and bundle lie in the store."""
        frozen = replace(frozen or frozen_order(), secret_wrapped=wrap_secret(SECRET, KEY))
        self.ledger.open_order(frozen)
        self.ledger.register_shards(frozen.key, manifest(shards))
        self.store.create(layout.bundle(frozen.model_sha256), BUNDLE)
        for shard, groups in shards.items():
            self.store.create(layout.shard(frozen.key, ShardId(shard)), shard_bytes(shard, len(groups)))
        return frozen.key

    def offer(self, *offers: tuple[int, int]) -> RoundId:
        """Write a round of (car, shard) and wait until the gateway holds it."""
        lock = self.ledger.lock_planner(CellName("eu-1"))
        assert lock is not None
        round_id = self.ledger.write_round(lock, assignments(offers), {})
        assert wait_until(lambda: self.gate.book.round_id == round_id), "the gateway did not notice the round"
        return round_id

    def run(self, work: Any) -> Any:
        """Run a coroutine in the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def owner_token(self, owner: OwnerId) -> str:
        return self.gate.owner_tokens.token(owner, expires_at=self.clock.now + timedelta(hours=1))

    def post(self, path: str, body: Any, token: str = "") -> httpx.Response:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return self.http.post(self.url + path, content=content, headers=headers)


@dataclass(slots=True, kw_only=True)
class TestedCar:
    """A car that says exactly what a test wants it to say."""

    __test__ = False

    door: Door
    identity: Identity
    owner: OwnerId
    token: str = ""

    @property
    def id(self) -> CarId:
        return self.identity.car_id

    def form(self, assertion: str | None = None) -> dict[str, str]:
        now = self.door.clock.now
        return {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion
            or token_assertion(self.identity, audience=f"{self.door.url}/v1/token", now=now),
        }

    def buy_token(self, assertion: str | None = None) -> httpx.Response:
        return self.door.http.post(f"{self.door.url}/v1/token", data=self.form(assertion))

    def say(self, path: str, body: Any) -> httpx.Response:
        if not self.token:
            answer = self.buy_token()
            assert answer.status_code == httpx.codes.OK, answer.text
            self.token = answer.json()["access_token"]
        return self.door.post(path, body, self.token)

    def poll(self, **changes: Any) -> PollReply:
        answer = self.say("/v1/poll", poll(**changes))
        assert answer.status_code == httpx.codes.OK, answer.text
        return msgspec.json.decode(answer.content, type=PollReply)

    def take(self) -> Lease:
        lease = self.poll().lease
        assert lease is not None
        return lease

    def part(self, lease: Lease, start: int, stop: int, *, rows: int, content: bytes = b"answers") -> PartRequest:
        unsigned = PartRequest(
            lease_id=lease.lease_id,
            fence=lease.fence,
            shard_id=lease.shard_id,
            start=start,
            stop=stop,
            rows=rows,
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            energy_wh=1.0,
            energy_source="estimated",
            busy_s=2.0,
            signature="",
        )
        return msgspec.structs.replace(unsigned, signature=sign(self.identity, part_claim(unsigned)))

    def upload(self, part: PartRequest, content: bytes = b"answers") -> httpx.Response:
        place = msgspec.json.decode(self.say("/v1/part", part).content, type=PartReply)
        return self.door.http.put(place.url, content=content, headers=place.headers)

    def deliver(self, part: PartRequest, content: bytes = b"answers") -> ConfirmReply:
        assert self.upload(part, content).status_code == httpx.codes.OK
        answer = self.say("/v1/part/confirm", part)
        assert answer.status_code == httpx.codes.OK, answer.text
        return msgspec.json.decode(answer.content, type=ConfirmReply)

    def release(self, lease: Lease, reason: str = "unplugged") -> httpx.Response:
        return self.say("/v1/release", release(lease, reason))

    def withdraw(self) -> None:
        self.door.ledger.set_consent(no(self.id))


def wait_until(true: Any, *, within_s: float = 5.0) -> bool:
    """Wait for something that happens by itself; tests must not hang."""
    over = threading.Event()
    for _ in range(int(within_s / 0.02)):
        if true():
            return True
        over.wait(0.02)
    return bool(true())


@contextmanager
def open_door(database_url: str, folder: Path, *, dials: Dials = QUICK, plain: bool = False) -> Iterator[Door]:
    """Run a gateway, with the rights that a gateway has and no others; `plain` leaves every call to the application."""
    migrate_with_turned_clock(database_url)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    role_url = database_url.replace("//postgres:@", "//fleetbatch_gateway:@")
    cell = Cell(
        name=CellName("eu-1"), region="eu", ledger_url=database_url, gateway_ledger_url=role_url, gateway_url=url
    )
    store = open_local(folder / "store", deployment_key=KEY, base_url=url)
    clock = Clock()
    quick = LedgerDials(connections=4, retries=2, session=BY_KEY)
    with (
        PostgresLedger.open(database_url) as ledger,
        PostgresLedger.open(role_url, dials=quick) as its_ledger,
        ThreadPoolExecutor(8) as executor,
    ):
        http = httpx.Client(trust_env=False, timeout=10)
        for one in (ledger, its_ledger):
            one.turn_clock(clock.now)
        its_ledger.sweep()
        gate = Gate(
            cell=cell,
            deployment_key=KEY,
            store=store,
            ledger=its_ledger,
            executor=executor,
            clock=lambda: clock.now,
            dials=dials,
        )
        with _served(gate, listening, plain=plain) as (loop, passed_on):
            door = Door(
                url=url, gate=gate, ledger=ledger, store=store, clock=clock, http=http, loop=loop, passed_on=passed_on
            )
            with http:  # its connections would keep the gateway from ending
                yield door


@contextmanager
def _served(
    gate: Gate, listening: socket.socket, *, plain: bool
) -> Iterator[tuple[asyncio.AbstractEventLoop, list[str]]]:
    """Serve in a thread; give its loop, and the paths that the application will have been asked for."""
    http_kind: Any = "httptools" if plain else connections(gate)
    app, passed_on = application(gate), list[str]()

    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        passed_on.append(scope["path"])
        await app(scope, receive, send)

    config = uvicorn.Config(
        noted, lifespan="off", log_config=None, access_log=False, ws="none", http=http_kind, timeout_keep_alive=2
    )
    server = uvicorn.Server(config)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=_live, args=(loop, gate, server, listening))
    thread.start()
    try:
        assert wait_until(lambda: server.started)
        yield loop, passed_on
    finally:  # or a test that fails leaves a process that never ends
        server.should_exit = True
        thread.join(10)
    assert not thread.is_alive()


def _live(loop: asyncio.AbstractEventLoop, gate: Gate, server: uvicorn.Server, listening: socket.socket) -> None:
    async def live() -> None:
        async with chores(gate, name="test"):
            await server.serve(sockets=[listening])

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(live())


def _pem(identity: Identity) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return identity.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
