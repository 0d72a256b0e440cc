"""A round for those who hold polars frames; Arrow is what is planned with. Pure."""

from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from fleetbatch.planner.nouns import Round


@dataclass(frozen=True, slots=True, kw_only=True)
class FramedRound:
    """A round whose tables are frames too."""

    round: Round
    """The round itself, as it is verified, kept and asked; certificate and prices are there."""
    assignments: pl.DataFrame
    car_plan: pl.DataFrame
    unassigned: pl.DataFrame


def framed(found: Round) -> FramedRound:
    """Return the round with its tables as frames."""
    return FramedRound(
        round=found,
        assignments=pl.DataFrame(found.assignments),
        car_plan=pl.DataFrame(found.car_plan),
        unassigned=pl.DataFrame(found.unassigned),
    )


def as_table(rows: pa.Table | pl.DataFrame) -> pa.Table:
    """Return rows as an Arrow table, as they are; whether the contract holds is asked where they are read."""
    return rows.to_arrow() if isinstance(rows, pl.DataFrame) else rows
