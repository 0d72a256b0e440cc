"""What a gateway would have heard and a ledger would hold at one moment of a simulated night, as their tables. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.simulate.charge import EFFICIENCY, VOLTS
from fleetbatch.simulate.scenario import HARDWARE, POWER_W, WORKLOADS
from fleetbatch.simulate.world import Bools, Floats, Ints, World

NOBODY: Final = -1
CLOUD: Final = -2
"""The holder of a shard that trusted machines compute."""
MEMORY_BYTES: Final = 8 << 30
CAUGHT: Final = 0.3
"""Reputation of a car whose answers were found wrong; half of it is enough to be left out."""
HEARD_EVERY_S: Final = 5 * 3600.0
_BATTERY: Final = "Vehicle.Powertrain.TractionBattery."
_CHARGING: Final = _BATTERY + "Charging."
_MOMENT: Final = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a night stands at the moment of a round."""

    heard: Ints
    """Places of the cars that said something since the last round."""
    heard_ago_s: Floats
    plugged: Bools
    """Of those heard, as are `willing` and `missing_wh`."""
    willing: Bools
    missing_wh: Floats
    drawn_w: Floats
    cached: Bools
    """[cars, workloads], the models that each car holds."""
    running: Ints
    """[cars], the shard under lease, NOBODY for none."""
    holder: Ints
    """[shards], the car, NOBODY or CLOUD."""
    open: Bools
    """[shards], ready or out."""
    done: Ints
    """[shards], row groups delivered."""
    caught: Bools
    """[cars], whose answers were found wrong."""


def signals(world: World, standing: Standing, now: datetime, *, unheard_s: float) -> pa.Table:
    """Return contract `signals`: a row for each car heard.

    Cars that plugged in longer ago than was listened for (`unheard_s`, before now) also have one from then, and every
    five hours after.
    """
    spoken = _spoken(world, standing, now)
    stayed = (now - world.scenario.starts_at).total_seconds() - world.fleet.plugs.arrive_s[standing.heard]
    fresh = np.flatnonzero(standing.plugged & (stayed < unheard_s) & (stayed > standing.heard_ago_s))
    earlier = []
    while len(fresh):
        at = _instants(now, -stayed[fresh])
        earlier.append(spoken.take(fresh).set_column(1, "at", at))
        stayed = stayed - HEARD_EVERY_S
        fresh = fresh[stayed[fresh] > standing.heard_ago_s[fresh]]
    return conform(pa.concat_tables([*earlier, spoken]), "signals")


def _spoken(world: World, standing: Standing, now: datetime) -> pa.Table:
    who, fleet = standing.heard, world.fleet
    plugs, rows = fleet.plugs, len(standing.heard)
    charging = standing.missing_wh > 0.0
    stored = standing.missing_wh * EFFICIENCY / plugs.capacity_wh[who]
    seconds = np.divide(
        3600.0 * standing.missing_wh, standing.drawn_w, out=np.zeros(rows), where=standing.drawn_w > 0.0
    )
    departs = plugs.departs_s[who]
    table: dict[str, Any] = {
        "car_id": fleet.car_id[who],
        "at": _instants(now, -standing.heard_ago_s),
        _CHARGING + "IsChargingCableConnected": standing.plugged,
        _CHARGING + "IsCharging": charging & standing.plugged,
        _CHARGING + "TimeToComplete": seconds,
        _BATTERY + "StateOfCharge.Current": 100.0 * (np.maximum(plugs.target[who], plugs.soc[who]) - stored),
        _BATTERY + "Temperature.Average": np.full(rows, 20.0),
        _BATTERY + "CurrentPower": standing.drawn_w * EFFICIENCY,
        _CHARGING + "ChargeVoltage.Phase1": np.full(rows, VOLTS),
        _CHARGING + "ChargeCurrent.Phase1": standing.drawn_w / VOLTS,
        _CHARGING + "MaximumChargingCurrent.Phase1": plugs.plug_w[who] / VOLTS,
        "Vehicle.Speed": np.zeros(rows),
        "willing": standing.willing,
        "unwilling_reason": pa.array(["charger_busy: waits for its charge"] * rows, mask=standing.willing),
        "hardware_class": _names(HARDWARE, fleet.hw[who]),
        "provider": _names(("sim",), np.zeros(rows, np.int64)),
        "threads": np.ones(rows, np.int32),
        "memory_bytes": np.full(rows, MEMORY_BYTES, np.int64),
        "power_w": np.array(POWER_W)[fleet.hw[who]],
        "link_down_bytes_per_s": fleet.link[who],
        "reserve_soc": plugs.reserve[who],
        "departure_at": _instants(world.scenario.starts_at, departs),
        "cached_models": _held(standing.cached[who]),
        "workloads": pa.array([list(WORKLOADS)] * rows, pa.list_(pa.string())),
        "runner_version": _names(("sim",), np.zeros(rows, np.int64)),
    }
    return pa.table(table)


