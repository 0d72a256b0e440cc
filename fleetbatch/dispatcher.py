"""Rounds for a cell: look at the parked cars, plan, check the plan, publish it; fenced by the ledger's lock.

`python -m fleetbatch.dispatcher --settings FILE --cell NAME`. One dispatcher of a cell plans at a time; others wait for
its lock to run out. Whatever fails fails one round: it is logged, and the next one starts anew.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded; its matrices here are small
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import logging
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from fleetbatch import fleet, layout, planner, windows
from fleetbatch.contracts import empty
from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.ledger.messages import FencedOff, PlannerLock
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.logs import log_to_stderr, say
from fleetbatch.settings import cell_named, load_settings
from fleetbatch.store import Store, open_store
from fleetbatch.units import CellName, RoundId
from fleetbatch.workloads import row_seconds

EXIT_REJECTED: Final = 2
GRAMS_PER_TONNE: Final = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Dials:
    """How a dispatcher is turned."""

    round_every: timedelta = timedelta(minutes=15)
    publish_at_least_every: timedelta = timedelta(minutes=15)
    """An unchanged round is published again after so long, so that `why` is answered from fresh tables."""
    timezone: str = "UTC"
    """Of the cell's cars: habits follow local time."""
    rounds_kept: int = 500
    """Whose tables are kept for `why`."""
    policy: planner.Policy = field(default_factory=lambda: planner.Policy(rates=(), power_w=()))
    """Rates and powers are filled in from what is measured."""
    beliefs: planner.Beliefs = field(default_factory=lambda: planner.Beliefs(row_units=row_seconds()))
    snapshot: fleet.Dials = field(default_factory=fleet.Dials)
    energy_zone: str = ""
    """Whose rows of contract `energy` the policy follows; none without a name."""
    turns_over: timedelta = timedelta(days=7)
    """What owners got in so long decides whose turn it is among equal cars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the ledger holds; the shards are read after the cars."""

    cars: pa.Table
    open_shards: pa.Table
    rates: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A round with the tables that it was made from."""

    cars: pa.Table
    excluded: pa.Table
    shards: pa.Table
    policy: planner.Policy
    round: planner.Round
    forecast: Mapping[str, int]
    """How many cars were forecast by each level of contract `idle_windows`."""

    def tables(self) -> Mapping[str, pa.Table]:
        """Return what is kept under layout.round_table."""
        r = self.round
        return {
            "cars": self.cars,
            "shards": self.shards,
            "excluded": self.excluded,
            "assignments": r.assignments,
            "unassigned": r.unassigned,
            "car_plan": r.car_plan,
            "certificate": r.certificate.priorities,
            "prices": r.certificate.prices,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a dispatcher remembers between rounds; all of it is found again after a restart."""

    newest: pl.DataFrame = field(default_factory=fleet.nothing_heard)
    telemetry_seen: frozenset[str] = frozenset()
    serving: windows.Serving = field(default_factory=windows.nothing_served)
    """The day's past stays, and the model that forecasts with them."""
    model_bytes: Mapping[str, int] = field(default_factory=dict)
    """Sizes of the bundles that open orders need, by hash."""
    energy: pa.Table = field(default_factory=lambda: empty("energy"))
    owed: pa.Table = field(default_factory=lambda: pa.table({"car_id": [], "deficit_units": []}))
    """planner.owed_units of the day on which they were counted."""
    owed_on: date = date.min
    offered: pa.Table | None = None
    published_at: datetime | None = None


