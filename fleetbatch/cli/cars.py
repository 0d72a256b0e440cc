"""`fleetbatch car`: what a car integrator runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fleetbatch.cli.show import print_json

if TYPE_CHECKING:
    from fleetbatch.runner.check import Finding

cars = typer.Typer(help="Cars: does this one work against its gateway?", no_args_is_help=True)
_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


@cars.callback()
def group() -> None:
    """Keep `car` a group, although it has one command."""


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


def _print(finding: "Finding") -> None:
    row = Table.grid(padding=(0, 2))
    row.add_column(width=8, style=_STYLES[finding.outcome])
    row.add_column(width=32)
    row.add_column()
    row.add_row(finding.outcome, finding.check, Text(finding.found))
    if finding.advice:
        row.add_row("", "", Text(f"-> {finding.advice}", style="italic"))
    Console(highlight=False).print(row)


def _facts(finding: "Finding") -> dict[str, Any]:
    facts = {"check": finding.check, "outcome": finding.outcome, "found": finding.found}
    return facts | ({"advice": finding.advice} if finding.advice else {})
