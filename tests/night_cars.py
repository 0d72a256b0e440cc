"""Cars under a clock turned by hand: the real agent, client and workload; only processes and sockets are missing."""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import msgspec
import pyarrow as pa

from fleetbatch.car import nouns as n
from fleetbatch.car.agent import parked, step
from fleetbatch.car.conditions import Limits, Reading, decide
from fleetbatch.car.identity import Identity
from fleetbatch.car.moment import Dials
from fleetbatch.errors import RejectedError
from fleetbatch.local.charging import Charging, vehicle_signals
from fleetbatch.protocol import BeatRequest, Hardware, Lease, PollRequest, ReleaseRequest
from fleetbatch.ranges import Fetch
from fleetbatch.runner.client import GatewayClient, Terminal
from fleetbatch.runner.delivery import GroupAnswers, deliver, make_part
from fleetbatch.runner.energy import Drawn
from fleetbatch.runner.remote import RemoteShard
from fleetbatch.runner.unreachable import UnreachableError
from fleetbatch.workloads import Answer, Device, answer_rows, usable_workloads, workload

App = Callable[[Any, Any, Any], Any]
Spoil = Callable[[pa.Table], pa.Table]


class NetworkAwayError(httpx.ConnectError):
    """Nothing arrives."""

    def __init__(self) -> None:
        super().__init__("the network is away")


class AnswerLostError(httpx.ReadTimeout):
    """Everything arrived, and no answer came back."""

    def __init__(self) -> None:
        super().__init__("the answer was lost")


