"""`fleetbatch car`: what a car integrator runs, and how a deployment lets cars in and out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fleetbatch.cli.show import print_json
from fleetbatch.errors import RejectedError
from fleetbatch.units import CarId, OwnerId, id_of

if TYPE_CHECKING:
    from fleetbatch.runner.check import Finding

cars = typer.Typer(help="Cars: let them in and out, and see that one works against its gateway.", no_args_is_help=True)
Home = Annotated[
    Path,
    typer.Option(help="Where the laptop's deployment keeps its store, keys and logs.", envvar="FLEETBATCH_HOME"),
]
HOME = Path(".fleetbatch")
_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


@cars.command()
def check(  # noqa: PLR0913 # one option each
    gateway: Annotated[str, typer.Argument(help="The cell's gateway, such as https://gateway.example.")],
    *,
    key: Annotated[Path, typer.Option(help="PEM file of the car's ES256 private key.")],
    signals: Annotated[str, typer.Option(help="Where vehicle signals come from: file:PATH.")],
    hardware: Annotated[Path | None, typer.Option(help="The hardware file that the runner is started with.")] = None,
    model: Annotated[Path | None, typer.Option(help="A bundle to compute with; the package's own by default.")] = None,
    work: Annotated[float, typer.Option(help="Take one real lease, waiting so many seconds for it.", min=0)] = 0.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """See that a runner, its signals and its network work; exit 1 when something must be repaired."""
    from fleetbatch.runner.check import check_car

    flags = ["--gateway", gateway, "--key", str(key), "--signals", signals]
    flags += ["--hardware", str(hardware)] if hardware else []
    findings = []
    for finding in check_car(flags, model=model, work_s=work):
        findings.append(finding)
        if not json:
            _print(finding)
    failed = sum(finding.outcome == "failed" for finding in findings)
    if json:
        print_json({"ok": not failed, "failed": failed, "findings": [_facts(finding) for finding in findings]})
    raise typer.Exit(1 if failed else 0)


@cars.command()
def enrol(
    keys: Annotated[list[Path], typer.Argument(metavar="KEY...", help="PEM files of the cars' public keys.")],
    *,
    cell: Annotated[str, typer.Option(help="The cell that they are of.")],
    owner: Annotated[str, typer.Option(help="Whose they are: sixteen hex digits, an owner's number of your choice.")],
    home: Home = HOME,
) -> None:
    """Let an owner's cars in, once; they work when the owner consents, from the next round on."""
    from fleetbatch.cli.commands import settings_file
    from fleetbatch.settings import load_settings
    from fleetbatch.steps.admitting import enrol_cars

    known = [_key(path) for path in keys]
    new = enrol_cars(load_settings(settings_file(home)), cell, known, owner_of(owner))
    for car, _ in known:
        typer.echo(f"{car:016x}")
    typer.echo(f"cell {cell}: {new} cars are new, {len(known) - new} were enrolled before", err=True)


@cars.command()
def revoke(
    car: Annotated[str, typer.Argument(metavar="CAR", help="Sixteen hex digits.")],
    *,
    why: Annotated[str, typer.Option("--why", help="The reason; the car hears it.")],
    home: Home = HOME,
) -> None:
    """Distrust a car for good, as when its key was lost: its lease ends and its tokens are void."""
    from fleetbatch.cli.commands import settings_file
    from fleetbatch.settings import load_settings
    from fleetbatch.steps.admitting import revoke_car

    cell = revoke_car(load_settings(settings_file(home)), car_of(car), why)
    typer.echo(f"cell {cell}: car {car} is revoked; its key opens nothing any more")


def car_of(text: str) -> CarId:
    """Return the car that a person typed; raise RejectedError when there can be none of that name."""
    return CarId(_number(text, "a car"))


def owner_of(text: str) -> OwnerId:
    """Return the owner that a person typed; raise RejectedError when there can be none of that number."""
    return OwnerId(_number(text, "an owner"))


def _number(text: str, what: str) -> int:
    found = id_of(text)
    if found is None:
        summary = f"{text!r} is not {what}; expected sixteen hex digits"
        raise RejectedError(summary)
    return found


def _key(path: Path) -> tuple[CarId, str]:
    from fleetbatch.car.identity import car_id_of, public_pem

    try:
        pem = path.read_bytes()
    except OSError as error:
        summary = f"cannot read {path}: {error.strerror}"
        raise RejectedError(summary) from error
    try:
        return car_id_of(pem), public_pem(pem)
    except RejectedError as error:
        summary = f"{path}: {error.summary}"
        raise RejectedError(summary) from error


def _print(finding: "Finding") -> None:
    row = Table.grid(padding=(0, 2))
    row.add_column(width=8, style=_STYLES[finding.outcome])
    row.add_column(width=34)
    row.add_column()
    row.add_row(finding.outcome, finding.check, Text(finding.found))
    if finding.advice:
        row.add_row("", "", Text(f"-> {finding.advice}", style="italic"))
    Console(highlight=False).print(row)


def _facts(finding: "Finding") -> dict[str, Any]:
    facts = {"check": finding.check, "outcome": finding.outcome, "found": finding.found}
    return facts | ({"advice": finding.advice} if finding.advice else {})
