"""`fleetbatch simulate`: a night of a fleet in virtual time, in figures and as a page."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fleetbatch.cli.show import print_facts, print_json

if TYPE_CHECKING:
    from fleetbatch.simulate.night import Moment

Believed = Literal["honest", "hopeful", "gloomy", "shuffled", "flat"]


def _progress(moment: "Moment") -> None:
    """Say in one line, again and again, how far the night is."""
    hours, minutes = divmod(round(moment.at_s / 60.0), 60)
    line = f"{hours:2}:{minutes:02} h: {moment.plugged:,} cars plugged in, {moment.holding:,} at work"
    typer.echo(f"\r{line:<70}", nl=False, err=True)


def simulate(  # noqa: PLR0913 # one option each
    *,
    cars: Annotated[int, typer.Option(help="Enrolled cars; a third to a half of them is at a plug.", min=1)] = 2_000,
    shards: Annotated[int, typer.Option(help="Shards of the night; eight a car are 20 minutes each.", min=1)] = 16_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same night.", min=0)] = 1,
    load: Annotated[float, typer.Option(help="Work over what the cars at the plugs can do.")] = 1.3,
    hours: Annotated[float, typer.Option(help="Length of the night.")] = 8.0,
    replan_min: Annotated[float, typer.Option(help="Minutes between two rounds.")] = 15.0,
    stays: Annotated[Path | None, typer.Option(help="A file of charging sessions instead of a generated past.")] = None,
    believed: Annotated[Believed, typer.Option(help="What the planner is told of stays.")] = "honest",
    cloud: Annotated[bool, typer.Option("--cloud", help="Let trusted machines finish what cars do not.")] = False,
    report: Annotated[Path | None, typer.Option(help="A folder for the night's page.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Simulate a night of a fleet that drives the real rooms: forecasts, rounds, leases, charging, failures."""
    from fleetbatch.simulate import Scenario, night_page, simulate, summary

    scenario = Scenario(
        cars=cars,
        shards=shards,
        seed=seed,
        load=load,
        hours=hours,
        replan=timedelta(minutes=replan_min),
        stays=stays,
        believed=believed,
        cloud=cloud,
    )
    night = simulate(scenario, told=_progress if sys.stderr.isatty() else None)
    figures = summary(night)
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
        (report / "night.html").write_text(night_page(night, figures))
    if json:
        print_json(figures)
        return
    print_facts({name: value for name, value in figures.items() if not isinstance(value, dict)}, json=False)
    if report is not None:
        typer.echo(f"page: {report / 'night.html'}")
