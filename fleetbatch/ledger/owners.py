"""Cars and their owners' consent, as a gateway or an operator tells them to the ledger."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, get_args

import msgspec

from fleetbatch.nouns import DataClass
from fleetbatch.units import CarId, OwnerId, Sha256

PURPOSE_COMPUTE: Final = "compute"
"""The consent without which no lease is granted. Work of a data class above `open` also needs `data:CLASS`."""
PURPOSE_TELEMETRY: Final = "telemetry"
"""The consent without which nothing that the vehicle says of itself is kept."""
PURPOSES: Final = (
    PURPOSE_COMPUTE,
    PURPOSE_TELEMETRY,
    *(f"data:{name}" for name in get_args(DataClass) if name != "open"),
)
"""All that anybody may agree to: a yes to anything else would stand for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A car becomes known: its ES256 public key as PEM."""

    car_id: CarId
    owner_id: OwnerId
    public_key_pem: str
    region: str


class CarKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway needs to know who is calling."""

    car_id: CarId
    owner_id: OwnerId
    public_key_pem: str
    revoked: bool
    telemetry: bool
    """Its owner lets vehicle signals be kept."""
    tokens_void_at: datetime | None
    """Tokens that were bought before this instant are void."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentChange:
    """An owner says yes or no to one purpose (`compute`, `telemetry`, `data:CLASS`), having read one notice."""

    car_id: CarId
    purpose: str
    granted: bool
    notice_version: str
    notice_sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentRecord:
    """A consent as it was kept: `sha256` covers this record and the one before it of the same car and purpose."""

    change: ConsentChange
    number: int
    at: datetime
    previous: Sha256
    """Of the record before; 64 zeros for the first."""
    sha256: Sha256

    @property
    def voids_tokens(self) -> bool:
        """Say whether it takes away what tokens were given for."""
        return not self.change.granted


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentRefused:
    """A decision that is not kept, and changes nothing; a withdrawal of what stands is never refused."""

    reason: str
    again_in: timedelta | None = None
    """When it may be said again; None: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a decision meets."""

    newest: ConsentRecord | None
    """Of its car and purpose."""
    agreed: bool
    """Whether the car may be used for the purpose now, as a grant sees it."""
    full_for: timedelta
    """How long the car has as many records as a day may add; nothing or less: it has not."""


def decided(change: ConsentChange, standing: Standing) -> ConsentRecord | ConsentRefused | None:
    """Return the answer to a decision that adds no record; None for one that does. Pure.

    The same yes once more changes nothing, nor does a no to what is refused already: the record that stands is the
    answer. Each yes counts against the day, and each no follows a yes or is the purpose's first word, so that a chain
    has a bound although no withdrawal ever waits.
    """
    newest, withdrawn = standing.newest, not change.granted
    alike = newest is not None and newest.change.granted == change.granted == standing.agreed
    if newest is not None and alike and (withdrawn or newest.change == change):
        return newest
    if withdrawn and standing.agreed:
        return None
    if change.purpose not in PURPOSES:
        known = ", ".join(PURPOSES)
        return ConsentRefused(reason=f"nothing is done for the purpose {change.purpose!r}; known are {known}")
    if change.granted and standing.full_for > timedelta(0):
        reason = "the car has as many new decisions as a day may have; a withdrawal is heard at any time"
        return ConsentRefused(reason=reason, again_in=min(standing.full_for, timedelta(days=1)))
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class CarConsents:
    """What a car may be used for, and the records that say so."""

    car_id: CarId
    purposes: frozenset[str]
    records: tuple[ConsentRecord, ...]
    """By purpose and number."""