def ledger_cars(world: World, standing: Standing, now: datetime) -> pa.Table:
    """Return the ledger's cars: all that are enrolled, at a plug or not, in order of id."""
    fleet = world.fleet
    here, absent = len(fleet), len(fleet.absent_id)
    none = standing.running < 0
    shard = world.work.shard_id[np.maximum(standing.running, 0)] if len(world.work) else np.zeros(here, np.uint64)
    done = standing.done[np.maximum(standing.running, 0)] if len(world.work) else np.zeros(here, np.int64)
    mine = pa.table(
        {
            "car_id": fleet.car_id,
            "owner_id": fleet.car_id,
            "consent": fleet.consent,
            "revoked": np.zeros(here, bool),
            "reputation": np.where(standing.caught, CAUGHT, 1.0),
            "running_shard": pa.array(shard, mask=none),
            "running_done_through": pa.array(done, mask=none),
            "last_beat_at": pa.array(np.full(here, _micros(now)), pa.int64(), mask=none).cast(_MOMENT),
        }
    )
    others = pa.table(
        {
            "car_id": fleet.absent_id,
            "owner_id": fleet.absent_id,
            "consent": np.ones(absent, bool),
            "revoked": np.zeros(absent, bool),
            "reputation": np.ones(absent),
            "running_shard": pa.nulls(absent, pa.uint64()),
            "running_done_through": pa.nulls(absent, pa.int64()),
            "last_beat_at": pa.nulls(absent, _MOMENT),
        }
    )
    return pa.concat_tables([mine, others])


def open_shards(world: World, standing: Standing, now: datetime, at_s: float) -> pa.Table:
    """Return the ledger's open shards, in order of id."""
    work = world.work
    rows = np.flatnonzero(standing.open)
    holder = standing.holder[rows]
    car = np.append(world.fleet.car_id, np.uint64(0))[np.where(holder >= 0, holder, len(world.fleet))]
    units = work.units[rows] * work.row_groups[rows]
    workload = _words(WORKLOADS, work.workload[rows])
    return pa.table(
        {
            "shard_id": work.shard_id[rows],
            "workload": workload,
            "data_class": _words(("open",), np.zeros(len(rows), np.int64)),
            "model_sha256": workload,
            "row_groups": work.row_groups[rows],
            "done_through": standing.done[rows],
            "rows": np.rint(units).astype(np.int64),
            "work_units": units,
            "size_bytes": np.rint(work.bytes[rows] * work.row_groups[rows]).astype(np.int64),
            "priority": work.priority[rows],
            "deadline_at": _instants(now, work.deadline_s[rows] - at_s),
            "held_by_car": pa.array(car, mask=holder == NOBODY),
        }
    )


def _names(names: tuple[str, ...], codes: npt.NDArray[Any]) -> "pa.Array[Any]":
    return _words(names, codes).cast(pa.string())


def _words(names: tuple[str, ...], codes: npt.NDArray[Any]) -> "pa.Array[Any]":
    """Return names as a dictionary's, a byte each: what follows looks at each name once."""
    return pa.DictionaryArray.from_arrays(codes.astype(np.int8), pa.array(names, pa.string()))


def _held(cached: Bools) -> "pa.Array[Any]":
    """Return the names of the models that each car holds as a list."""
    sets = [[name for bit, name in enumerate(WORKLOADS) if number >> bit & 1] for number in range(1 << len(WORKLOADS))]
    which = np.packbits(cached, axis=1, bitorder="little")[:, 0].astype(np.int64)
    return pa.array(sets, pa.list_(pa.string())).take(which)


def _micros(instant: datetime) -> int:
    return round(instant.timestamp() * 1e6)


def _instants(from_: datetime, seconds: Floats) -> "pa.Array[Any]":
    """Return instants so many seconds after another, null where that is not a number."""
    unknown = np.isnan(seconds)
    micros = np.where(unknown, 0, np.rint(seconds * 1e6)).astype(np.int64) + _micros(from_)
    return pa.array(micros, mask=unknown).cast(pa.timestamp("us")).cast(_MOMENT)
