"""Tonight, drawn from a scenario and its seed: cars, their luck, and the work. The same scenario, the same night."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch import windows
from fleetbatch.simulate.casting import Cast, Past, cast, past_of
from fleetbatch.simulate.charge import Plugs
from fleetbatch.simulate.scenario import (
    HARDWARE,
    HARDWARE_SHARE,
    MODEL_WEIGHT,
    POWER_W,
    RATES,
    WORKLOADS,
    Scenario,
)
from fleetbatch.windows.stays import Stays

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

KIND_WORKLOAD: Final = np.array([0, 0, 1, 1, 2])
"""Light and heavy pictures, light and heavy video, scenarios."""
KIND_SHARE: Final = np.array([0.3, 0.2, 0.2, 0.1, 0.2])
KIND_WEIGHT: Final = np.array([0.5, 2.0, 4.0, 8.0, 0.1]) / 8.0
"""Bytes of a unit beside one of the heaviest kind."""
CIRCUIT_W: Final = np.array([1_400.0, 2_300.0, 3_700.0, 7_400.0, 11_000.0])
CIRCUIT_SHARE: Final = np.array([0.05, 0.10, 0.10, 0.40, 0.35])
JOULES_PER_KWH: Final = 3.6e6
ROW_GROUPS_MAX: Final = 2_000
LAST_SHARE: Final = 0.1
"""An order's shards are alike but for its last: so many are last ones, of any size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The cars that are at a plug for some of the night, in order of id; seconds from the night's start."""

    car_id: npt.NDArray[np.uint64]
    absent_id: npt.NDArray[np.uint64]
    """Enrolled, and not at a plug tonight."""
    plugs: Plugs
    hw: Ints
    speed: Floats
    link: Floats
    """Bytes a second down."""
    consent: Bools
    cached: Bools
    """[cars, workloads], the models that it holds when the night begins."""
    bad: Bools
    crash_s: Floats
    """When it falls silent for the rest of the night, infinite for most."""
    outage_s: Floats
    """[cars, 2], from and until when it has no network."""
    gone_s: Floats
    """When it stops being of use: it leaves or crashes."""
    past: Stays
    """What is known of stays when the night begins; a dispatcher reads it once a day."""
    timezone: str

    def __len__(self) -> int:
        """Return the number of cars at a plug."""
        return len(self.car_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Tonight's shards in order of id; `deadline_s` counts from the night's start."""

    shard_id: npt.NDArray[np.uint64]
    workload: Ints
    priority: Ints
    deadline_s: Floats
    row_groups: Ints
    units: Floats
    """Of one row group, as are the bytes."""
    bytes: Floats

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self.shard_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A whole night before anything is decided."""

    scenario: Scenario
    fleet: Fleet
    work: Work

    def row_group_s(self, car: Ints, shard: Ints) -> tuple[Floats, Floats]:
        """Return seconds that each car takes for a row group of each shard, and for fetching one."""
        rate = np.array(RATES)[self.fleet.hw[car], self.work.workload[shard]] * self.fleet.speed[car]
        fetch = self.work.bytes[shard] / self.fleet.link[car]
        with np.errstate(divide="ignore"):
            return np.maximum(self.work.units[shard] / rate, fetch), fetch

    def load_s(self, car: Ints, shard: Ints) -> Floats:
        """Return seconds that each car takes to load the model of each shard."""
        return np.asarray(model_bytes(self.scenario)[self.work.workload[shard]] / self.fleet.link[car])


def draw(scenario: Scenario, past: Past | None = None) -> World:
    """Draw the night; without a past it reads the file of stays that the scenario names, or generates one."""
    chance = np.random.default_rng([scenario.seed, 4])
    tonight = cast(past_of(scenario) if past is None else past, scenario, chance)
    fleet = _fleet(tonight, scenario, chance)
    return World(scenario=scenario, fleet=fleet, work=_work(fleet, scenario, chance))


def _fleet(tonight: Cast, scenario: Scenario, chance: np.random.Generator) -> Fleet:
    count = len(tonight.arrive_s)
    ids = _ids(scenario.cars, chance)
    here = np.sort(chance.choice(len(ids), count, replace=False))
    hw = chance.choice(len(HARDWARE), count, p=HARDWARE_SHARE)
    leave = _storm(tonight, scenario, chance)
    plugs = _plugs(tonight, leave, hw, scenario, chance)
    crash = np.where(chance.random(count) < scenario.crash_share, chance.uniform(0, scenario.night_s, count), np.inf)
    outage = np.sort(chance.uniform(0, scenario.night_s, count))
    longs = np.where(chance.random(count) < scenario.outage_share, chance.exponential(900.0, count), 0.0)
    known = tonight.history.set_column(0, "car_id", pa.array(ids[here][tonight.history["car_id"].to_numpy()]))
    return Fleet(
        car_id=ids[here],
        absent_id=np.delete(ids, here),
        plugs=plugs,
        hw=hw,
        speed=np.exp(chance.normal(0.0, 0.12, count)),
        link=np.clip(np.exp(chance.normal(np.log(6e6), 0.8, count)), 0.3e6, 60e6),
        consent=chance.random(count) < scenario.consent_share,
        cached=np.random.default_rng([scenario.seed, 9]).random((count, len(WORKLOADS))) < scenario.cached_share,
        bad=chance.random(count) < scenario.bad_share,
        crash_s=crash,
        outage_s=np.stack([outage, outage + longs], axis=1),
        gone_s=np.minimum(leave, crash),
        past=windows.read_stays(known, scenario.starts_at),
        timezone=tonight.timezone,
    )


def _ids(count: int, chance: np.random.Generator) -> npt.NDArray[np.uint64]:
    ids = np.sort(chance.integers(1, 1 << 62, count + 16))
    ids = ids[np.append(True, ids[1:] != ids[:-1])]
    return np.sort(chance.choice(ids, count, replace=False)).astype(np.uint64)


def _storm(tonight: Cast, scenario: Scenario, chance: np.random.Generator) -> Floats:
    """Return when each car leaves; some leave together, which no forecast knew."""
    count = len(tonight.leave_s)
    at = scenario.night_s * chance.uniform(0.2, 0.8)
    hit = (chance.random(count) < scenario.storm_share) & (tonight.arrive_s < at)
    return np.where(hit, np.minimum(tonight.leave_s, at + chance.uniform(0.0, 1200.0, count)), tonight.leave_s)


def _plugs(tonight: Cast, leave: Floats, hw: Ints, scenario: Scenario, chance: np.random.Generator) -> Plugs:
    count = len(hw)
    circuit = chance.choice(CIRCUIT_W, count, p=CIRCUIT_SHARE)
    stated = tonight.leave_s + chance.normal(0.0, 4000.0, count)
    return Plugs(
        arrive_s=tonight.arrive_s,
        leave_s=leave,
        departs_s=np.where(chance.random(count) < scenario.stated_share, stated, np.nan),
        capacity_wh=chance.choice([40_000.0, 60_000.0, 77_000.0], count),
        soc=np.clip(chance.normal(0.45, 0.18, count), 0.05, 0.95),
        target=chance.choice([0.8, 1.0], count, p=[0.7, 0.3]),
        reserve=chance.choice([0.1, 0.2, 0.3], count),
        plug_w=circuit,
        accept_w=circuit * chance.uniform(0.85, 1.0, count),
        compute_w=np.array(POWER_W)[hw],
    )


def _work(fleet: Fleet, scenario: Scenario, chance: np.random.Generator) -> Work:
    """Return `load` times what the cars can do in the night, when each does a random kind that it may."""
    count = scenario.shards
    kind = chance.choice(len(KIND_SHARE), count, p=KIND_SHARE)
    size = np.where(chance.random(count) < LAST_SHARE, chance.uniform(0.1, 1.0, count), 1.0)
    units = size * scenario.load * capacity(fleet, scenario) / size.sum()
    row_groups = np.clip(np.rint(units / scenario.row_group_s), 1, ROW_GROUPS_MAX).astype(np.int64)
    late = chance.random(count) >= scenario.deadline_share
    return Work(
        shard_id=_ids(count, chance),
        workload=KIND_WORKLOAD[kind],
        priority=chance.choice(3, count, p=[0.1, 0.3, 0.6]),
        deadline_s=np.where(late, scenario.night_s, scenario.night_s / 2.0),
        row_groups=row_groups,
        units=units / row_groups,
        bytes=units * kind_bytes(scenario)[kind] / row_groups,
    )


def kind_bytes(scenario: Scenario) -> Floats:
    """Return the bytes of a unit of each kind; a row group of the heaviest is as large as the cut allows."""
    return np.asarray(KIND_WEIGHT * scenario.row_group_bytes / scenario.row_group_s)


def model_bytes(scenario: Scenario) -> Floats:
    """Return the bytes of each workload's model."""
    return np.asarray(MODEL_WEIGHT) * scenario.model_bytes


def capacity(fleet: Fleet, scenario: Scenario) -> float:
    """Return the units that the willing cars can do tonight when each does a random kind."""
    begins = np.clip(fleet.plugs.ready_s(), 0.0, scenario.night_s)
    here = np.maximum(np.minimum(fleet.gone_s, scenario.night_s) - begins, 0.0) * fleet.consent
    total = 0.0
    for kind, share in enumerate(KIND_SHARE):
        rate = np.array(RATES)[fleet.hw, KIND_WORKLOAD[kind]] * fleet.speed
        total += float(share * np.sum(np.minimum(rate, fleet.link / kind_bytes(scenario)[kind]) * here))
    return total
