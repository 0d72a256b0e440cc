"""Local clocks: instants to wall time, days to days off. Pure: time zones and holidays are fixed tables.

Instants are hours since 1970-01-01 UTC; wall time is hours since 1970-01-01 00:00 of the local clock, so that
`wall // 24` is a local day and `wall % 24` the time of day. Nights of 23 and 25 hours come out right because the
offset is looked up at each instant.
"""

import functools
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import holidays
import numpy as np
import numpy.typing as npt
import polars as pl

from fleetbatch.errors import RejectedError

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
THURSDAY: Final = 3
"""1970-01-01 was one; Monday is 0."""
SATURDAY: Final = 5
YEARS_AROUND: Final = 1
COUNTRIES: Final = {
    "Africa/Johannesburg": "ZA",
    "America/Chicago": "US",
    "America/Denver": "US",
    "America/Los_Angeles": "US",
    "America/New_York": "US",
    "America/Sao_Paulo": "BR",
    "America/Toronto": "CA",
    "America/Vancouver": "CA",
    "Asia/Kolkata": "IN",
    "Asia/Seoul": "KR",
    "Asia/Shanghai": "CN",
    "Asia/Singapore": "SG",
    "Asia/Tokyo": "JP",
    "Australia/Melbourne": "AU",
    "Australia/Sydney": "AU",
    "Europe/Amsterdam": "NL",
    "Europe/Athens": "GR",
    "Europe/Berlin": "DE",
    "Europe/Brussels": "BE",
    "Europe/Budapest": "HU",
    "Europe/Copenhagen": "DK",
    "Europe/Dublin": "IE",
    "Europe/Helsinki": "FI",
    "Europe/Lisbon": "PT",
    "Europe/London": "GB",
    "Europe/Madrid": "ES",
    "Europe/Oslo": "NO",
    "Europe/Paris": "FR",
    "Europe/Prague": "CZ",
    "Europe/Rome": "IT",
    "Europe/Stockholm": "SE",
    "Europe/Vienna": "AT",
    "Europe/Warsaw": "PL",
    "Europe/Zurich": "CH",
    "Pacific/Auckland": "NZ",
}
"""Zones whose public holidays are known here; elsewhere days off are weekends alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One name per row, as codes into names."""

    names: tuple[str, ...]
    codes: IntArray

    def take(self, rows: IntArray) -> "Named":
        """Return the names of some rows."""
        return Named(names=self.names, codes=self.codes[rows])

    def join(self, other: "Named") -> "Named":
        """Return the names of these rows and then of the others."""
        names = tuple(sorted({*self.names, *other.names}))
        codes = [np.array([names.index(n) for n in one.names], np.int64)[one.codes] for one in (self, other)]
        return Named(names=names, codes=np.concatenate(codes))


Zones = Named
"""IANA time zones."""


def hours(instant: datetime) -> float:
    """Return an aware instant as hours since 1970-01-01 UTC."""
    return (instant - EPOCH) / timedelta(hours=1)


def wall_h(at_h: FloatArray, zones: Zones) -> FloatArray:
    """Return the wall time of each instant in its row's zone; `at_h` is [rows] or [rows, any]."""
    wall = np.array(at_h, dtype=np.float64)
    for code in np.unique(zones.codes):
        rows = np.flatnonzero(zones.codes == code)
        wall[rows] += _offsets_h(at_h[rows], zones.names[code])
    return wall


def days_off(days: IntArray, zones: Zones) -> BoolArray:
    """Say of each local day whether people are free: weekend, public holiday, 24 or 31 December before one."""
    free = (days + THURSDAY) % 7 >= SATURDAY
    for code in np.unique(zones.codes):
        rows = np.flatnonzero(zones.codes == code)
        asked = days[rows]
        first, last = _years(asked.min() * 24.0), _years(asked.max() * 24.0)
        free[rows] |= np.isin(asked, _holidays(zones.names[code], first - YEARS_AROUND, last + YEARS_AROUND))
    return free


def _offsets_h(at_h: FloatArray, zone: str) -> FloatArray:
    known = at_h[np.isfinite(at_h)]
    if known.size == 0:
        return np.zeros_like(at_h)
    first, last = _years(known.min()), _years(known.max())
    changes_h, offsets_h = _changes(zone, first - YEARS_AROUND, last + YEARS_AROUND)
    return offsets_h[np.maximum(np.searchsorted(changes_h, at_h, side="right") - 1, 0)]


def _years(at_h: float) -> int:
    return (EPOCH + timedelta(hours=float(at_h))).year


@functools.lru_cache(maxsize=512)
def _changes(zone: str, first: int, last: int) -> tuple[FloatArray, FloatArray]:
    """Return the instants at which the zone's offset changes, and the offset from each on (hours)."""
    instants = pl.datetime_range(
        datetime(first, 1, 1, tzinfo=UTC), datetime(last, 12, 31, tzinfo=UTC), "30m", time_zone="UTC", eager=True
    )
    try:
        local = instants.dt.convert_time_zone(zone)
    except pl.exceptions.ComputeError as error:
        summary = f"time zone {zone!r} is not an IANA name; expected one such as Europe/Oslo"
        raise RejectedError(summary) from error
    offsets_h = (local.dt.base_utc_offset() + local.dt.dst_offset()).dt.total_minutes().to_numpy() / 60.0
    starts = np.flatnonzero(np.r_[True, np.diff(offsets_h) != 0])
    return instants.dt.epoch("s").to_numpy()[starts] / 3600.0, offsets_h[starts]


@functools.lru_cache(maxsize=512)
def _holidays(zone: str, first: int, last: int) -> IntArray:
    """Return the public holidays of the zone's country as days since 1970, and the eves that people keep."""
    country = COUNTRIES.get(zone)
    if country is None:
        return np.zeros(0, dtype=np.int64)
    years = range(first, last + 1)
    free = set(holidays.country_holidays(country, years=years))
    eves = {date(y, 12, 24) for y in years if date(y, 12, 25) in free}
    eves |= {date(y, 12, 31) for y in years if date(y, 1, 1) in free}
    return np.array(sorted((day - EPOCH.date()).days for day in free | eves), dtype=np.int64)
