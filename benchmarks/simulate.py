"""Simulated nights against their bound: `python -m benchmarks.run simulate`.

`ours` is an overloaded night, `wrong curves` the same with one mean curve for every car. `80 % load` counts nights that
are complete without and with the cloud lane (`python benchmarks/simulate.py complete --nights 1000` for many);
`charging` lets every car compute whenever it may; `cells` splits the fleet by hash. A cell's whole night, and with it
the sum for a hundred cells, takes minutes: `python benchmarks/simulate.py night --cars 1000000 --cells 100`; so does a
night of real agents and machines: `python benchmarks/simulate.py night --exact`.
"""

import argparse
import math
import resource
import sys
import time
from dataclasses import replace

from benchmarks.run import Bench, Subject, tell
from fleetbatch.simulate import Scenario, simulate, summary
from fleetbatch.simulate.casting import past_of
from fleetbatch.simulate.cells import split
from fleetbatch.simulate.charging import LATE_S, draw_stays, live
from fleetbatch.simulate.lives import Lives
from fleetbatch.simulate.night import Moment
from fleetbatch.simulate.night import live as lived
from fleetbatch.simulate.rounds import Dispatcher
from fleetbatch.simulate.tally import realised_value
from fleetbatch.simulate.world import World, draw

BENCH = Bench(
    name="simulate",
    subjects=(
        Subject(name="ours", script="benchmarks/simulate.py", arguments=("night",)),
        Subject(name="wrong curves", script="benchmarks/simulate.py", arguments=("night", "--believed", "flat")),
        Subject(name="80 % load", script="benchmarks/simulate.py", arguments=("complete",)),
        Subject(name="charging", script="benchmarks/simulate.py", arguments=("charges",)),
        Subject(name="cells", script="benchmarks/simulate.py", arguments=("split", "--cells", "10")),
    ),
    rounds=1,
)
CAR_NIGHTS = 1_000_000
BUSY = Scenario(cars=20_000, shards=163_000, load=1.3, exact=False)
"""Shards of 20 minutes on a car of the middle class, as the cut makes them."""
EASY = Scenario(
    cars=1_000,
    shards=5_250,
    load=0.8,
    plugged_share=0.35,
    stated_share=0.0,
    exact=False,
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("night", "complete", "charges", "split"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nights", type=int, default=20)
    parser.add_argument("--cars", type=int, default=20_000)
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--believed", default="honest")
    parser.add_argument("--exact", action="store_true", help="every car an agent, every shard a machine")
    told = parser.parse_args()
    {"night": one_night, "complete": many_nights, "charges": all_charges, "split": split_night}[told.what](told)


def busy(told: argparse.Namespace) -> Scenario:
    """Return an overloaded night of as many cars as are asked for."""
    shards = round(told.cars * BUSY.shards / BUSY.cars)
    return replace(BUSY, cars=told.cars, shards=shards, seed=told.seed, believed=told.believed, exact=told.exact)


def one_night(told: argparse.Namespace) -> None:
    """Measure one overloaded night; with more cells than one, say what so many of it come to."""
    started, on_the_wall = time.process_time(), time.monotonic()
    figures = summary(simulate(busy(told), told=progress))
    for name in ("realised_share", "waste_share", "gap_mean"):
        tell(name, figures[name], "share")
    tell("high_priority_done", figures["done_share_by_priority"][0], "share")
    tell("fetching_share", figures["fetch_s"] / figures["busy_s"], "share")
    tell("loading_share", figures["loading_s"] / figures["busy_s"], "share")
    tell("carbon_g_per_unit", figures["carbon_g_per_unit"], "g")
    tell("idle_share", figures["idle_s"] / figures["able_s"], "share")
    tell("charges_later", figures["charges_later"], "cars")
    tell("pieces_verified", figures["pieces_verified"], "pieces")
    spent, peak_mb = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tell("night_cpu_s", spent, "s")
    tell("night_wall_s", time.monotonic() - on_the_wall, "s")
    tell("peak_mb", peak_mb, "MB")
    if told.cells > 1:
        extrapolate(told, spent, figures["rounds"], peak_mb)


def extrapolate(told: argparse.Namespace, spent: float, rounds: int, peak_mb: float) -> None:
    """Add up cells that share nothing: so many times the night that was measured."""
    total = told.cells * spent
    print(
        f"{told.cells} cells x {told.cars:,} cars = {told.cells * told.cars:,} cars; "
        f"{told.cells} x {spent:.0f} CPU s = {total:,.0f} CPU s = {total / 3600:.1f} core hours a night; "
        f"a round {spent / rounds:.1f} CPU s a cell; {told.cells} x {peak_mb / 1024:.1f} GB",
        file=sys.stderr,
    )
    tell("cells_cpu_h", total / 3600, "core hours")
    tell("cell_round_cpu_s", spent / rounds, "s")


def progress(moment: Moment) -> None:
    """Say how far a long night is."""
    print(f"{moment.at_s / 3600:5.2f} h: {moment.planned.pieces:,} pieces", file=sys.stderr, flush=True)


def split_night(told: argparse.Namespace) -> None:
    """Measure what a fleet loses when it is split by hash: the first plan of the night, and the whole night."""
    world = draw(busy(told))
    cells = split(world, told.cells)
    whole, parts = _first_plan(world), sum(_first_plan(cell) for cell in cells)
    tell("cells", told.cells, "cells")
    tell("cells_plan_loss", 1.0 - parts / whole, "share")
    value = realised_value(lived(world, Lives(world)))
    tell("cells_night_loss", 1.0 - sum(realised_value(lived(cell, Lives(cell))) for cell in cells) / value, "share")


def _first_plan(world: World) -> float:
    """Return the certified value of a night's first round."""
    return Dispatcher(world).run_round(Lives(world).standing(0.0, -math.inf), 0.0).value


def many_nights(told: argparse.Namespace) -> None:
    """Count the nights that are complete at the deadline, without and with the cloud lane; they share a past.

    A night of which the lane took nothing is the same night without it, so that only the others are lived twice.
    """
    past, alone, helped, least, cloud = past_of(EASY), 0, 0, 1.0, 0.0
    for number, seed in enumerate(range(told.seed, told.seed + told.nights), start=1):
        figures = summary(simulate(replace(EASY, seed=seed, cloud=True), past=past))
        plain = figures if not figures["cloud_units"] else summary(simulate(replace(EASY, seed=seed), past=past))
        helped, alone = helped + bool(figures["complete"]), alone + bool(plain["complete"])
        least, cloud = min(least, figures["work_done_share"]), cloud + figures["cloud_units"] / figures["demand_units"]
        print(f"{number} nights: {alone} complete, {helped} with the cloud lane", file=sys.stderr, flush=True)
    tell("nights", told.nights, "nights")
    tell("nights_complete_by_cars", alone / told.nights, "share")
    tell("nights_complete", helped / told.nights, "share")
    tell("work_done_least", least, "share")
    tell("cloud_share", cloud / told.nights, "share")


def all_charges(told: argparse.Namespace) -> None:
    """Count the charges that compute made later; every car computes whenever it may, half with a stated departure."""
    started, broken, most = time.process_time(), 0, 0.0
    for seed in range(told.seed, told.seed + CAR_NIGHTS // told.cars):
        outcome = live(draw_stays(told.cars, seed, stated=seed % 2 == 0), seed=seed)
        later = outcome.behind_s > LATE_S
        broken += int((later | outcome.missed | outcome.drained | outcome.restless).sum())
        most = max(most, float(outcome.behind_s.max()))
        print(f"seed {seed}: {broken} later, {most:.2f} s behind at most", file=sys.stderr, flush=True)
    tell("car_nights", CAR_NIGHTS // told.cars * told.cars, "car-nights")
    tell("charges_later", broken, "car-nights")
    tell("behind_most", most, "s")
    tell("charging_cpu_s", time.process_time() - started, "s")


if __name__ == "__main__":
    main()
