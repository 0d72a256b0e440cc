"""`fleetbatch simulate`: a night of a fleet in virtual time, in figures and as a page."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fleetbatch.cli.show import print_facts, print_json
from fleetbatch.errors import RejectedError

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
    hours: Annotated[float, typer.Option(help="Length of the night, at least six minutes.", min=0.1)] = 8.0,
    replan_min: Annotated[float, typer.Option(help="Minutes between two rounds.", min=1, max=1440)] = 15.0,
    stays: Annotated[Path | None, typer.Option(help="A file of charging sessions instead of a generated past.")] = None,
    believed: Annotated[Believed, typer.Option(help="What the planner is told of stays.")] = "honest",
    carbon: Annotated[float, typer.Option(help="What a tonne of CO2 is worth avoiding, in EUR.", min=0.0)] = 0.0,
    model_mb: Annotated[
        float, typer.Option(help="Size of the largest model; half of the cars hold tonight's already.", min=0.0)
    ] = 150.0,
    cloud: Annotated[bool, typer.Option("--cloud", help="Let trusted machines finish what cars do not.")] = False,
    report: Annotated[Path | None, typer.Option(help="A folder for the night's page.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Simulate a night of a fleet that drives the real rooms: forecasts, rounds, leases, charging, failures."""
    from fleetbatch.simulate import Scenario, night_page, simulate, summary
    from fleetbatch.units import MIB

    scenario = Scenario(
        cars=cars,
        shards=shards,
        seed=seed,
        load=load,
        hours=hours,
        replan=timedelta(minutes=replan_min),
        stays=stays,
        believed=believed,
        carbon_eur_per_tonne=carbon,
        model_bytes=model_mb * MIB,
        cloud=cloud,
    )
    page = None if report is None else _page_in(report)
    night = simulate(scenario, told=_progress if sys.stderr.isatty() else None)
    figures = summary(night)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(night_page(night, figures))
    if json:
        print_json(figures)
        return
    print_facts({name: _told(value) for name, value in figures.items() if not isinstance(value, dict)}, json=False)
    if page is not None:
        typer.echo(f"page: {page}")


def _told(value: object) -> object:
    """Return a figure as a person reads it."""
    if isinstance(value, list):
        return ", ".join(f"{one:.4g}" for one in value)
    return f"{value:,.6g}" if isinstance(value, float) else value


def _page_in(folder: Path) -> Path:
    """Return the file of the page; raise RejectedError when it cannot be written, before a whole night is simulated.

    Nothing is left of the trial: a night that is interrupted leaves no folder either.
    """
    page, trial = folder / "night.html", folder / ".night.html"
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
        for one in missing:
            one.rmdir()
    except OSError as error:
        summary = f"cannot write the report to {page}: {error.strerror}"
        raise RejectedError(summary) from error
    return page
