"""Who is at a plug tonight, from when until when, and what each did before: past stays play simulated cars. Pure.

A car is a person of the past on one evening of the night's weekday, moved by whole weeks to tonight and shaken by some
minutes, so that no two cars are alike. What the person did before that evening is the car's history.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.errors import RejectedError
from fleetbatch.simulate.scenario import TIMEZONE, Scenario
from fleetbatch.windows.history import generate_stays
from fleetbatch.windows.sessions import read_sessions

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

POOL_MAX: Final = 2_000
"""People whose past is generated; larger fleets cast them again on other evenings."""
EVENINGS_MAX: Final = 60
WEEK_S: Final = 7 * 86_400.0
HISTORY_S: Final = 6 * WEEK_S
SHAKEN_S: Final = 600.0
"""Standard deviation of what is added to a plug-in and to a departure."""
PERSON_S: Final = 1e11
"""Distance of two people on the one axis on which stays are searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """Closed stays by person, then begin; in seconds since 1970."""

    person: Ints
    begin_s: Floats
    end_s: Floats
    timezone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """The cars that are at a plug for some of the night; seconds from its start."""

    arrive_s: Floats
    leave_s: Floats
    history: pa.Table
    """Contract stays; `car_id` is the place of the car here. Tonight's stay is in it, with its end."""
    timezone: str


def past_of(scenario: Scenario) -> Past:
    """Return the past that the scenario names, or a generated one."""
    return read_past(_generated(scenario) if scenario.stays is None else read_sessions(scenario.stays))


def _generated(scenario: Scenario) -> pa.Table:
    """Return the past of a generated pool of people, up to two days after the night began."""
    count = min(scenario.cars, POOL_MAX)
    people = pa.table({"car_id": pa.array(np.arange(1, count + 1), pa.uint64()), "timezone": [TIMEZONE] * count})
    until = scenario.starts_at + timedelta(days=3)
    return generate_stays(people, until=until, days=80, seed=scenario.seed)


def read_past(stays: pa.Table) -> Past:
    """Return the closed stays of the commonest time zone; a cell has one."""
    frame = pl.from_arrow(stays.select(["car_id", "plugged_in_at", "unplugged_at", "timezone"]))
    assert isinstance(frame, pl.DataFrame)
    closed = frame.filter(pl.col("unplugged_at").is_not_null())
    if closed.is_empty():
        summary = "the night cannot be cast"
        raise RejectedError(summary, ["the past holds no stay that has ended"])
    timezone = str(
        closed["timezone"].value_counts().sort(["count", "timezone"], descending=[True, False])["timezone"][0]
    )
    rows = closed.filter(pl.col("timezone") == timezone).sort("car_id", "plugged_in_at", "unplugged_at")
    return Past(
        person=rows["car_id"].rank("dense").to_numpy().astype(np.int64) - 1,
        begin_s=rows["plugged_in_at"].dt.epoch("us").to_numpy() / 1e6,
        end_s=rows["unplugged_at"].dt.epoch("us").to_numpy() / 1e6,
        timezone=timezone,
    )


def cast(past: Past, scenario: Scenario, chance: np.random.Generator) -> Cast:
    """Cast the night's cars; raise RejectedError when nobody of the past was ever at a plug at that hour."""
    row, shift, share = _evenings(past, scenario)
    if not len(row):
        summary = "the night cannot be cast"
        raise RejectedError(summary, ["nobody in the past was at a plug at that hour of that weekday"])
    wanted = share if scenario.plugged_share is None else scenario.plugged_share
    picked = chance.integers(len(row), size=round(wanted * scenario.cars))
    row, shift = row[picked], shift[picked]
    start = scenario.starts_at.timestamp()
    shaken = shift + np.rint(chance.normal(0.0, SHAKEN_S, len(row)))
    arrive = np.minimum(past.begin_s[row] + shaken - start, scenario.night_s - 60.0)
    leave = past.end_s[row] + shift + np.rint(chance.normal(0.0, SHAKEN_S, len(row))) - start
    leave = np.maximum(leave, np.maximum(arrive, 0.0) + 600.0)
    history = _history(past, row, shaken, start + leave)
    return Cast(arrive_s=arrive, leave_s=leave, history=history, timezone=past.timezone)


def _evenings(past: Past, scenario: Scenario) -> tuple[Ints, Floats, float]:
    """Return stays that overlap an evening of the past, what moves each to tonight, and the share of people they are.

    A person with two stays in a night plays its first.
    """
    start = scenario.starts_at.timestamp()
    first, last = float(past.begin_s.min()) + HISTORY_S / 2, float(past.begin_s.max())
    back = [week * WEEK_S for week in range(int((start - first) // WEEK_S), 0, -1)]
    anchors = [start - one for one in back if first <= start - one <= last][-EVENINGS_MAX:]
    rows, shifts, people = [], [], 0
    for anchor in anchors:
        known = (past.begin_s > anchor - HISTORY_S) & (past.begin_s < anchor)
        people += len(np.unique(past.person[known]))
        here = np.flatnonzero((past.begin_s < anchor + scenario.night_s - 600.0) & (past.end_s > anchor + 600.0))
        here = here[np.unique(past.person[here], return_index=True)[1]]
        rows.append(here)
        shifts.append(np.full(len(here), start - anchor))
    if not rows:
        return np.zeros(0, np.int64), np.zeros(0), 0.0
    row = np.concatenate(rows)
    return row, np.concatenate(shifts), min(1.0, len(row) / max(people, 1))


def _history(past: Past, row: Ints, shaken_s: Floats, ends_at: Floats) -> pa.Table:
    """Return each car's stays up to tonight's, its own person's moved to tonight."""
    axis = past.person * PERSON_S + past.begin_s
    first = np.searchsorted(axis, past.person[row] * PERSON_S + past.begin_s[row] - HISTORY_S)
    count = row - first + 1
    car = np.repeat(np.arange(len(row)), count)
    offset = np.arange(len(car)) - np.repeat(np.cumsum(count) - count, count)
    source = first[car] + offset
    end = past.end_s[source] + shaken_s[car]
    tonight = offset == count[car] - 1
    end[tonight] = ends_at
    return conform(
        pa.table(
            {
                "car_id": car.astype(np.uint64),
                "plugged_in_at": _instants(past.begin_s[source] + shaken_s[car]),
                "unplugged_at": _instants(end),
                "timezone": pa.DictionaryArray.from_arrays(np.zeros(len(car), np.int8), pa.array([past.timezone])).cast(
                    pa.string()
                ),
            }
        ),
        "stays",
    )


def _instants(seconds: Floats) -> "pa.Array[Any]":
    return pa.array((seconds * 1e6).astype(np.int64)).cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
