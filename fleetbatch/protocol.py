"""The messages between a car and its gateway, version 2; a gateway serves versions N and N-1.

Field names are added, never changed: a reader ignores what it does not know, and a new field has a default. Version 2
added `workloads` and `next_trip_at`.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

PROTOCOL: Final = 2
SERVED: Final = frozenset({PROTOCOL, PROTOCOL - 1})

ReleaseReason = Literal[
    "unplugged", "driving", "too_hot", "battery_low", "charger_busy", "consent", "shutdown", "refused"
]
"""Why a car lets go. Only "refused" (bundle, shard or lease unusable) says something about the work."""

EnergySource = Literal["measured", "estimated"]

Word = Annotated[str, Meta(max_length=128, pattern=r"^[^\u0000]*$")]
"""A name that a car gives; bounded, and without the one character that PostgreSQL cannot keep."""
Text = Annotated[str, Meta(max_length=2000, pattern=r"^[^\u0000]*$")]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
"""A sha256 in hex."""
Digits = Annotated[str, Meta(pattern="^[0-7][0-9a-f]{15}$", max_length=16)]
"""A car or shard, 16 hex digits."""
Count = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
RowGroup = Annotated[int, Meta(ge=0, le=(1 << 15) - 1)]
Whole = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
Amount = Annotated[float, Meta(ge=0, le=1e12)]
Signals = Annotated[dict[str, float | bool | str | None], Meta(max_length=256)]
"""VSS name to value; names that the fleet does not use are ignored."""


class _Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message is immutable; unknown fields are ignored so that N and N-1 understand each other."""


class TokenReply(_Message, frozen=True, kw_only=True):
    """RFC 6749 section 5.1. The request is a form: RFC 7523 `private_key_jwt` with grant type client_credentials."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int


class Hardware(_Message, frozen=True, kw_only=True):
    """What the car can compute with, as it claims; rates are believed only as measured by finished parts."""

    hardware_class: Word
    provider: Word
    """onnxruntime execution provider, such as CPUExecutionProvider."""
    threads: Annotated[int, Meta(ge=1, le=4096)]
    memory_bytes: Whole
    runner_version: Word
    power_w: Amount
    """Draw while computing, from the class's data sheet; used where nothing measures it."""
    workloads: Annotated[list[Word], Meta(max_length=64)] = []
    """What is installed on the car, image besides; no other work is offered to it."""


class PollRequest(_Message, frozen=True, kw_only=True):
    """What the vehicle says now: VSS name to value, and the owner's settings that bound compute."""

    protocol: int = PROTOCOL
    signals: Signals
    hardware: Hardware
    willing: bool
    """conditions.py's answer: would this car compute now?"""
    unwilling_reason: Text = ""
    cached_models: Annotated[list[Word], Meta(max_length=256)] = []
    link_down_bytes_per_s: Amount = 0.0
    reserve_soc: Annotated[float, Meta(ge=0, le=1)] = 0.2
    """Share of charge below which the owner wants no compute."""
    departure_at: Word | None = None
    """RFC 3339; the owner's stated departure, when there is one."""
    next_trip_at: Word | None = None
    """RFC 3339; the next trip in the owner's calendar or navigation, when there is one and the owner shares it."""


class Lease(_Message, frozen=True, kw_only=True):
    """The right to compute [start, row_groups) of one shard until `expires_in_s` after this answer."""

    lease_id: str
    fence: int
    shard_id: str
    order_key: str
    workload: str
    options: dict[str, str]
    model_sha256: str
    model_url: str
    model_bytes: int
    shard_url: str
    shard_bytes: int
    shard_sha256: str
    shard_key: str
    """Base64url of 32 bytes; lives in the car's memory only."""
    row_groups: int
    start: int
    expires_in_s: float
    beat_every_s: float
    part_every_s: float


class PollReply(_Message, frozen=True, kw_only=True):
    """A lease, or when to come back."""

    lease: Lease | None
    retry_after_s: float


class BeatRequest(_Message, frozen=True, kw_only=True):
    """I am alive and got this far (row groups computed, delivered or not)."""

    lease_id: Word
    fence: Count
    row_groups_done: RowGroup
    energy_wh: Amount
    busy_s: Amount
    signals: Signals = {}


class BeatReply(_Message, frozen=True, kw_only=True):
    """Go on, or stop and why."""

    go_on: bool
    reason: str
    expires_in_s: float
    beat_every_s: float = 0.0
    """The pace from here on: a gateway that has much to do asks for fewer beats; 0 leaves it as the lease said."""


