"""A part goes out: encoded, signed, announced, uploaded, confirmed. Doing it twice is doing it once."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fleetbatch.car.identity import Identity, sign
from fleetbatch.contracts import conform
from fleetbatch.errors import RejectedError
from fleetbatch.logs import say
from fleetbatch.protocol import ConfirmReply, Lease, PartRequest, part_claim
from fleetbatch.runner.client import GatewayClient, SendAgain, Terminal
from fleetbatch.runner.energy import Drawn
from fleetbatch.units import Sha256
from fleetbatch.workloads import workload

UPLOADS_MAX: Final = 3
"""A proxy or a store that damages every upload will damage the next one, too: then another car shall try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAnswers:
    """What the worker answered for one row group."""

    table: pa.Table
    drawn: Drawn
    """Energy and time since the row group before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Row groups [start, stop) of a lease, ready to go."""

    lease: Lease
    start: int
    stop: int
    rows: int
    """Of the shard; each may have several answers."""
    drawn: Drawn
    content: bytes


def make_part(lease: Lease, start: int, stop: int, groups: Mapping[int, GroupAnswers]) -> Part:
    """Join the row groups' answers into one Parquet file; the same answers give the same bytes."""
    chosen = [groups[number] for number in range(start, stop)]
    table = conform(pa.concat_tables([g.table for g in chosen]), workload(lease.workload).answers_contract)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return Part(
        lease=lease,
        start=start,
        stop=stop,
        rows=pc.count_distinct(table["item_id"]).as_py(),
        drawn=sum((g.drawn for g in chosen), Drawn()),
        content=sink.getvalue().to_pybytes(),
    )


def deliver(client: GatewayClient, identity: Identity, part: Part) -> ConfirmReply | Terminal:
    """Deliver a part; return how far the shard is durable, or that the lease is over.

    Raises UnreachableError (the same part may be sent again) and RejectedError (it never will be taken).
    """
    request = part_request(identity, part)
    for _ in range(UPLOADS_MAX):
        place = client.part(request)
        if isinstance(place, Terminal):
            return place
        if not place.already:
            client.put(place.url, place.headers, part.content)
        reply = client.confirm(request)
        if not isinstance(reply, SendAgain):
            return reply
        say("uploaded again", level=logging.WARNING, lease=part.lease.lease_id, detail=reply.detail)
    summary = f"the store has not kept a part that was uploaded {UPLOADS_MAX} times"
    raise RejectedError(summary)


def part_request(identity: Identity, part: Part) -> PartRequest:
    """Return the signed announcement."""
    unsigned = PartRequest(
        lease_id=part.lease.lease_id,
        fence=part.lease.fence,
        shard_id=part.lease.shard_id,
        start=part.start,
        stop=part.stop,
        rows=part.rows,
        bytes=len(part.content),
        sha256=Sha256(hashlib.sha256(part.content).hexdigest()),
        energy_wh=part.drawn.wh,
        energy_source=part.drawn.source,
        busy_s=part.drawn.busy_s,
        signature="",
    )
    return msgspec.structs.replace(unsigned, signature=sign(identity, part_claim(unsigned)))
