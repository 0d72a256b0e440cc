"""What is simulated: one frozen value, from which with its seed a whole night follows. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from fleetbatch.errors import RejectedError
from fleetbatch.units import MIB

Believed = Literal["honest", "hopeful", "gloomy", "shuffled", "flat"]
"""What the planner is told of stays: the forecast, S^0.4, S^2.5, 30 % of the curves swapped, one mean curve for all."""

EXACT_MAX: Final = 20_000
"""Larger fleets live in arrays; up to here every car runs the real agent and every shard the real machine."""
CARS_MAX: Final = 10_000_000
SHARDS_MAX: Final = 100_000_000
"""Ten cells' cars and their work: beyond it a night is asked for by mistake, and would end for want of memory."""
SEED_MAX: Final = 2**64 - 1
TIMEZONE: Final = "Europe/Berlin"
"""Of the generated fleet; a file of stays brings its own."""

HARDWARE: Final = ("cpu-small", "cpu-large", "npu")
HARDWARE_SHARE: Final = (0.45, 0.45, 0.10)
WORKLOADS: Final = ("pictures", "video", "scenarios")
RATES: Final = ((0.5, 0.35, 0.0), (1.0, 1.0, 1.0), (3.0, 5.0, 8.0))
"""[hardware][workload], units a second; one unit is one second of the middle class."""
POWER_W: Final = (100.0, 160.0, 300.0)
EUR_PER_KWH: Final = (0.30, 0.26, 0.16, 0.12, 0.12, 0.18)
GRAMS_PER_KWH: Final = (430.0, 410.0, 380.0, 330.0, 260.0, 340.0)
"""CO2 of the region's electricity: gas in the evening, wind in the small hours."""
GRAMS_PER_TONNE: Final = 1e6
TARIFF_UNTIL_H: Final = (0.5, 1.5, 3.0, 4.0, 5.5, 48.0)
"""Hours from the night's start until which each price and intensity holds."""
MODEL_WEIGHT: Final = (0.3, 1.0, 0.02)
"""[workload], bytes of its model beside the largest."""
CREDIT_PER_UNIT: Final = 4e-5
"""What an owner is paid for a unit of work that counts, in EUR, beside the energy: ten times the energy (design)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fleet, its night and what goes wrong in it; shares are of the cars at a plug."""

    cars: int = 2_000
    shards: int = 16_000
    seed: int = 1
    load: float = 1.3
    """Demand over what the cars at the plugs can do when each does a random kind that it may."""
    hours: float = 8.0
    replan: timedelta = timedelta(minutes=15)
    forecast_every: timedelta = timedelta(hours=1)
    """Between two forecasts the curves are conditioned on still being there."""
    starts_at: datetime = datetime(2026, 11, 24, 20, 0, tzinfo=UTC)
    stays: Path | None = None
    """A file of charging sessions; without one the past is generated."""
    plugged_share: float | None = None
    """Of all cars; by default what the past says of that hour."""
    believed: Believed = "honest"
    carbon_eur_per_tonne: float = 0.0
    """What a tonne of CO2 is worth avoiding, beside the energy's price."""
    cloud: bool = False
    exact: bool | None = None
    """Whether cars run the real agent and shards the real machine; by default up to `EXACT_MAX` cars."""
    storm_share: float = 0.15
    """Cars that leave together within twenty minutes at one moment of the night."""
    crash_share: float = 0.01
    outage_share: float = 0.01
    """Cars that lose the network for a while; only the real agent knows how to live with that."""
    bad_share: float = 0.005
    """Cars whose answers are wrong."""
    consent_share: float = 0.97
    stated_share: float = 0.2
    """Cars whose owner has stated a departure, three quarters of an hour off in the median."""
    deadline_share: float = 0.2
    """Work that is due at half of the night."""
    row_group_s: float = 120.0
    """On the middle class: the cut's 20,000 rows a shard are 20 minutes, in row groups of 2,000."""
    row_group_bytes: float = 4.0 * MIB
    """Of the heaviest kind of work, as the cut allows; 1e9 makes most links too slow for it."""
    model_bytes: float = 150.0 * MIB
    """Of the largest model, that of video."""
    cached_share: float = 0.5
    """Cars that hold a model since an earlier night, model by model; others load it before their first row group."""
    beat_every: timedelta = timedelta(minutes=3)
    part_every: timedelta = timedelta(minutes=1)
    lease_for: timedelta = timedelta(minutes=10)
    piece_row_groups_min: int = 1
    """The planner's dial: a shorter piece is only placed where it ends its shard."""
    audit_after: timedelta = timedelta(minutes=10)

    @property
    def night_s(self) -> float:
        """Return the length of the night in seconds."""
        return self.hours * 3600.0

    @property
    def is_exact(self) -> bool:
        """Return whether cars and shards live by the real agent and the real machine."""
        return self.cars <= EXACT_MAX if self.exact is None else self.exact


def check_scenario(scenario: Scenario) -> None:
    """Raise RejectedError naming everything about a scenario that makes no night."""
    problems = [
        f"{name}: {getattr(scenario, name)}; expected {least} to {most:,}"
        for name, least, most in (("cars", 1, CARS_MAX), ("shards", 1, SHARDS_MAX), ("seed", 0, SEED_MAX))
        if not least <= getattr(scenario, name) <= most
    ]
    problems += [
        f"{name}: {getattr(scenario, name)}; expected more than 0 and at most {most:g}"
        for name, most in (("load", 100.0), ("hours", 24.0), ("row_group_s", 3600.0))
        if not 0.0 < getattr(scenario, name) <= most
    ]
    problems += [
        f"{name}: {getattr(scenario, name)}; expected at least 0 and at most {most:g}"
        for name, most in (("row_group_bytes", 1e12), ("model_bytes", 1e12), ("carbon_eur_per_tonne", 1e6))
        if not 0.0 <= getattr(scenario, name) <= most
    ]
    shares = [name for name in Scenario.__slots__ if name.endswith("_share") and getattr(scenario, name) is not None]
    problems += [
        f"{name}: {getattr(scenario, name)}; expected 0 to 1"
        for name in shares
        if not 0.0 <= getattr(scenario, name) <= 1.0
    ]
    if scenario.replan < timedelta(minutes=1):
        problems.append(f"replan: {scenario.replan}; expected at least a minute")
    if problems:
        summary = "the night cannot be simulated"
        raise RejectedError(summary, problems)