class Dispatcher:
    """A cell's ledger and store, and the memory of one process."""

    def __init__(self, cell: CellName, ledger: PostgresLedger, store: Store, dials: Dials) -> None:
        """Start with nothing heard."""
        self.cell, self.ledger, self.store, self.dials = cell, ledger, store, dials
        self.memory, self.asked = Memory(), False
        self.lock: PlannerLock | None = None

    def run_round(self, *, now: datetime) -> RoundId | None:
        """Plan what the parked cars do next and publish it; None when nothing new is to be said or another plans.

        Raises TransientError when ledger or store do not answer, RejectedError when the tables do not fit together.
        """
        before, self.lock = self.lock, self.ledger.lock_planner(self.cell)
        if self.lock != before or not self.asked:
            say("planning" if self.lock else "waiting for the planner's lock", lock=self.lock)
            self.memory, self.asked = replace(self.memory, offered=None), True
        if self.lock is None:
            return None
        self.ledger.finish_giving_up()  # what somebody began who was interrupted
        self.ledger.add_up_rates()
        self.memory = remember(self.memory, self.store, self.cell, now=now)
        seen = Seen(cars=self.ledger.cars(), open_shards=self.ledger.open_shards(), rates=self.ledger.rates())
        self.memory = with_turns(self.memory, self.ledger, seen.cars, self.dials, now=now)
        sizes = planner.model_sizes(self.store, seen.open_shards, self.memory.model_bytes)
        energy = planner.energy_of(self.store, self.cell, self.dials.energy_zone)
        self.memory = replace(self.memory, model_bytes=sizes, energy=energy)
        planned = plan(seen, self.memory, self.dials, now=now)
        offers = planner.offers_of(planned.round)
        if not _news(self.memory, offers, self.dials, now=now):
            return None
        return self._publish(self.lock, planned, offers, now=now)

    def let_go(self) -> None:
        """Give the planner's lock back, so that another dispatcher need not wait for it to run out."""
        if self.lock is not None:
            self.ledger.unlock_planner(self.lock)
            self.lock = None

    def _publish(self, lock: PlannerLock, planned: Planned, offers: pa.Table, *, now: datetime) -> RoundId:
        r = planned.round
        stats: dict[str, Any] = {"planner": r.planner, **r.stats, **r.certificate.numbers()}
        stats |= {"priced": any(map(any, planned.policy.price_per_j))}
        stats |= {"forecast": dict(planned.forecast), "forecast_reason": self.memory.serving.tonight.reason}
        round_id = self.ledger.write_round(lock, offers, stats, given_away=planner.given_away(planned.cars, r))
        self.memory = replace(self.memory, offered=offers, published_at=now)
        name = layout.round_name(now, round_id)
        planner.keep(self.store, self.cell, name, planned.tables(), rounds_kept=self.dials.rounds_kept)
        say("round", round=round_id, offers=offers.num_rows, excluded=planned.excluded.num_rows, **stats)
        return round_id


def plan(seen: Seen, memory: Memory, dials: Dials, *, now: datetime) -> Planned:
    """Compose the rooms: signals, histories and open shards become a checked round. Pure."""
    seen = replace(seen, cars=fleet.as_held(seen.cars, seen.open_shards))
    hardware_seen: list[str] = memory.newest["hardware_class"].to_list()
    frame = fleet.frame(seen.open_shards, hardware_seen)
    shards = planner.open_work(seen.open_shards, seen.cars, frame.kinds, dials.beliefs, now=now)
    models = tuple(float(memory.model_bytes.get(model, 0)) for _, model, _ in frame.kinds)
    beliefs = planner.as_registered(dials.beliefs, seen.open_shards, frame.kinds)
    policy = replace(dials.policy, model_bytes=models)
    policy = planner.measured_policy(policy, seen.rates, frame.kinds, frame.hardware, beliefs)
    policy = planner.with_powers(policy, memory.newest, frame.hardware)
    until_s = float(np.max(shards["deadline_s"].to_numpy(), initial=0.0))
    policy = planner.with_energy(policy, memory.energy, dials.energy_zone, now=now, until_s=until_s)
    plugged, serving = fleet.plugged(memory.newest, dials.timezone), memory.serving
    ahead = windows.predict(plugged, serving.past, now, forecaster=serving.tonight.forecaster)
    snapshot = fleet.snapshot(memory.newest, seen.cars, ahead, frame, dials.snapshot, now=now)
    cars = planner.with_turns(planner.with_free_times(snapshot.cars, shards, policy), memory.owed)
    checked = planner.verified(cars, shards, now, policy, plans=(planner.plan_round, planner.plan_simply))
    forecast = Counter(map(str, ahead["level"].to_pylist()))
    return Planned(
        cars=cars, excluded=snapshot.excluded, shards=shards, policy=policy, round=checked, forecast=forecast
    )


def remember(memory: Memory, store: Store, cell: CellName, *, now: datetime) -> Memory:
    """Return the memory after reading what is new: telemetry, the day's stays and model; broken files are logged."""
    heard = fleet.hear(store, cell, seen=memory.telemetry_seen, now=now)
    for broken in heard.broken:
        say("telemetry skipped", level=logging.ERROR, problem=broken)
    serving = windows.serve(store, cell, memory.serving, now=now)
    if serving is not memory.serving:
        _say_level(serving)
    newest = fleet.fold(memory.newest, heard.rows)
    return replace(memory, newest=newest, telemetry_seen=heard.seen, serving=serving)


