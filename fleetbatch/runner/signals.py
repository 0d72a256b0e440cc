"""Where vehicle signals come from. A source gives the newest values it knows; what it does not know is absent."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec

from fleetbatch.car.conditions import NOTHING_KNOWN, Reading
from fleetbatch.errors import RejectedError


class SignalSource(Protocol):
    """A door onto the vehicle: a file on a laptop, a databroker (Kuksa: subscribe, keep the newest) in a car."""

    def current(self) -> Reading:
        """Return the newest reading at once, without waiting for the vehicle; NOTHING_KNOWN when there is none."""
        ...


class _SignalsFile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a signals file; whoever writes it replaces it in one move."""

    signals: dict[str, Any]
    """VSS name to value."""
    reserve_soc: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    departure_at: datetime | None = None
    """RFC 3339, with its zone."""
    next_trip_at: datetime | None = None
    consent: bool = True


class FileSignals:
    """Signals that somebody else writes into a JSON file."""

    def __init__(self, path: Path) -> None:
        """Look at that file at every reading; it need not exist yet."""
        self._path = path

    def current(self) -> Reading:
        """Return what the file says; a file that is absent or broken says nothing, so the car does not compute."""
        try:
            told = msgspec.json.decode(self._path.read_bytes(), type=_SignalsFile)
        except (OSError, msgspec.DecodeError):
            return NOTHING_KNOWN
        if any(at is not None and at.tzinfo is None for at in (told.departure_at, told.next_trip_at)):
            return NOTHING_KNOWN
        return Reading(
            signals={name: value for name, value in told.signals.items() if _is_plain(value)},
            reserve_soc=told.reserve_soc,
            departure_at=told.departure_at,
            next_trip_at=told.next_trip_at,
            consent=told.consent,
        )


def open_signals(url: str) -> SignalSource:
    """Open `file:PATH`; raise RejectedError for a source that is not known."""
    scheme, _, path = url.partition(":")
    if scheme != "file" or not path:
        summary = f"signals source {url!r} is not known; use file:PATH"
        raise RejectedError(summary)
    return FileSignals(Path(path))


def _is_plain(value: object) -> bool:
    """Return whether anything can be done with a value; a whole number may be too large to be worked with."""
    number = isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return value is None or isinstance(value, str | bool) or number
