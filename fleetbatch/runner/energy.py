"""What compute draws: measured where something measures it, else draw times time; and it is said which of the two."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from fleetbatch.protocol import EnergySource

POWERCAP: Final = Path("/sys/class/powercap")
"""Linux's energy counters of processor packages (RAPL), in microjoules; by default only root may read them."""
_JOULES: Final = 3600.0
"""In a watt-hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Energy and time of a stretch of work."""

    wh: float = 0.0
    busy_s: float = 0.0
    source: EnergySource = "measured"

    def __add__(self, other: "Drawn") -> "Drawn":
        """Return both; measured only when both are."""
        source = self.source if other.source == "measured" else other.source
        return Drawn(wh=self.wh + other.wh, busy_s=self.busy_s + other.busy_s, source=source)


class Meter(Protocol):
    """Something that knows what is drawn."""

    def drawn(self, busy_s: float) -> Drawn:
        """Return what was drawn since the last call, which was `busy_s` seconds ago."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The draw of the hardware class's data sheet times the time."""

    power_w: float

    def drawn(self, busy_s: float) -> Drawn:
        """Return the product."""
        return Drawn(wh=self.power_w * busy_s / _JOULES, busy_s=busy_s, source="estimated")


@dataclass(slots=True, kw_only=True)
class PowerSignal:
    """A vehicle that tells the draw of its computer in watts: the mean of what was seen; the data sheet in a gap."""

    power_w: float
    _seen: list[float | None] = field(default_factory=list)

    def saw(self, watts: float | None) -> None:
        """Take the value of one look; None when the vehicle did not tell."""
        self._seen.append(watts)

    def drawn(self, busy_s: float) -> Drawn:
        """Return the looks' mean over the time."""
        seen, self._seen = self._seen or [None], self._seen[-1:]
        watts = [self.power_w if one is None else one for one in seen]
        source: EnergySource = "estimated" if None in seen else "measured"
        return Drawn(wh=sum(watts) / len(watts) * busy_s / _JOULES, busy_s=busy_s, source=source)


@dataclass(slots=True, kw_only=True)
class Packages:
    """The processor's own counters, which begin at zero again when they are full."""

    zones: tuple[Path, ...]
    _last: dict[Path, int] = field(default_factory=dict)

    def drawn(self, busy_s: float) -> Drawn:
        """Return what all packages counted."""
        microjoules = 0
        for zone in self.zones:
            now = _number(zone / "energy_uj")
            grown = now - self._last.get(zone, now)
            microjoules += grown if grown >= 0 else grown + _number(zone / "max_energy_range_uj")
            self._last[zone] = now
        return Drawn(wh=microjoules / 1e6 / _JOULES, busy_s=busy_s)


def open_meter(power_w: float, *, signal: bool, powercap: Path = POWERCAP) -> Meter:
    """Return the vehicle's signal when it has one, the processor's counters when they can be read, else an estimate."""
    if signal:
        return PowerSignal(power_w=power_w)
    zones = tuple(sorted(zone for zone in powercap.glob("intel-rapl:*") if zone.name.count(":") == 1))
    with contextlib.suppress(OSError, ValueError):
        packages = Packages(zones=zones)
        packages.drawn(0.0)
        if zones:
            return packages
    return Estimate(power_w=power_w)


@dataclass(slots=True, kw_only=True)
class Account:
    """What one lease has drawn, cut at every row group: the cuts and what was lost between them are the whole."""

    meter: Meter
    clock: Callable[[], float] = time.monotonic
    _whole: Drawn = Drawn()
    _uncut: Drawn = Drawn()
    _read_at: float | None = None
    """None while nothing is computed."""

    def begin(self) -> None:
        """Work begins, or goes on."""
        if self._read_at is None:
            self.meter.drawn(0.0)  # what was drawn before is nobody's
            self._read_at = self.clock()

    def cut(self) -> Drawn:
        """Return what was drawn since the last cut."""
        self._read()
        cut, self._uncut = self._uncut, Drawn()
        return cut

    def end(self) -> None:
        """Work stops; what was drawn for a row group that is lost counts, and is in no cut."""
        self.cut()
        self._read_at = None

    def whole_wh(self) -> float:
        """Return what the lease has drawn by now."""
        self._read()
        return self._whole.wh

    def reset(self) -> None:
        """The next lease begins."""
        self._whole, self._uncut, self._read_at = Drawn(), Drawn(), None

    def _read(self) -> None:
        if self._read_at is None:
            return
        now = self.clock()
        drawn = self.meter.drawn(now - self._read_at)
        self._whole, self._uncut, self._read_at = self._whole + drawn, self._uncut + drawn, now


def _number(path: Path) -> int:
    return int(path.read_text())
