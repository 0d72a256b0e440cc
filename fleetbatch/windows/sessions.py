"""A file of charging sessions, published ones for instance, as contract stays."""

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.errors import RejectedError

COLUMNS: Final = ("user_id", "plug_in", "plug_out", "tz")
"""Those that must be there; `site`, `source` and `censored` are looked at where there are such columns."""
INSTANTS: Final = ("plug_in", "plug_out")
FILLED: Final = ("user_id", "plug_in", "tz")
CAR_BITS: Final = 63
ROWS_NAMED: Final = 3
IN_SIGHT: Final = timedelta(hours=120)
"""A session without an end is taken to go on so long at most: as long as curves are known."""


def read_sessions(path: Path, source: str = "") -> pa.Table:
    """Return a Parquet file of sessions as contract `stays`: users stand for cars, an open session has no end.

    Columns: `user_id`, `site`, `plug_in`, `plug_out`, `tz`; others, such as the energy that is known only afterwards,
    are left alone. Where there is a column `source`, only sessions of that source count; where one is `censored`, its
    end is the last sign of it; of one without any end that is its user's next session, or five days on. A session told
    twice counts once, with its end if either has one; one that ends before it begins is left out. Raises RejectedError
    naming columns and rows.
    """
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        summary = f"cannot read sessions from {path}"
        raise RejectedError(summary, [str(error).partition("\n")[0]]) from error
    problems = _problems(frame)
    if problems:
        summary = f"{path} is not a file of sessions"
        raise RejectedError(summary, problems)
    frame = frame.filter(pl.col("source") == source) if source and "source" in frame.columns else frame
    once = _once(frame)
    if once.is_empty():
        summary = f"{path} holds no session" + (f" of source {source!r}" if source else "")
        raise RejectedError(summary)
    users = once.select(pl.col("user_id").unique().sort())
    users = users.with_columns(car_id=pl.col("user_id").map_elements(_car, return_dtype=pl.UInt64))
    stays = once.join(users, on="user_id").drop("user_id").sort("plugged_in_at", "car_id")
    return conform(stays.to_arrow(), "stays")


def _problems(frame: pl.DataFrame) -> list[str]:
    problems = [f"column `{name}` is missing" for name in COLUMNS if name not in frame.columns]
    problems += [
        f"column `{name}` is {frame[name].dtype}; expected instants with a time zone"
        for name in INSTANTS
        if name in frame.columns and not _is_instant(frame[name].dtype)
    ]
    for name in (name for name in FILLED if name in frame.columns):
        rows = frame[name].is_null().arg_true().to_list()
        if rows:
            shown = ", ".join(str(row) for row in rows[:ROWS_NAMED]) + (", ..." if len(rows) > ROWS_NAMED else "")
            problems.append(f"column `{name}` is empty in {len(rows)} rows, counted from 0: {shown}")
    return problems


def _is_instant(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.Datetime) and kind.time_zone is not None


def _once(frame: pl.DataFrame) -> pl.DataFrame:
    """Return one row a session, in the words of contract `stays` but for the user."""
    censored = pl.col("censored").fill_null(value=False) if "censored" in frame.columns else pl.lit(value=False)
    instants = pl.Datetime("us", "UTC")
    told = frame.select(
        pl.col("user_id").cast(pl.String),
        plugged_in_at=pl.col("plug_in").dt.convert_time_zone("UTC").cast(instants),
        last=pl.col("plug_out").dt.convert_time_zone("UTC").cast(instants),
        censored=censored,
        site_id=pl.col("site").cast(pl.String) if "site" in frame.columns else pl.lit(None, pl.String),
        timezone=pl.col("tz").str.replace(r"\(assumed\)$", ""),
    )
    once = told.group_by("user_id", "plugged_in_at").agg(
        unplugged_at=pl.col("last").filter(~pl.col("censored")).max(),
        seen_until=pl.col("last").filter(pl.col("censored")).max(),
        site_id=pl.col("site_id").min(),
        timezone=pl.col("timezone").min(),
    )
    again = pl.col("plugged_in_at").shift(-1).over("user_id", order_by="plugged_in_at")
    sight = pl.min_horizontal(again, pl.col("plugged_in_at") + IN_SIGHT)
    lost = pl.col("unplugged_at").is_null() & pl.col("seen_until").is_null()
    once = once.with_columns(seen_until=pl.when(lost).then(sight).otherwise(pl.col("seen_until")))
    return once.filter((pl.col("unplugged_at") > pl.col("plugged_in_at")).fill_null(value=True))


def _car(user: str) -> int:
    digest = hashlib.blake2b(user.encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> (64 - CAR_BITS)
