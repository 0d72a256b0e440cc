"""`fleetbatch windows`: how well the length of stays is forecast."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fleetbatch.cli.show import print_json, print_rows, print_scores
from fleetbatch.errors import RejectedError

forecasts = typer.Typer(help="Idle windows: how long cars stay plugged in.", no_args_is_help=True)


@forecasts.callback()
def only_subcommands() -> None:
    """Keep `backtest` a subcommand although it is the only one."""


@forecasts.command()
def backtest(
    *,
    sessions: Annotated[Path, typer.Option(help="Parquet file of plug-in sessions, history and later ones.")],
    train_until: Annotated[str, typer.Option(help="Sessions that begin from here on are scored, YYYY-MM-DD.")],
    source: Annotated[str, typer.Option(help="Which sites of the file.")] = "norway12",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Score baselines and ladder on later sessions, without a look ahead."""
    import pyarrow.compute as pc

    from fleetbatch.windows.backtest import backtest as run

    try:
        cut = datetime.strptime(train_until, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        summary = f"--train-until {train_until}: not a date; expected YYYY-MM-DD"
        raise RejectedError(summary) from error
    console = Console(stderr=True, highlight=False, markup=False)
    scores = run(sessions, cut, source=source, tell=console.print)
    if json:
        print_json(scores.summary)
    else:
        print_scores(scores.table)
        for model in scores.strata["model"].unique().to_pylist()[-2:]:
            rows = scores.strata.filter(pc.field("model") == model).drop_columns(["model"])
            print_rows(rows, f"\n{model}, by stratum")
