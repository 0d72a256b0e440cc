"""A file of charging sessions, published ones for instance, as contract stays."""

import hashlib
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa

from fleetbatch.contracts import conform
from fleetbatch.errors import RejectedError

COLUMNS: Final = ("user_id", "site", "plug_in", "plug_out", "tz")
CAR_BITS: Final = 63


def read_sessions(path: Path, source: str = "") -> pa.Table:
    """Return a Parquet file of sessions as contract `stays`: users stand for cars, an open session has no end.

    Columns: `user_id`, `site`, `plug_in`, `plug_out`, `tz`; others, such as the energy that is known only afterwards,
    are left alone. Where there is a column `source`, only sessions of that source count. A session told twice counts
    once, with its end if either has one; one that ends before it begins is left out. Raises RejectedError.
    """
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        summary = f"cannot read sessions from {path}"
        raise RejectedError(summary, [str(error).partition("\n")[0]]) from error
    problems = [f"column `{name}` is missing" for name in COLUMNS if name not in frame.columns]
    if problems:
        summary = f"{path} is not a file of sessions"
        raise RejectedError(summary, problems)
    frame = frame.filter(pl.col("source") == source) if source and "source" in frame.columns else frame
    once = frame.group_by("user_id", "plug_in").agg(
        pl.col("plug_out").max(), pl.col("site").first(), pl.col("tz").first()
    )
    once = once.filter((pl.col("plug_out") > pl.col("plug_in")).fill_null(value=True))
    if once.is_empty():
        summary = f"{path} holds no session" + (f" of source {source!r}" if source else "")
        raise RejectedError(summary)
    users = once.select(pl.col("user_id").unique().sort())
    users = users.with_columns(car_id=pl.col("user_id").map_elements(_car, return_dtype=pl.UInt64))
    stays = once.join(users, on="user_id").sort("plug_in", "car_id")
    table = stays.select(
        "car_id",
        site_id="site",
        plugged_in_at=pl.col("plug_in").dt.cast_time_unit("us"),
        unplugged_at=pl.col("plug_out").dt.cast_time_unit("us"),
        timezone=pl.col("tz").str.replace(r"\(assumed\)$", ""),
    )
    return conform(table.to_arrow(), "stays")


def _car(user: str) -> int:
    digest = hashlib.blake2b(user.encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> (64 - CAR_BITS)
