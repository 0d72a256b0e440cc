"""A night is judged before anyone can read it: the verdict gates the publish and names the shards to look at."""

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch import layout, pages
from fleetbatch.checks.expectations import Check, Suite, judge_suites
from fleetbatch.checks.profile import ProfileJob, profile_file, profile_table
from fleetbatch.contracts import conform, contract
from fleetbatch.nouns import FrozenOrder, Merged, OrderKey
from fleetbatch.store import Store
from fleetbatch.workloads import workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Checking:
    """Dials of the checks."""

    sample_rows: int = 100_000
    """Suites over columns run on at most about so many rows, chosen uniformly."""
    suite: tuple[Mapping[str, Any], ...] = ()
    """What a user expects of the columns of the results, as Great Expectations {"type", "kwargs"}."""
    missing_share_max: float = 1.0
    """A night that misses a larger share of its rows is not published; by default it is, and names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """May this night be published?"""

    key: str
    token: str
    """Of the merge that was judged; no other may be published on its word."""
    passed: bool
    checks: tuple[Check, ...]
    failing_shards: tuple[str, ...]


def check_order(
    store: Store,
    order: FrozenOrder,
    merged: Merged,
    *,
    labels: Sequence[str] | None,
    checking: Checking | None = None,
    pool: Executor | None = None,
) -> Verdict:
    """Profile the staged files, let Great Expectations judge the profile, and keep verdict and page beside the night.

    `labels` are what the headline column may hold (None when that cannot be listed). Several files are profiled on the
    pool, when one is given. Raises RejectedError when a staged file is not what merge wrote; TransientError when the
    judge crashed. A night that breaks an expectation is a verdict, not an error.
    """
    key, dials = order.key, checking or Checking()
    name = workload(order.order.workload).results_contract
    rules, wanted = (*contract(name).expectations, *dials.suite), dials.sample_rows / max(1, merged.answers)
    jobs = [
        ProfileJob(
            store=store,
            file=file,
            contract=name,
            manifest_key=layout.manifest(key),
            sources_key=layout.sources(key),
            missing_key=layout.missing(key),
            labels=None if labels is None else tuple(labels),
            sample_rows=max(1, int(wanted * file.rows)) if rules else 0,
        )
        for file in merged.files
    ]
    profiles = list((pool.map if pool and len(jobs) > 1 else map)(profile_file, jobs))
    with tempfile.TemporaryDirectory(prefix="fleetbatch-check-") as folder:
        table = _keep_profile(store, key, Path(folder), [profile.shards for profile in profiles])
        suites = [Suite(name="profile", table=str(table), index="shard_id", expectations=_rules(merged, dials))]
        if rules:
            sample = Path(folder) / "sample.parquet"
            pq.write_table(
                pa.concat_tables([contract(name).schema.empty_table(), *(conform(p.sample, name) for p in profiles)]),
                sample,
            )
            suites.append(Suite(name=name, table=str(sample), index="item_id", expectations=rules))
        verdict = _verdict(merged, judge_suites(suites, Path(folder)))
    store.write(layout.verdict(key), msgspec.json.encode(verdict))
    store.write(layout.report(key, "checks.html"), verdict_page(verdict).encode())
    return verdict


def load_verdict(store: Store, key: OrderKey) -> Verdict:
    """Read the verdict back; later rooms are handed the key only."""
    return msgspec.json.decode(store.read(layout.verdict(key)), type=Verdict)


def verdict_page(verdict: Verdict) -> str:
    """Return the page that a person opens when a night did not pass. Pure."""
    rows = [
        (c.success, c.suite, c.column, c.expectation, c.observed, ", ".join(c.failing[:20])) for c in verdict.checks
    ]
    word = "passed: the night may be published" if verdict.passed else "did not pass: the night is not published"
    body = [pages.paragraph(f"{verdict.key} {word}", kind="good" if verdict.passed else "bad")]
    if verdict.failing_shards:
        body.append(pages.section("Shards to compute again", pages.paragraph(", ".join(verdict.failing_shards))))
    head = ("holds", "table", "column", "expectation", "observed", "rows that break it")
    return pages.page(f"Checks of {verdict.key}", [*body, pages.section("Expectations", pages.table(head, rows))])


def _keep_profile(store: Store, key: OrderKey, folder: Path, profiles: Sequence[pa.Table]) -> Path:
    manifest = folder / "manifest.parquet"
    store.fetch(layout.manifest(key), manifest)
    store.fetch(layout.missing(key), folder / "missing.parquet")
    shards = pq.read_table(manifest, columns=["shard_id", "cell", "rows"])
    path = folder / "profile.parquet"
    pq.write_table(
        profile_table(shards, pl.scan_parquet(folder / "missing.parquet"), profiles), path, compression="zstd"
    )
    store.write(layout.profile(key), path.read_bytes())
    return path


def _rules(merged: Merged, dials: Checking) -> tuple[Mapping[str, Any], ...]:
    """Return the contract's expectations of the profile, and those that only this night can state."""
    missing_max = int(dials.missing_share_max * merged.rows_in)
    sums = {
        "rows": (merged.rows_out + merged.dead_letter_rows,) * 2,
        "answers": (merged.answers,) * 2,
        "rows_expected": (merged.rows_in,) * 2,
        "dead_rows": (merged.dead_letter_rows,) * 2,
        "rows_missing": (0, min(merged.missing_rows, missing_max)),
    }
    return (
        *contract("profile").expectations,
        {"type": "expect_table_row_count_to_equal", "kwargs": {"value": merged.shards}},
        *(
            {"type": "expect_column_sum_to_be_between", "kwargs": {"column": c, "min_value": low, "max_value": high}}
            for c, (low, high) in sums.items()
        ),
    )


def _verdict(merged: Merged, checks: Sequence[Check]) -> Verdict:
    failing = {row for check in checks for row in check.failing if check.suite == "profile"}
    failing |= {row.partition("-")[0] for check in checks for row in check.failing if check.suite != "profile"}
    return Verdict(
        key=merged.key,
        token=merged.token,
        passed=bool(checks) and all(check.success for check in checks),
        checks=tuple(checks),
        failing_shards=tuple(sorted(failing)),
    )