def with_turns(memory: Memory, ledger: PostgresLedger, cars: pa.Table, dials: Dials, *, now: datetime) -> Memory:
    """Return the memory after counting, once a day, what owners are due."""
    if memory.owed_on == now.date():
        return memory
    since = now - dials.turns_over
    named = memory.newest.select("car_id", "hardware_class")
    known = pl.DataFrame(cars.select(["car_id", "owner_id"])).join(named, on="car_id", how="left")
    plugged = windows.plugged_since(memory.serving.past, since)
    owed = planner.owed_units(known.to_arrow(), ledger.credited(since.date()), plugged)
    return replace(memory, owed=owed, owed_on=now.date())


def _say_level(serving: windows.Serving) -> None:
    """Log who forecasts from now on and why; that a model has stepped aside is a warning."""
    tonight = serving.tonight
    model = "" if tonight.state is None else tonight.state.model_sha256
    aside = model != "" and tonight.forecaster is None
    level = logging.WARNING if aside else logging.INFO
    stays = len(serving.past.closed)
    say("forecasts", level=level, by=tonight.level, reason=tonight.reason, model=model[:12], stays=stays)


def _news(memory: Memory, offers: pa.Table, dials: Dials, *, now: datetime) -> bool:
    """Say whether the round differs from the one that gateways hold, or that one is old."""
    if memory.offered is None or memory.published_at is None:
        return True
    said = ["car_id", "seq", "shard_id"]
    old = now - memory.published_at >= dials.publish_at_least_every
    return old or not offers.select(said).equals(memory.offered.select(said))


def run(dispatcher: Dispatcher, stop: Event) -> None:
    """Run rounds until told to stop; a failed round is logged and the next one tries again."""
    while not stop.is_set():
        try:
            dispatcher.run_round(now=datetime.now(UTC))
        except FencedOff as error:
            say("fenced off", level=logging.WARNING, detail=str(error))
        except TransientError as error:
            say("not reached", level=logging.WARNING, detail=str(error))
        except RejectedError as error:
            say("round refused", level=logging.ERROR, detail=str(error))
        stop.wait(dispatcher.dials.round_every.total_seconds())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the dispatcher of a cell until SIGTERM or SIGINT; return the exit code."""
    given = _arguments(arguments)
    log_to_stderr("dispatcher", cell=given.cell)
    try:
        settings = load_settings(given.settings)
        cell = cell_named(settings, given.cell)
        store = open_store(settings.store, deployment_key=settings.deployment_key)
    except RejectedError as error:
        say("refused", level=logging.ERROR, detail=str(error))
        return EXIT_REJECTED
    every = timedelta(seconds=given.round_every_s)
    heard = fleet.Dials(silent_after_s=given.silent_after_s)
    policy = planner.Policy(rates=(), power_w=(), carbon_currency_per_g=cell.carbon_per_tonne / GRAMS_PER_TONNE)
    dials = Dials(
        round_every=every, timezone=cell.timezone, snapshot=heard, policy=policy, energy_zone=cell.energy_zone
    )
    with _until_told() as stop, PostgresLedger.open(cell.ledger_url) as ledger:
        dispatcher = Dispatcher(cell.name, ledger, store, dials)
        say("ready", round_every_s=given.round_every_s)
        run(dispatcher, stop)
        with suppress(TransientError):
            dispatcher.let_go()
    say("stopped")
    return 0


@contextmanager
def _until_told() -> Iterator[Event]:
    """Give an event that SIGTERM and SIGINT set; a round under way is finished first."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    yield stop


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fleetbatch.dispatcher", description="Plan rounds for the cars of a cell.")
    parser.add_argument("--settings", type=Path, required=True, help="the deployment's settings file")
    parser.add_argument("--cell", required=True, help="the cell to plan for")
    parser.add_argument("--round-every-s", type=float, default=Dials().round_every.total_seconds())
    silent = "seconds after which a car that was not heard gets no offer; several times the gateway's poll interval"
    parser.add_argument("--silent-after-s", type=float, default=fleet.Dials().silent_after_s, help=silent)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
