"""What nobody could have beaten: the certificate's bound for somebody who knows when each car comes and leaves. Pure.

The planner's upper bound needs only P(still there); with curves of 0 and 1, from what really happened, it bounds every
policy, those included that guess right about the storm. Cars that crash count until then, bad ones not at all, and
nobody computes before he may: at the owner's reserve, and charged where the plug has no room. Fetching, whole row
groups and leases cost nothing here, so that no real night reaches it.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from fleetbatch import fleet as fleet_room
from fleetbatch import planner
from fleetbatch.contracts import conform
from fleetbatch.simulate.rounds import BELIEFS, measured_rates, policy_at
from fleetbatch.simulate.scenario import HARDWARE, POWER_W
from fleetbatch.simulate.telemetry import MEMORY_BYTES, NOBODY, Standing, ledger_cars, open_shards
from fleetbatch.simulate.world import World


def upper_bound(world: World) -> float:
    """Return the value, less energy, that no policy exceeds in this night."""
    now, untouched = world.scenario.starts_at, _untouched(world)
    shards_open = open_shards(world, untouched, now, 0.0)
    frame = fleet_room.frame(shards_open, HARDWARE)
    shards = planner.open_work(shards_open, ledger_cars(world, untouched, now), frame.kinds, BELIEFS, now=now)
    policy = policy_at(world.scenario, frame, measured_rates(), 0.0)
    power = dict(zip(HARDWARE, POWER_W, strict=True))
    policy = replace(
        policy,
        power_w=tuple(power[name] for name in frame.hardware),
        upsets_per_hour=0.0,
        buffer_worth=1.0,
    )
    return planner.plan_round(_clairvoyant(world, frame), shards, now, policy).certificate.upper_bound


def _clairvoyant(world: World, frame: fleet_room.Frame) -> pa.Table:
    """Return contract cars: who is there for certain from when until when, as fast as it really is."""
    fleet, night = world.fleet, world.scenario.night_s
    begins, ends = np.clip(fleet.plugs.ready_s(), 0.0, night), np.clip(fleet.gone_s, 0.0, night)
    some = np.flatnonzero(fleet.consent & ~fleet.bad & (begins < ends))
    rows, nothing = len(some), np.zeros(len(some), np.float32)
    hardware = np.array([frame.hardware_index(name) for name in HARDWARE], np.uint8)
    everything = np.uint32((1 << len(frame.kinds)) - 1)
    columns = {
        "car_id": fleet.car_id[some],
        "owner_id": fleet.car_id[some],
        "region": nothing.astype(np.uint16),
        "price_zone": nothing.astype(np.uint16),
        "hw": hardware[fleet.hw[some]],
        "consent": np.full(rows, everything),
        "cached": np.full(rows, everything),
        "speed": fleet.speed[some].astype(np.float32),
        "mem_B": np.full(rows, MEMORY_BYTES, np.uint64),
        "link_down_Bps": fleet.link[some].astype(np.float32),
        "link_up_Bps": fleet.link[some].astype(np.float32),
        "ready_s": begins[some].astype(np.float32),
        "limit_s": ends[some].astype(np.float32),
        "survival": pa.FixedSizeListArray.from_arrays(pa.array(np.full(rows * 97, 255, np.uint8)), 97),
        "reputation": np.ones(rows, np.float32),
        "deficit_units": nothing,
        "running_shard": pa.nulls(rows, pa.uint64()),
        "running_row_group": pa.nulls(rows, pa.uint16()),
        "free_in_s": nothing,
        "last_seen_s": nothing,
    }
    return conform(pa.table(columns), "cars")


def _untouched(world: World) -> Standing:
    cars, shards = len(world.fleet), len(world.work)
    none = np.zeros(0)
    return Standing(
        heard=none.astype(np.int64),
        heard_ago_s=none,
        plugged=none.astype(bool),
        willing=none.astype(bool),
        missing_wh=none,
        drawn_w=none,
        cached=world.fleet.cached,
        running=np.full(cars, NOBODY),
        holder=np.full(shards, NOBODY),
        open=np.ones(shards, bool),
        done=np.zeros(shards, np.int64),
        caught=np.zeros(cars, bool),
    )
