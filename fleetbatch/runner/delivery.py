"""A part goes out: encoded, signed, announced, uploaded, confirmed. Doing it twice is doing it once."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch.car.identity import Identity, sign
from fleetbatch.contracts import conform
from fleetbatch.protocol import ConfirmReply, Lease, PartRequest, part_claim
from fleetbatch.runner.client import GatewayClient, Terminal
from fleetbatch.units import Sha256
from fleetbatch.workloads import workload


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAnswers:
    """What the worker answered for one row group."""

    table: pa.Table
    busy_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Row groups [start, stop) of a lease, ready to go."""

    lease: Lease
    start: int
    stop: int
    rows: int
    busy_s: float
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
        rows=table.num_rows,
        busy_s=sum(g.busy_s for g in chosen),
        content=sink.getvalue().to_pybytes(),
    )


def deliver(client: GatewayClient, identity: Identity, part: Part, *, power_w: float) -> ConfirmReply | Terminal:
    """Deliver a part; return how far the shard is durable, or that the lease is over.

    Raises UnreachableError (the same part may be sent again) and RejectedError (it never will be taken).
    """
    request = part_request(identity, part, power_w=power_w)
    place = client.part(request)
    if isinstance(place, Terminal):
        return place
    if not place.already:
        client.put(place.url, place.headers, part.content)
    return client.confirm(request)


def part_request(identity: Identity, part: Part, *, power_w: float) -> PartRequest:
    """Return the signed announcement; energy is estimated as draw times busy time, and says so."""
    unsigned = PartRequest(
        lease_id=part.lease.lease_id,
        fence=part.lease.fence,
        shard_id=part.lease.shard_id,
        start=part.start,
        stop=part.stop,
        rows=part.rows,
        bytes=len(part.content),
        sha256=Sha256(hashlib.sha256(part.content).hexdigest()),
        energy_wh=estimated_wh(power_w, part.busy_s),
        energy_source="estimated",
        busy_s=part.busy_s,
        signature="",
    )
    return msgspec.structs.replace(unsigned, signature=sign(identity, part_claim(unsigned)))


def estimated_wh(power_w: float, busy_s: float) -> float:
    """Return the energy of so many seconds at that draw."""
    return power_w * busy_s / 3600
