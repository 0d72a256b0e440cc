"""A result file becomes one row of counts per shard, so that a night of any size is judged from a small table."""

import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import polars as pl
import pyarrow as pa

from fleetbatch.contracts import Contract, answer_columns, conform, contract
from fleetbatch.errors import RejectedError
from fleetbatch.nouns import StagedFile
from fleetbatch.store import Store
from fleetbatch.units import ShardId, shard_hex

_COUNTS = (
    "rows answers ids_unknown ids_double dead_rows nulls out_of_range labels_unknown audited_rows energy_wh".split()  # noqa: SIM905 # a list of names reads as a line
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileJob:
    """One staged file, and what it is measured against; it pickles, so that any machine of the engine may do it."""

    store: Store
    file: StagedFile
    contract: str
    manifest_key: str
    sources_key: str
    missing_key: str
    labels: tuple[str, ...] | None
    """Every value that the contract's headline column may have; None when they cannot be listed."""
    sample_rows: int
    """About how many rows of this file go into the sample for suites that users write; none when there is no suite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileProfile:
    """One row per shard of the file, and a uniform sample of its rows."""

    shards: pa.Table
    sample: pa.Table


def profile_file(job: ProfileJob) -> FileProfile:
    """Count what one staged file holds; raise RejectedError when it is not the file that merge wrote."""
    with tempfile.TemporaryDirectory(prefix="fleetbatch-check-") as name:
        folder = Path(name)
        job.store.fetch(job.file.key, folder / "results.parquet")
        with (folder / "results.parquet").open("rb") as file:
            found = file_digest(file, "sha256").hexdigest()
        if found != job.file.sha256:
            summary = f"{job.file.key} is not the file that was merged; merge the night again"
            raise RejectedError(summary, [f"sha256 is {found}, merge wrote {job.file.sha256}"])
        results = pl.scan_parquet(folder / "results.parquet")
        _refuse_other_schema(results, job)
        of = contract(job.contract)
        if stand_as_cut(results, job):
            nothing = pl.lit(0, pl.Int64)
            counts = _counts(results, of, job.labels, ids_double=nothing)
            counts = counts.with_columns(ids_unknown=nothing, ids_known="rows", ids_both=nothing)
        else:
            counts = _counts(results, of, job.labels).join(_ids(results, job), on="shard_id", how="left")
        shards = counts.collect(engine="streaming").to_arrow()
        return FileProfile(shards=shards, sample=_sample(results, job).collect(engine="streaming").to_arrow())


def _sample(results: pl.LazyFrame, job: ProfileJob) -> pl.LazyFrame:
    """Choose rows by their ids; choosing decodes every column, a third of a check when nobody asks for them."""
    if not job.sample_rows:
        return results.limit(0)
    return results.filter(pl.col("item_id").hash(seed=1) % max(1, job.file.rows) < job.sample_rows)


def profile_table(manifest: pa.Table, missing: pl.LazyFrame, profiles: Iterable[pa.Table]) -> pa.Table:
    """Return contract `profile`: a row for every planned shard, and one for every shard that nobody planned.

    A shard in two files stands twice, and the check that shards are unique sees it.
    """
    names = [shard_hex(ShardId(shard_id)) for shard_id in manifest["shard_id"].to_numpy().tolist()]
    planned = pl.LazyFrame(
        {"shard_id": names, "cell": manifest["cell"].to_pylist(), "rows_expected": manifest["rows"].to_pylist()},
        schema={"shard_id": pl.String, "cell": pl.String, "rows_expected": pl.Int64},
    )
    seen = [pl.DataFrame(table).lazy() for table in profiles]
    named = missing.group_by(shard_id=pl.col("item_id").str.head(16)).agg(
        rows_missing=pl.col("item_id").n_unique().cast(pl.Int64)
    )
    columns = contract("profile").schema.names
    table = planned.join(named, on="shard_id", how="left")
    if seen:
        table = table.join(pl.concat(seen), on="shard_id", how="full", coalesce=True)
    else:
        table = table.with_columns(*(pl.lit(0).alias(name) for name in [*_COUNTS, "ids_known", "ids_both"]))
    fill = [pl.col(name).fill_null(0) for name in [*_COUNTS, "ids_known", "ids_both", "rows_expected", "rows_missing"]]
    table = table.with_columns(*fill, pl.col("cell").fill_null("unknown")).with_columns(
        ids_absent=pl.col("rows_expected") - pl.col("ids_known") - pl.col("rows_missing") + pl.col("ids_both"),
        ids_double=pl.col("ids_double") + pl.col("ids_both"),
    )
    present = table.collect_schema().names()
    return conform(table.select([c for c in columns if c in present]).sort("shard_id").collect().to_arrow(), "profile")


def stand_as_cut(results: pl.LazyFrame, job: ProfileJob) -> bool:
    """Return whether the rows are all those of their shards, each once, as the sources have them; none named missing.

    So does a night that lost nothing, and comparing line by line is a tenth of the work of joining.
    """
    found = results.select("item_id", "shard_id").collect()
    shards, items = found["shard_id"].rle().struct.unnest(), found["item_id"]
    known = _known(shards["value"], job)
    if known.height != found.height or not known["item_id"].eq_missing(items).all():
        return False
    planned = known["shard_id"].rle().struct.unnest()
    if not planned["len"].equals(shards["len"]):
        return False
    if [shard_hex(ShardId(number)) for number in planned["value"]] != shards["value"].to_list():
        return False
    falls = (items <= items.shift(1)).arg_true()  # a shard's ids ascend, so that none is there twice
    if not falls.is_in((shards["len"].cum_sum() - shards["len"]).implode()).all():
        return False
    missing = _scan(job.store, job.missing_key).select("item_id")
    if not missing.select(pl.len()).collect().item():
        return True
    return missing.join(found.lazy(), on="item_id", how="semi").limit(1).collect(engine="streaming").is_empty()


def _known(names: pl.Series, job: ProfileJob) -> pl.DataFrame:
    """Return the sources of these shards; the manifest says where in the table they are."""
    numbers = names.str.to_integer(base=16, dtype=pl.UInt64, strict=False).implode()
    manifest = _scan(job.store, job.manifest_key).select(
        "shard_id", start=pl.col("rows").cum_sum() - pl.col("rows"), stop=pl.col("rows").cum_sum()
    )
    place = manifest.filter(pl.col("shard_id").is_in(numbers)).select(pl.col("start").min(), pl.col("stop").max())
    start, stop = place.collect().row(0)
    sources = _scan(job.store, job.sources_key).select("item_id", "shard_id")
    between = sources.slice(start or 0, (stop or 0) - (start or 0)).collect()
    return between.filter(pl.col("shard_id").is_in(numbers))


def _counts(
    results: pl.LazyFrame, of: Contract, labels: tuple[str, ...] | None, *, ids_double: pl.Expr | None = None
) -> pl.LazyFrame:
    """Return what each shard holds, by what the contract says of its columns; an item counts once."""
    count, single = pl.Int64, len(of.key) == 1
    items = pl.len() if single else pl.col("item_id").n_unique()
    fine = pl.col("error").is_null()
    answered = fine.sum() if single else pl.col("item_id").filter(fine).n_unique()
    distinct = pl.col("item_id").n_unique() if single else pl.struct(*of.key).n_unique()
    if ids_double is None:
        ids_double = (pl.len() - distinct).cast(count)
    return results.group_by("shard_id").agg(
        rows=items.cast(count),
        answers=pl.len().cast(count),
        ids_double=ids_double,
        dead_rows=(items.cast(count) - answered.cast(count)),
        nulls=(fine & _nothing_said(of)).sum().cast(count),
        out_of_range=pl.sum_horizontal(pl.lit(0), *_out_of_range(of)).cast(count),
        labels_unknown=_unknown(of, labels).sum().cast(count),
        audited_rows=(pl.col("audit_state") == "audited").sum().cast(count),
        energy_wh=pl.col("energy_wh").cast(pl.Float64).sum(),
    )


def _nothing_said(of: Contract) -> pl.Expr:
    """Return whether a row lacks its headline or, without one, every answer."""
    if of.headline is not None:
        return pl.col(of.headline.partition(".")[0]).is_null()
    return pl.all_horizontal(pl.col(answer_columns(of)).is_null())


def _out_of_range(of: Contract) -> Iterator[pl.Expr]:
    """Yield how many values each column of numbers has outside its range; no number is outside of any."""
    for name in answer_columns(of):
        kind = of.schema.field(name).type
        low, high = of.ranges.get(name, (-math.inf, math.inf))
        if pa.types.is_floating(kind):
            yield (~pl.col(name).is_between(low, high) | ~pl.col(name).is_finite()).sum().cast(pl.Int64)
        elif name in of.ranges:
            yield (~pl.col(name).is_between(low, high)).sum().cast(pl.Int64)


def _unknown(of: Contract, labels: tuple[str, ...] | None) -> pl.Expr:
    if of.headline is None or labels is None:
        return pl.lit(value=False)
    column, _, field = of.headline.partition(".")
    if not field:
        return pl.col(column).is_not_null() & ~pl.col(column).is_in(list(labels))
    value = pl.element().struct.field(field)
    return pl.col(column).list.eval(value.is_null() | ~value.is_in(list(labels))).list.any()


def _ids(results: pl.LazyFrame, job: ProfileJob) -> pl.LazyFrame:
    """Return per shard: ids that its input does not have, ids that it has, and ids that are also named missing."""
    number = pl.col("shard_id").str.to_integer(base=16, dtype=pl.UInt64, strict=False)
    ids = results.select("item_id", "shard_id", number=number).unique()
    shards = results.select(number.unique()).collect().to_series()
    known = _scan(job.store, job.sources_key).filter(pl.col("shard_id").is_in(shards.implode()))
    known = known.select("item_id", number="shard_id", known=pl.lit(value=True))
    missing = _scan(job.store, job.missing_key).select("item_id", missing=pl.lit(value=True))
    found = ids.join(known, on=["item_id", "number"], how="left").join(missing, on="item_id", how="left")
    return found.group_by("shard_id").agg(
        ids_unknown=pl.col("known").is_null().sum().cast(pl.Int64),
        ids_known=pl.col("known").is_not_null().sum().cast(pl.Int64),
        ids_both=pl.col("missing").is_not_null().sum().cast(pl.Int64),
    )


def _scan(store: Store, key: str) -> pl.LazyFrame:
    return pl.scan_parquet(store.uri(key), storage_options=store.storage_options())


def _refuse_other_schema(results: pl.LazyFrame, job: ProfileJob) -> None:
    wanted = list(contract(job.contract).schema.names)
    found = results.collect_schema().names()
    if found != wanted:
        summary = f"{job.file.key} does not follow contract {job.contract!r}"
        raise RejectedError(summary, [f"its columns are {', '.join(found)}", f"expected are {', '.join(wanted)}"])
