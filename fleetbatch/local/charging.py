"""What a parked car's sensors would say while it charges, as a function of time. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

_BATTERY = "Vehicle.Powertrain.TractionBattery"
_VOLTS: Final = 230.0
_CHARGE_EFFICIENCY: Final = 0.9
"""Share of the plug's energy that reaches the cells; AC on-board chargers lie between 0.85 and 0.95."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charging:
    """One stay at the plug: from when, from what charge, on what wallbox, to what target."""

    plugged_in_at: datetime
    soc_at_plug_in: float
    target_soc: float = 0.8
    capacity_wh: float = 60_000.0
    plug_w: float = 11_000.0
    """What the wallbox can give."""
    accepted_w: float = 9_600.0
    """What the car's charger takes of it; the rest is to spare for compute."""
    battery_celsius: float = 24.0
    unplugged_at: datetime | None = None


def vehicle_signals(stay: Charging, now: datetime) -> dict[str, float | bool]:
    """Return the VSS signals of the car at an instant; charge rises linearly until the target."""
    plugged = stay.unplugged_at is None or now < stay.unplugged_at
    until = now if plugged else stay.unplugged_at
    assert until is not None
    hours = max(0.0, (until - stay.plugged_in_at).total_seconds() / 3600)
    charged = stay.soc_at_plug_in + hours * stay.accepted_w * _CHARGE_EFFICIENCY / stay.capacity_wh
    soc = min(stay.target_soc, charged) if stay.soc_at_plug_in < stay.target_soc else stay.soc_at_plug_in
    charging = plugged and soc < stay.target_soc
    missing_wh = max(0.0, stay.target_soc - soc) * stay.capacity_wh / _CHARGE_EFFICIENCY
    accepted_w = stay.accepted_w if charging else 0.0
    return {
        f"{_BATTERY}.Charging.IsChargingCableConnected": plugged,
        f"{_BATTERY}.Charging.IsCharging": charging,
        f"{_BATTERY}.Charging.TimeToComplete": 3600 * missing_wh / stay.accepted_w if charging else 0.0,
        f"{_BATTERY}.Charging.ChargeVoltage.Phase1": _VOLTS if plugged else 0.0,
        f"{_BATTERY}.Charging.ChargeCurrent.Phase1": accepted_w / _VOLTS,
        f"{_BATTERY}.Charging.MaximumChargingCurrent.Phase1": stay.plug_w / _VOLTS if plugged else 0.0,
        f"{_BATTERY}.StateOfCharge.Current": 100 * soc,
        f"{_BATTERY}.Temperature.Average": stay.battery_celsius,
        f"{_BATTERY}.CurrentPower": accepted_w * _CHARGE_EFFICIENCY,
        "Vehicle.Speed": 0.0,
    }
