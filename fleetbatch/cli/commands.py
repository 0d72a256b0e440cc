"""All commands, a function each; the work is done by the doors and rooms that they call."""

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from fleetbatch.cli.cars import cars as cars_app
from fleetbatch.cli.consents import consents
from fleetbatch.cli.forecasts import forecasts
from fleetbatch.cli.models import models
from fleetbatch.cli.operating import orders
from fleetbatch.cli.owners import credits_app, owners
from fleetbatch.cli.show import print_json, print_summary
from fleetbatch.cli.simulating import simulate
from fleetbatch.errors import RejectedError

app = typer.Typer(
    name="fleetbatch",
    help="Dependable batch computing on parked cars.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(cars_app, name="car")
app.add_typer(models, name="model")
app.add_typer(orders, name="order")
app.add_typer(forecasts, name="windows")
app.add_typer(owners, name="owner")
app.add_typer(consents, name="consent")
app.add_typer(credits_app, name="credits")
app.command()(simulate)

Home = Annotated[
    Path,
    typer.Option(help="Where the laptop's deployment keeps its store, keys and logs.", envvar="FLEETBATCH_HOME"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
HOME = Path(".fleetbatch")


@app.command()
def night(  # noqa: PLR0913 # one option each
    *,
    home: Home = HOME,
    images: Annotated[Path | None, typer.Option(help="Your own pictures: a folder, read with its subfolders.")] = None,
    video: Annotated[Path | None, typer.Option(help="Your own videos: a folder, read with its subfolders.")] = None,
    every_s: Annotated[float, typer.Option(help="Look at a frame of your videos every so many seconds.")] = 1.0,
    model: Annotated[
        Path | None, typer.Option(help="Your own model: a bundle made by `fleetbatch model pack`.")
    ] = None,
    order: Annotated[str, typer.Option(help="The order to run: a file of dags/orders/, without .toml.")] = "overnight",
    night: Annotated[str | None, typer.Option(help="The night's date, YYYY-MM-DD; today by default.")] = None,
    cars: Annotated[int, typer.Option(help="How many cars take part.", min=0)] = 8,
    force: Annotated[
        bool, typer.Option("--force", help="Compute a published night again, as its next generation.")
    ] = False,
    incidents: Annotated[bool, typer.Option(help="Let an owner unplug and a car be killed in mid-shard.")] = True,
    json: Json = False,
) -> None:
    """Run one whole night on this machine: PostgreSQL, gateways, dispatchers, auditors, cars and Airflow."""
    from fleetbatch.local.night import run_night
    from fleetbatch.local.progress import Progress
    from fleetbatch.local.request import NightRequest

    request = NightRequest(
        home=home.resolve(),
        night=night or f"{datetime.now().astimezone():%Y-%m-%d}",
        order=order,
        images=images and images.resolve(),
        video=video and video.resolve(),
        every_s=every_s,
        model=model and model.resolve(),
        force=force,
        cars=cars,
        incidents=incidents,
    )
    progress = Progress()
    try:
        summary = run_night(request, progress)
    finally:
        progress.close()
    if json:
        print_json(summary)
    else:
        print_summary(summary)


@app.command()
def up(
    *,
    home: Home = HOME,
    cars: Annotated[int, typer.Option(help="How many cars are parked.", min=0)] = 8,
    port: Annotated[int, typer.Option(help="Where Airflow's UI listens on 127.0.0.1.")] = 8080,
) -> None:
    """Start Airflow's UI, gateways, dispatchers, auditors and cars to play with; Ctrl-C ends them all."""
    from fleetbatch.local.progress import Progress
    from fleetbatch.local.up import stay_up

    progress = Progress()
    try:
        stay_up(home.resolve(), cars=cars, port=port, progress=progress)
    finally:
        progress.close()


@app.command()
def results(
    order: Annotated[str, typer.Argument(help="The order whose table to open.")] = "overnight",
    *,
    home: Home = HOME,
    night: Annotated[str | None, typer.Option(help="One night only, YYYY-MM-DD.")] = None,
    json: Json = False,
) -> None:
    """List the published files of an order and how to open exactly these with polars, DuckDB and Spark."""
    from fleetbatch.cli.results import print_results, published_results

    found = published_results(settings_file(home), order, night)
    if json:
        print_json(found)
    else:
        print_results(found)


@app.command()
def energy(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet: zone, from_at, price_per_kwh, carbon_g_per_kwh.")],
    *,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Tell the dispatchers what electricity costs and emits, hour by hour; it replaces what they planned with."""
    from fleetbatch.cli.energy import load_energy

    lines = load_energy(settings_file(home), file)
    if json:
        print_json({"cells": lines})
    else:
        typer.echo("\n".join(lines))


@app.command()
def why(
    wanted: Annotated[str, typer.Argument(metavar="SHARD|CAR", help="Sixteen hex digits.")],
    *,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Say why a shard went to this car or to none, or why a car got nothing, from the stored rounds."""
    from fleetbatch.cli.rounds import explain_everywhere

    lines = explain_everywhere(settings_file(home), wanted)
    if json:
        print_json({"wanted": wanted, "why": lines})
    else:
        typer.echo("\n".join(lines))


@app.command()
def status(*, home: Home = HOME, json: Json = False) -> None:
    """Show every cell at a glance: shards, open leases, cars, the last round."""
    from fleetbatch.cli.status import deployment_status, print_status

    found = deployment_status(settings_file(home))
    if json:
        print_json(found)
    else:
        print_status(found)


@app.command()
def migrate(
    url_file: Annotated[Path, typer.Option(help="A file with the URL of a cell's database, as its owner.")],
) -> None:
    """Bring the database of a cell up to this version's schema; a second run changes nothing."""
    from fleetbatch.errors import RejectedError
    from fleetbatch.ledger.postgres import migrate as migrate_database

    try:
        url = url_file.read_text().strip()
    except OSError as error:
        summary = f"cannot read {url_file}: {error.strerror}"
        raise RejectedError(summary) from error
    applied = migrate_database(url)
    typer.echo("\n".join(f"applied {name}" for name in applied) or "up to date")


@app.command("airflow-settings")
def airflow_settings() -> None:
    """Print the two settings with which an existing Airflow finds the DAGs of this installation."""
    from fleetbatch.local.airflow import dags_folder

    folder = dags_folder()
    typer.echo(f"AIRFLOW__CORE__DAGS_FOLDER={folder}")
    typer.echo(f"AIRFLOW__CORE__PLUGINS_FOLDER={folder / 'plugins'}")


def settings_file(home: Path) -> Path:
    """Return the settings file: FLEETBATCH_SETTINGS for a deployment, else the laptop's; refuse a laptop without."""
    told = os.environ.get("FLEETBATCH_SETTINGS")
    if told is None and not (home / "settings.toml").is_file():
        summary = f"no night has run in {home.resolve()}: run `fleetbatch night`, or name another place with --home"
        raise RejectedError(summary)
    return Path(told or home / "settings.toml")