class InProcess(httpx.BaseTransport):
    """One car's way to the ASGI application that answers now, without a socket."""

    def __init__(self, app: Callable[[], App], loop: asyncio.AbstractEventLoop) -> None:
        self.app, self.loop = app, loop
        self.cut = False
        self.answers_lost = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.cut:
            raise NetworkAwayError
        sent: list[Any] = []
        self.loop.run_until_complete(self._call(request, sent))
        if self.answers_lost and request.method == "POST":
            raise AnswerLostError
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=body)

    async def _call(self, request: httpx.Request, sent: list[Any]) -> None:
        url, body = request.url, request.read()
        scope = {
            "type": "http",
            "method": request.method,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app()(scope, receive, send)


@dataclass(slots=True, kw_only=True)
class Work:
    """A lease being computed: which row group, and when it will be done."""

    lease: Lease
    shard: RemoteShard
    row_group: int
    done_at: datetime


@dataclass(slots=True, kw_only=True)
class NightCar:
    """A car at its plug."""

    identity: Identity
    wire: InProcess
    http: httpx.Client
    client: GatewayClient
    stay: Charging
    agent: n.Agent
    now: datetime
    per_row_group: timedelta = timedelta(minutes=1)
    spoil: Spoil | None = None
    """What a bad car does to its answers."""
    killed: bool = False
    work: Work | None = None
    opened: dict[str, Answer] = field(default_factory=dict)
    """By order."""
    groups: dict[int, GroupAnswers] = field(default_factory=dict)

    def tick(self, now: datetime) -> None:
        """Look at the signals and at the worker."""
        self.now = now
        if self.killed:
            return
        if self.work is not None and now >= self.work.done_at:
            self._compute(self.work)
        latch = decide(self.agent.latch, self._reading(), Limits(), now=now)
        self.hear(n.Looked(latch=latch))

    def hear(self, event: n.Event) -> None:
        """Let the agent step, and do what it says."""
        self.agent, actions = step(self.agent, event, Dials(), now=self.now)
        for action in actions:
            answer = self._do(action)
            if answer is not None:
                self.hear(answer)

    def unplug(self) -> None:
        self.stay = replace(self.stay, unplugged_at=self.now)
        self.tick(self.now)

    def kill(self) -> None:
        self.killed = True

    @property
    def lease(self) -> Lease | None:
        return self.agent.phase.held.lease if isinstance(self.agent.phase, n.Holding | n.Leaving) else None

    def _reading(self) -> Reading:
        return Reading(signals=vehicle_signals(self.stay, self.now))

    def _do(self, action: n.Action) -> n.Event | None:
        match action:
            case n.StartWork():
                return self._start(action)
            case n.KillWork():
                self.work = None
            case n.Forget():
                self.groups.clear()
            case n.Exit():
                self.killed = True
            case _:
                return self._call(action)
        return None

    def _call(self, action: n.Action) -> n.Event | None:
        match action:
            case n.Poll():
                return self._try("poll", self._poll)
            case n.Beat():
                return self._try("beat", lambda: self._beat(action))
            case n.DeliverPart():
                return self._try("part", lambda: self._deliver(action))
            case n.Release():
                return self._try("release", lambda: self._release(action))
        return None

    def _start(self, action: n.StartWork) -> n.Event | None:
        lease = action.lease
        key = base64.urlsafe_b64decode(lease.shard_key + "==")
        try:
            shard = RemoteShard(http_fetch(self.http, lease.shard_url), lease.shard_bytes, key)
        except UnreachableError as error:
            return n.WorkFailed(lease_id=lease.lease_id, kind="unreached", detail=str(error))
        due = self.now + self.per_row_group
        self.work = Work(lease=lease, shard=shard, row_group=action.start, done_at=due)
        return None

    def _compute(self, work: Work) -> None:
        try:
            rows = work.shard.read(work.row_group)
        except UnreachableError as error:
            self.work = None
            self.hear(n.WorkFailed(lease_id=work.lease.lease_id, kind="unreached", detail=str(error)))
            return
        done = work.row_group
        answers = answer_rows(workload(work.lease.workload), self._answer(work.lease), rows, row_group=done)
        busy_s = self.per_row_group.total_seconds()
        drawn = Drawn(wh=HARDWARE.power_w * busy_s / 3600, busy_s=busy_s, source="estimated")
        self.groups[done] = GroupAnswers(table=self.spoil(answers) if self.spoil else answers, drawn=drawn)
        last = done + 1 >= work.lease.row_groups
        self.work = None if last else replace(work, row_group=done + 1, done_at=self.now + self.per_row_group)
        self.hear(n.RowGroupDone(lease_id=work.lease.lease_id, row_group=done, busy_s=busy_s))

    def _answer(self, lease: Lease) -> Answer:
        """Open the order's workload once, as a worker does."""
        if lease.order_key not in self.opened:
            model = self.http.get(lease.model_url).raise_for_status().content if lease.model_sha256 else None
            device = Device(provider="CPUExecutionProvider")
            self.opened[lease.order_key] = workload(lease.workload).open(model, device, lease.options)
        return self.opened[lease.order_key]

    def _try(self, call: n.Call, work: Callable[[], n.Event]) -> n.Event:
        lease_id = self.lease.lease_id if self.lease else ""
        try:
            return work()
        except UnreachableError as error:
            return n.Unreached(call=call, lease_id=lease_id, retry_after=error.retry_after, chance=0.5)
        except RejectedError as error:
            if call != "part":
                raise
            return n.PartRefused(lease_id=lease_id, detail=str(error))

    def _poll(self) -> n.Event:
        latch = self.agent.latch
        why = f"{latch.why_not.reason}: {latch.why_not.detail}" if latch.why_not else ""
        request = PollRequest(
            signals=dict(self._reading().signals),
            hardware=msgspec.structs.replace(HARDWARE, workloads=list(usable_workloads())),
            willing=latch.willing,
            unwilling_reason=why,
        )
        reply = self.client.poll(request)
        return n.PollAnswered(lease=reply.lease, retry_after=timedelta(seconds=reply.retry_after_s), chance=0.5)

    def _beat(self, action: n.Beat) -> n.Event:
        lease = action.lease
        request = BeatRequest(
            lease_id=lease.lease_id,
            fence=lease.fence,
            row_groups_done=action.done,
            energy_wh=1.0,
            busy_s=action.busy_s,
            signals=dict(self._reading().signals),
        )
        reply = self.client.beat(request)
        if isinstance(reply, Terminal):
            return n.Ended(lease_id=lease.lease_id, reason=reply.reason)
        expires_in = timedelta(seconds=reply.expires_in_s)
        pace = timedelta(seconds=reply.beat_every_s)
        return n.BeatAnswered(lease_id=lease.lease_id, go_on=reply.go_on, expires_in=expires_in, beat_every=pace)

    def _deliver(self, action: n.DeliverPart) -> n.Event:
        part = make_part(action.lease, action.start, action.stop, self.groups)
        reply = deliver(self.client, self.identity, part)
        lease_id = action.lease.lease_id
        if isinstance(reply, Terminal):
            return n.Ended(lease_id=lease_id, reason=reply.reason)
        return n.PartDelivered(lease_id=lease_id, done_through=reply.done_through, complete=reply.complete)

    def _release(self, action: n.Release) -> n.Event:
        lease = action.lease
        request = ReleaseRequest(
            lease_id=lease.lease_id,
            fence=lease.fence,
            reason=action.reason,
            detail=action.detail,
            energy_wh=1.0,
            busy_s=action.busy_s,
        )
        reply = self.client.release(request)
        if isinstance(reply, Terminal):
            return n.Ended(lease_id=lease.lease_id, reason=reply.reason)
        return n.Released(lease_id=lease.lease_id)


HARDWARE = Hardware(
    hardware_class="compact",
    provider="CPUExecutionProvider",
    threads=1,
    memory_bytes=1 << 30,
    runner_version="test",
    power_w=40.0,
)


def http_fetch(http: httpx.Client, url: str) -> Fetch:
    """Read ranges through the night's own network, which can fail."""

    def fetch(start: int, stop: int) -> bytes:
        try:
            response = http.get(url, headers={"range": f"bytes={start}-{stop - 1}"})
        except httpx.TransportError as error:
            raise UnreachableError(str(error)) from error
        if response.status_code != 206:
            raise UnreachableError(str(response.status_code))
        return response.content

    return fetch


def switched_on(now: datetime) -> n.Agent:
    """A car that was just switched on."""
    return parked(now)
