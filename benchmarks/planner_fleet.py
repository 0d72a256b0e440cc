"""A seeded evening of a cell for the planner: cars with survival curves, and work for so many times their capacity.

Shares and spreads are the design's (commuters, visitors, short stays; three hardware classes; five kinds of work in
three workloads). One region, as a cell has. Times are seconds from now; the night lasts eight hours.
"""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import feather

from fleetbatch.contracts import conform
from fleetbatch.planner import Policy

Floats = npt.NDArray[np.float64]

NOW: Final = datetime(2026, 11, 22, 22, tzinfo=UTC)
NIGHT_S: Final = 8 * 3600.0
GRID_S: Final = 900.0
SLOTS: Final = 32
KIND_WORKLOAD: Final = np.array([0, 0, 1, 1, 2])
"""Light and heavy pictures, light and heavy video, scenarios."""
KIND_SHARE: Final = np.array([0.3, 0.2, 0.2, 0.1, 0.2])
BYTES_PER_UNIT: Final = np.array([0.5e6, 2e6, 4e6, 8e6, 0.1e6])
RATES: Final = ((0.5, 0.35, 0.0), (1.0, 1.0, 1.0), (3.0, 5.0, 8.0))
"""Units a second by hardware and workload; one unit is one second of the middle class."""
POWER_W: Final = (100.0, 160.0, 300.0)
EUR_PER_KWH: Final = (0.30, 0.26, 0.16, 0.12, 0.12, 0.18)
TARIFF_UNTIL_S: Final = tuple(slot * GRID_S for slot in (2, 6, 12, 16, 22, 96))
JOULES_PER_KWH: Final = 3.6e6
ALL_CONSENT: Final = 0.7
"""Share of owners who consent to all three workloads; the others to some."""
CHARGES_FIRST: Final = 0.4
"""Share of cars that are not ready yet."""
ENDS_EARLY: Final = 0.2
"""Share of cars whose charge must end before the night does."""
DUE_AT_THE_END: Final = 0.8
"""Share of shards that are due at the end of the night; the others at half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evening:
    """What a round is planned from."""

    cars: pa.Table
    shards: pa.Table
    policy: Policy


def evening(cars: int, *, shards_per_car: int = 5, load: float = 1.0, seed: int = 5, spread: float = 0.0) -> Evening:
    """Return a fleet and `load` times the work that it is expected to do in the night.

    `spread` is the standard deviation of the logarithm of bytes per unit inside a kind.
    """
    chance = np.random.default_rng(seed)
    fleet, capacity = _fleet(cars, chance)
    return Evening(cars=fleet, shards=_work(cars * shards_per_car, load * capacity, spread, chance), policy=policy())


def policy(**dials: Any) -> Policy:  # noqa: ANN401 any dial of the policy
    """Return the night's rates and tariff, and whatever dials are turned."""
    tariff = tuple(price / JOULES_PER_KWH for price in EUR_PER_KWH)
    return Policy(rates=RATES, power_w=POWER_W, price_per_j=(tariff,), price_until_s=TARIFF_UNTIL_S, **dials)


def main(cars: int, load: float, folder: Path) -> None:
    """Write an evening as two files; integers of one chunk a column, as a dispatcher has them."""
    made = evening(cars, load=load)
    for name, table in (("cars", made.cars), ("shards", made.shards)):
        feather.write_feather(conform(table, name), str(folder / f"{name}.arrow"), "uncompressed", chunksize=len(table))


