"""What a day's forecasts are made with, and what the forecasts before it came to: the state that travels as JSON."""

from datetime import date
from typing import Literal

import msgspec
import numpy as np

from fleetbatch.windows.calibration import Calibration
from fleetbatch.windows.conformal import Thresholds


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a level's forecasts of the judged days were worth."""

    forecasts: int
    integrated_brier: float
    calibration_error_8h: float
    booked: float
    evicted: float


class Stratum(msgspec.Struct, frozen=True, kw_only=True):
    """What the serving level's bookings were worth in one stratum."""

    name: str
    forecasts: int
    bookings: int
    booked: float
    evicted: float


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """The state that a day's forecasts are made with; travels as JSON."""

    level: Literal["L1", "L2"]
    reason: str
    model_sha256: str
    """Empty without a model."""
    tuned_at: str
    coefficients: list[list[float]]
    risk_length: list[float]
    risk_history: list[float]
    risk_day: list[float]
    figures: dict[str, Figures]
    strata: list[Stratum]
    reliability: dict[str, list[tuple[float, float, int]]]
    """Per horizon in hours, in bins: mean forecast, share that stayed, forecasts."""
    shadow: str = ""
    """What the model in the shadow was worth, when there is one."""

    def day(self) -> date:
        """Return the day (UTC) on which it was made."""
        return date.fromisoformat(self.tuned_at[:10])

    def calibration(self) -> Calibration:
        """Return the calibration as arrays."""
        return Calibration(coefficients=np.array(self.coefficients))

    def thresholds(self) -> Thresholds:
        """Return the thresholds of the serving level as arrays."""
        return Thresholds(
            length=np.array(self.risk_length), history=np.array(self.risk_history), day=np.array(self.risk_day)
        )