class PartRequest(_Message, frozen=True, kw_only=True):
    """I have the answers of row groups [start, stop).

    Sent twice: to /v1/part for a signed PUT, and, once uploaded, to /v1/part/confirm, which makes it count. The
    gateway keeps nothing between the two, so either may reach any gateway of the cell, any number of times.
    `signature` is the car's ES256 signature (base64url, raw r||s) over `part_claim` of the same fields: provenance.
    """

    lease_id: Word
    fence: Count
    shard_id: Digits
    start: RowGroup
    stop: RowGroup
    rows: Count
    bytes: Whole
    sha256: Digest
    energy_wh: Amount
    energy_source: EnergySource
    busy_s: Amount
    signature: Word


class PartReply(_Message, frozen=True, kw_only=True):
    """A signed PUT; `already` when this very part is durable and nothing needs sending."""

    already: bool
    url: str
    headers: dict[str, str]


class ConfirmReply(_Message, frozen=True, kw_only=True):
    """Durable: row groups below `done_through` will never be asked for again, unless an audit refuses them."""

    done_through: int
    complete: bool


class ReleaseRequest(_Message, frozen=True, kw_only=True):
    """The car lets go of its lease; leaving is never counted as failure."""

    lease_id: Word
    fence: Count
    reason: ReleaseReason
    detail: Text = ""
    energy_wh: Amount
    busy_s: Amount


class ReleaseReply(_Message, frozen=True, kw_only=True):
    """The shard is free from here on."""

    done_through: int


class ConsentRequest(_Message, frozen=True, kw_only=True):
    """An owner says yes or no to one purpose, having read one version of the notice."""

    car_id: Digits
    # Python's `$` matches before a final line feed, too; the `$` of ECMA 262, which the document speaks, does not.
    purpose: Annotated[str, Meta(pattern=r"^(compute|telemetry|data:[a-z]{1,32})(?!\n)$", max_length=37)]
    granted: bool
    notice_version: Word
    notice_sha256: Digest


class ConsentReply(_Message, frozen=True, kw_only=True):
    """Kept from here on; withdrawing `compute` has ended the car's open leases.

    What changes nothing adds no decision: this names the one that stands.

    Whoever keeps `sha256` can see later that this decision, and none before it, was taken away or changed.
    """

    car_id: str
    purpose: str
    granted: bool
    number: int
    at: str
    sha256: str


class ConsentEntry(_Message, frozen=True, kw_only=True):
    """One decision as it was kept.

    `sha256` is over these lines, joined by single line feeds and none at the end, in UTF-8: `fleetbatch-consent-1`,
    `previous`, the car's number (`car_id`, in decimal digits), `purpose`, `number`, `t` for yes or `f` for no,
    `notice_version`, `notice_sha256`, `at`. Each purpose of a car has a chain of its own.
    """

    purpose: str
    number: int
    """From 1 on, without a gap."""
    granted: bool
    at: str
    """UTC, with six digits of a second and Z."""
    notice_version: str
    notice_sha256: str
    previous: str
    """`sha256` of the decision before it; 64 zeros for the first."""
    sha256: str


class StatementNight(_Message, frozen=True, kw_only=True):
    """What a car did for one order in one night. Money is in millionths of a credit."""

    night: str
    order: str
    generation: int
    workload: str
    data_class: str
    leases: int
    refused_leases: int
    rows: int
    minutes: float
    """Of computing."""
    energy_wh: float
    bytes_read: int
    """By the share of each shard that was computed."""
    bytes_sent: int
    paid_micro: int
    escrow_micro: int
    """Delivered, and waiting for its audit."""


class StatementReply(_Message, frozen=True, kw_only=True):
    """What the cell keeps about one car of the caller's, nights that are archived included."""

    car_id: str
    consents: list[ConsentEntry]
    nights: list[StatementNight] = []
    unreadable_nights: list[str] = []
    """Archived nights of which it cannot be told now, or not wholly, what the car did; the sums below lack nothing."""
    escrow_micro: int = 0
    """Of this car."""
    owner_paid_micro: int = 0
    """Ever paid to the owner, for all cars in this cell."""


class Problem(_Message, frozen=True, kw_only=True):
    """RFC 9457 problem details; 409 carries the terminal answer, which is the same for ever."""

    type: str
    title: str
    status: int
    detail: str


def part_claim(request: PartRequest) -> bytes:
    """Return the bytes that a car signs and anyone can check later: lease, fence, shard, range, sha256, rows."""
    r = request
    return (
        f"fleetbatch-part-1\n{r.lease_id}\n{r.fence}\n{r.shard_id}\n{r.start}\n{r.stop}\n{r.rows}\n{r.sha256}".encode()
    )
