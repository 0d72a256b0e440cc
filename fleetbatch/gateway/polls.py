"""Poll and beat: a car says how it is and gets work, or hears to go on or stop."""

import base64
from datetime import datetime
from typing import assert_never

import msgspec

from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.problems import Kind, ProblemError
from fleetbatch.ledger.messages import Beat, BeatAnswer, Granted, GrantRequest, Refused
from fleetbatch.logs import say
from fleetbatch.protocol import SERVED, BeatReply, BeatRequest, Lease, PollReply, PollRequest
from fleetbatch.sealing import shard_key
from fleetbatch.units import CarId, Fence, LeaseId, ShardId, shard_hex


async def poll(gate: Gate, car: CarId, request: PollRequest, *, said: bytes | None = None) -> PollReply:
    """Give a willing car its next offer as a lease; an empty poll touches neither ledger nor store.

    `said` is the message as it came, when all of it may be kept.
    """
    refuse_unserved(request.protocol)
    gate.telemetry.hear(car, gate.clock(), request if said is None else said)
    lease = None
    if request.willing and car not in gate.polling:
        gate.polling.add(car)
        try:
            lease = await _first_grant(gate, car, request)
        finally:
            gate.polling.discard(car)
    return PollReply(lease=lease, retry_after_s=0.0 if lease else gate.wait_s())


def refuse_unserved(protocol: int) -> None:
    """Raise a ProblemError when the car speaks a version that is not served."""
    if protocol not in SERVED:
        served = " and ".join(str(version) for version in sorted(SERVED))
        raise ProblemError(Kind.PROTOCOL_NOT_SERVED, f"this gateway speaks protocol {served}, not {protocol}")


def may_get_work(gate: Gate, car: CarId) -> bool:
    """Tell whether a poll of this car would ask the ledger, if the car is willing."""
    if car not in gate.lease_of and not gate.book.may_offer(car):
        return False  # the usual case
    return car not in gate.polling and bool(_wanted(gate, car))


async def beat(gate: Gate, car: CarId, request: BeatRequest) -> BeatReply:
    """Renew a lease, or say why it is over."""
    question = beat_heard(gate, car, request)
    return beat_told(gate, question, await gate.beats.ask(question))


def beat_heard(gate: Gate, car: CarId, request: BeatRequest) -> Beat:
    """Remember that a car is alive and what its vehicle says; return what to ask the ledger."""
    lease, now = LeaseId(request.lease_id), gate.clock()
    held = gate.held.get(lease)
    if held is not None and held.car_id == car:
        gate.heard_at[lease] = now
        if request.signals:
            gate.telemetry.hear(car, now, msgspec.structs.replace(held.request, signals=request.signals))
    return Beat(
        car_id=car,
        lease_id=lease,
        fence=Fence(request.fence),
        row_groups_done=request.row_groups_done,
        energy_wh=request.energy_wh,
        busy_s=request.busy_s,
    )


def beat_told(gate: Gate, beat: Beat, answer: BeatAnswer) -> BeatReply:
    """Return what the car hears of the ledger's answer, having forgotten a lease that is over."""
    if answer.expires_at is not None:
        left_s = _at_most_a_lease((answer.expires_at - gate.clock()).total_seconds(), gate)
        return BeatReply(go_on=True, reason="", expires_in_s=left_s, beat_every_s=gate.beat_every_s())
    gate.let_go(beat.lease_id, told=beat.car_id)
    say("stopped", car=beat.car_id, lease=beat.lease_id, reason=answer.reason)
    return BeatReply(go_on=False, reason=answer.reason, expires_in_s=0.0, beat_every_s=0.0)


def _at_most_a_lease(left_s: float, gate: Gate) -> float:
    """Return what is left of a lease, whatever the difference between the database's clock and this one's is."""
    return min(max(left_s, 0.0), gate.dials.lease_for.total_seconds())


async def _first_grant(gate: Gate, car: CarId, request: PollRequest) -> Lease | None:
    """Accept the car's offers in turn until one is granted."""
    for shard in _wanted(gate, car)[: gate.dials.offers_per_poll]:
        answer = await gate.grants.ask(_question(gate, car, shard, request))
        match answer:
            case Granted():
                gate.hold(answer, msgspec.structs.replace(request, signals={}))
                gate.metrics.events["granted"] += 1
                say(
                    "granted",
                    car=car,
                    lease=answer.lease_id,
                    shard=answer.shard_id,
                    order=str(answer.order_key),
                    start=answer.start,
                    again=answer.again,
                )
                return await _lease(gate, answer, gate.clock())
            case Refused():
                gate.book.refused(car, shard)
                gate.metrics.events["refused"] += 1
                if gate.shard_of(car) == shard:
                    gate.let_go(gate.lease_of[car])
            case _:
                assert_never(answer)
    return None


def _wanted(gate: Gate, car: CarId) -> list[ShardId]:
    """Return what to try: first the shard of a lease whose grant the car seems not to have heard of.

    A car that has refused a lot of late is offered nothing for a while.
    """
    held, offers = gate.shard_of(car), gate.book.offers_for(car)
    if offers and gate.refusals.used_up_s(car, now=gate.clock()):
        offers = []
    return offers if held is None else [held, *offers]


def _question(gate: Gate, car: CarId, shard: ShardId, request: PollRequest) -> GrantRequest:
    hardware = request.hardware
    return GrantRequest(
        car_id=car,
        shard_id=shard,
        lease_for=gate.dials.lease_for,
        hardware_class=hardware.hardware_class,
        provider=hardware.provider,
        threads=hardware.threads,
        power_w=round(hardware.power_w, 3),  # what is next to nothing is no single-precision number
        runner_version=hardware.runner_version,
    )


async def _lease(gate: Gate, granted: Granted, now: datetime) -> Lease:
    """Turn a grant into what the car needs to compute."""
    known = await gate.order(granted.order_key)
    dials = gate.dials
    left_s = (granted.expires_at - now).total_seconds() if granted.again else dials.lease_for.total_seconds()
    model = known.model_sha256
    return Lease(
        lease_id=granted.lease_id,
        fence=granted.fence,
        shard_id=shard_hex(granted.shard_id),
        order_key=str(granted.order_key),
        workload=known.order.workload,
        options=dict(known.order.options),
        model_sha256=model,
        model_url=gate.model_url(model, now=now) if model else "",
        model_bytes=known.model_bytes,
        shard_url=gate.store.sign_get(granted.key, now=now, expires=dials.url_for),
        shard_bytes=granted.size_bytes,
        shard_sha256=granted.sha256,
        shard_key=base64.urlsafe_b64encode(shard_key(known.secret, granted.shard_id)).decode(),
        row_groups=granted.row_groups,
        start=granted.start,
        expires_in_s=_at_most_a_lease(left_s, gate),
        beat_every_s=gate.beat_every_s(),
        part_every_s=dials.part_every.total_seconds(),
    )
