"""Calls to the gateway, each in a thread of its own; what comes of it is an event for the agent."""

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from fleetbatch.car import nouns as n
from fleetbatch.car.identity import Identity
from fleetbatch.errors import RejectedError
from fleetbatch.logs import say
from fleetbatch.protocol import BeatRequest, PollRequest, ReleaseRequest
from fleetbatch.runner.client import GatewayClient, Terminal
from fleetbatch.runner.delivery import Part, deliver
from fleetbatch.runner.unreachable import ClockError, UnreachableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A call ended in a way that ends the runner."""

    error: BaseException


FromCalls: TypeAlias = n.Event | Broken


class Calls:
    """Starts calls and tells `heard` their outcome, from threads that are daemons: an exit waits for none."""

    def __init__(self, client: GatewayClient, identity: Identity, heard: Callable[[FromCalls], None]) -> None:
        """Make calls as this car."""
        self._client = client
        self._identity = identity
        self._heard = heard

    def poll(self, request: PollRequest) -> None:
        """Ask for work; a refusal here means that this car is not welcome, and ends the runner.

        A wrong clock ends it too, to be started again: what the owner says of departures is compared with the clock
        that a runner read when it started.
        """

        def ask() -> FromCalls:
            try:
                reply = self._client.poll(request)
            except ClockError as error:
                return Broken(error=error)
            wait = timedelta(seconds=reply.retry_after_s)
            return n.PollAnswered(lease=reply.lease, retry_after=wait, chance=random.random())  # noqa: S311 (spreads load)

        self._start("poll", "", ask, refused=lambda error: Broken(error=error))

    def beat(self, action: n.Beat, energy_wh: float, signals: dict[str, float | bool | str | None]) -> None:
        """Say how far the lease got, and what it has drawn."""
        lease = action.lease
        request = BeatRequest(
            lease_id=lease.lease_id,
            fence=lease.fence,
            row_groups_done=action.done,
            energy_wh=energy_wh,
            busy_s=action.busy_s,
            signals=signals,
        )

        def tell() -> n.Event:
            reply = self._client.beat(request)
            if isinstance(reply, Terminal):
                return n.Ended(lease_id=lease.lease_id, reason=reply.reason)
            if not reply.go_on:
                say("stopped by the gateway", lease=lease.lease_id, reason=reply.reason)
            wait = timedelta(seconds=reply.expires_in_s)
            pace = timedelta(seconds=reply.beat_every_s)
            return n.BeatAnswered(lease_id=lease.lease_id, go_on=reply.go_on, expires_in=wait, beat_every=pace)

        def refused(error: RejectedError) -> n.Event:
            return n.BeatRefused(lease_id=lease.lease_id, detail=str(error))

        self._start("beat", lease.lease_id, tell, refused=refused)

    def deliver(self, part: Part) -> None:
        """Deliver a part."""
        lease_id = part.lease.lease_id

        def bring() -> n.Event:
            reply = deliver(self._client, self._identity, part)
            if isinstance(reply, Terminal):
                return n.Ended(lease_id=lease_id, reason=reply.reason)
            say("part delivered", lease=lease_id, shard=part.lease.shard_id, start=part.start, stop=part.stop)
            return n.PartDelivered(lease_id=lease_id, done_through=reply.done_through, complete=reply.complete)

        self._start("part", lease_id, bring, refused=lambda error: n.PartRefused(lease_id=lease_id, detail=str(error)))

    def release(self, action: n.Release, energy_wh: float) -> None:
        """Give the lease back, and say what it has drawn."""
        lease = action.lease
        request = ReleaseRequest(
            lease_id=lease.lease_id,
            fence=lease.fence,
            reason=action.reason,
            detail=action.detail.replace("\0", "")[:500],
            energy_wh=energy_wh,
            busy_s=action.busy_s,
        )

        def let_go() -> n.Event:
            reply = self._client.release(request)
            if isinstance(reply, Terminal):
                return n.Ended(lease_id=lease.lease_id, reason=reply.reason)
            say("lease released", lease=lease.lease_id, shard=lease.shard_id, reason=action.reason)
            return n.Released(lease_id=lease.lease_id)

        over = n.Ended(lease_id=lease.lease_id, reason="the release was refused")
        self._start("release", lease.lease_id, let_go, refused=lambda _: over)

    def _start(
        self,
        call: n.Call,
        lease_id: str,
        work: Callable[[], FromCalls],
        *,
        refused: Callable[[RejectedError], FromCalls],
    ) -> None:
        def run() -> None:
            try:
                outcome = work()
            except UnreachableError as error:
                say("not reached", level=logging.WARNING, call=call, lease=lease_id, detail=str(error))
                outcome = n.Unreached(
                    call=call,
                    lease_id=lease_id,
                    retry_after=error.retry_after,
                    chance=random.random(),  # noqa: S311 (spreads load)
                )
            except RejectedError as error:
                say("refused", level=logging.ERROR, call=call, lease=lease_id, detail=str(error))
                outcome = refused(error)
            except Exception as error:  # noqa: BLE001 (a bug in a thread must end the runner, not vanish)
                outcome = Broken(error=error)
            self._heard(outcome)

        threading.Thread(target=run, name=call, daemon=True).start()
