"""Cars and their owners' consent, as a gateway or an operator tells them to the ledger."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fleetbatch.units import CarId, OwnerId, Sha256

PURPOSE_COMPUTE: Final = "compute"
"""The consent without which no lease is granted. Work of a data class above `open` also needs `data:CLASS`."""
PURPOSE_TELEMETRY: Final = "telemetry"
"""The consent without which nothing that the vehicle says of itself is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A car becomes known: its ES256 public key as PEM."""

    car_id: CarId
    owner_id: OwnerId
    public_key_pem: str
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CarKey:
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
class CarConsents:
    """What a car may be used for, and the records that say so."""

    car_id: CarId
    purposes: frozenset[str]
    records: tuple[ConsentRecord, ...]
    """By purpose and number."""