def _fleet(count: int, chance: np.random.Generator) -> tuple[pa.Table, float]:
    """Return cars in order of id, and the units they are expected to do when each does a random kind that it can."""
    hw = chance.choice(3, count, p=[0.45, 0.45, 0.10]).astype(np.uint8)
    consent = np.where(chance.random(count) < ALL_CONSENT, 7, chance.integers(1, 8, count)).astype(np.uint32)
    speed = np.exp(chance.normal(0, 0.12, count)).astype(np.float32)
    link = np.clip(np.exp(chance.normal(np.log(6e6), 0.8, count)), 0.3e6, 60e6).astype(np.float32)
    ready = np.where(chance.random(count) < CHARGES_FIRST, chance.uniform(0, 2 * 3600, count), 0.0).astype(np.float32)
    limit = np.where(chance.random(count) < ENDS_EARLY, chance.uniform(2 * 3600, NIGHT_S, count), NIGHT_S).astype(
        np.float32
    )
    survival = _curves(count, chance)
    present = (survival[:, : SLOTS + 1].sum(axis=1, dtype=np.float64) - 127) / 255 * GRID_S
    capacity = 0.0
    for kind, share in enumerate(KIND_SHARE):
        workload = KIND_WORKLOAD[kind]
        able = (consent >> np.uint32(workload)) & 1
        rate = np.minimum(np.array(RATES)[hw, workload] * speed, link / BYTES_PER_UNIT[kind])
        capacity += float(np.sum(share * rate * able * present))
    nothing = np.zeros(count, np.float32)
    columns = {
        "car_id": np.sort(chance.choice(2**62, count, replace=False)).astype(np.uint64) + 1,
        "owner_id": chance.integers(1, 2**62, count).astype(np.uint64),
        "region": np.zeros(count, np.uint16),
        "price_zone": np.zeros(count, np.uint16),
        "hw": hw,
        "consent": consent,
        "cached": chance.integers(0, 8, count).astype(np.uint32),
        "speed": speed,
        "mem_B": np.full(count, 4 << 30, np.uint64),
        "link_down_Bps": link,
        "link_up_Bps": link,
        "ready_s": ready,
        "limit_s": limit,
        "survival": pa.FixedSizeListArray.from_arrays(pa.array(survival.ravel()), 97),
        "reputation": np.ones(count, np.float32),
        "deficit_units": nothing,
        "running_shard": pa.nulls(count, pa.uint64()),
        "running_row_group": pa.nulls(count, pa.uint16()),
        "free_in_s": nothing,
        "last_seen_s": nothing,
    }
    return pa.table(columns), capacity


def _curves(count: int, chance: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return curves in 1/255: a bell around the departure, and a small constant hazard."""
    habit = chance.choice(3, count, p=[0.6, 0.25, 0.15])
    middle = np.choose(
        habit, [chance.normal(8.5, 0.6, count), chance.normal(5.5, 1.2, count), chance.normal(1.6, 0.8, count)]
    )
    width = np.choose(
        habit, [chance.uniform(0.4, 1.0, count), chance.uniform(0.6, 1.5, count), chance.uniform(0.4, 1.0, count)]
    )
    hazard = chance.gamma(1.0, 0.02, count)
    hours = np.arange(97, dtype=np.float32) / 4
    curves = np.empty((count, 97), np.uint8)
    for first in range(0, count, 50_000):
        part = slice(first, first + 50_000)
        late = (hours - np.maximum(middle[part], 0.3)[:, None]) / width[part][:, None]
        stays = np.exp(-hazard[part][:, None] * hours) / (1.0 + np.exp(1.702 * late))
        curves[part] = np.rint(255 * stays / stays[:, :1])
    return curves


def _work(count: int, units: float, spread: float, chance: np.random.Generator) -> pa.Table:
    kind = chance.choice(len(KIND_SHARE), count, p=KIND_SHARE)
    size = np.exp(chance.normal(0, 0.5, count))
    work = size * units / size.sum()
    per_unit = BYTES_PER_UNIT[kind] * np.exp(chance.normal(0, spread, count) if spread else 0.0)
    columns = {
        "shard_id": np.sort(chance.choice(2**62, count, replace=False)).astype(np.uint64) + 1,
        "workload": KIND_WORKLOAD[kind].astype(np.uint8),
        "work_units": work,
        "size_B": np.rint(work * per_unit).astype(np.uint64),
        "row_groups": chance.integers(6, 25, count).astype(np.uint16),
        "rg_next": np.zeros(count, np.uint16),
        "region": np.zeros(count, np.uint16),
        "hw_mask": np.full(count, 255, np.uint8),
        "mem_B": np.full(count, 1 << 30, np.uint64),
        "priority": chance.choice(3, count, p=[0.1, 0.3, 0.6]).astype(np.uint8),
        "deadline_s": np.where(chance.random(count) < DUE_AT_THE_END, NIGHT_S, NIGHT_S / 2).astype(np.float32),
        "replicas": np.ones(count, np.uint8),
        "held_by": _nobody(count),
    }
    return pa.table(columns)


def _nobody(count: int) -> Any:  # noqa: ANN401 the stubs cannot say it
    """Return so many empty lists."""
    offsets: Any = pa.array(np.zeros(count + 1, np.int32))
    values: Any = pa.array(np.zeros(0, np.uint64))
    return pa.ListArray.from_arrays(offsets, values)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
