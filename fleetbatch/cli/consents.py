"""`fleetbatch consent`: whether what owners said is kept as they said it."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from fleetbatch.cli.cars import car_of
from fleetbatch.cli.owners import HOME, Home, Json
from fleetbatch.cli.show import print_json
from fleetbatch.errors import RejectedError

consents = typer.Typer(help="What owners agreed to.", no_args_is_help=True)


@consents.callback()
def _group() -> None:
    """Keep `verify` a word of its own: with one command typer would take its place."""


@consents.command()
def verify(
    car: Annotated[str, typer.Argument(metavar="[CAR]", help="Sixteen hex digits; all cars without it.")] = "",
    *,
    statement: Annotated[
        Path | None, typer.Option(help="A statement that an owner saved as JSON; no deployment is asked.")
    ] = None,
    receipt: Annotated[
        list[str] | None, typer.Option(help="With --statement: a `sha256` that /v1/consent once answered; repeatable.")
    ] = None,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Recompute the chains of consent; name the first decision that was changed, moved or taken away, and exit 2."""
    from fleetbatch.cli.commands import settings_file
    from fleetbatch.settings import load_settings
    from fleetbatch.steps.consents import verify_ledgers, verify_statement

    if statement is None and receipt:
        summary = "--receipt is looked for in a statement: name its file with --statement"
        raise RejectedError(summary)
    if statement is not None and car:
        summary = "a statement is of one car: leave CAR out, or --statement"
        raise RejectedError(summary)
    if statement is not None:
        found = verify_statement(statement, receipt or [])
    else:
        found = verify_ledgers(load_settings(settings_file(home)), car_of(car) if car else None)
    if json:
        print_json(msgspec.to_builtins(found))
    if found.broken_cars:
        summary = f"the consents of {found.broken_cars} of {found.cars} cars are not as they were kept"
        raise RejectedError(summary, found.broken)
    if not json:
        typer.echo(f"{found.decisions} decisions of {found.cars} cars: every chain is whole")
