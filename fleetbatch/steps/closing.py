"""The morning: parts become result files, the files are checked, published as one version, and reported."""

import json
import logging
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import pyarrow as pa

from fleetbatch import layout
from fleetbatch.checks import Verdict, check_order, in_words
from fleetbatch.engine import open_engine
from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.ledger.messages import NightStats
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.logs import say
from fleetbatch.merge import load_merged, merge_order, parts_token
from fleetbatch.nouns import Merged, OrderKey
from fleetbatch.orders import stored_order
from fleetbatch.publish import Published, how_to_open, publish_order
from fleetbatch.report import summarise, tally_night, write_report
from fleetbatch.settings import Settings
from fleetbatch.steps.doors import OpenedOrder, find_order, open_doors
from fleetbatch.steps.waiting import judge_wait, total
from fleetbatch.store import Store, open_store
from fleetbatch.workloads import workload


def merge_step(settings: Settings, key: OrderKey, *, now: datetime) -> Merged:
    """Give up what is still open after the deadline, by name, and join everything else into staged files.

    Raises:
        TransientError: cars are still at work and the deadline is ahead, or a ledger is out of reach.
        RejectedError: parts and ledger contradict each other.
    """
    with open_doors(settings) as doors, open_engine(settings.engine) as engine:
        opened = find_order(doors.ledgers, key)
        deadline_at = opened.frozen.deadline_at
        seen = judge_wait(key, total(ledger.counts(key) for ledger in opened.ledgers), deadline_at, now=now)
        if not seen.over:
            raise TransientError(seen.line())
        for ledger in opened.ledgers:
            ledger.give_up(key, f"not computed by the deadline, {deadline_at:%Y-%m-%d %H:%M} UTC")
        parts, missing = _valid_and_missing(opened.ledgers, key)
        merged = merge_order(doors.store, opened.frozen, parts, missing, pool=engine)
    _tell_shards(key, parts, missing)
    say(
        "merged",
        order=str(key),
        rows_in=merged.rows_in,
        rows_out=merged.rows_out,
        dead_letter_rows=merged.dead_letter_rows,
        missing_rows=merged.missing_rows,
    )
    return merged


def _tell_shards(key: OrderKey, parts: pa.Table, missing: pa.Table) -> None:
    """Say the last of each shard, so that a search for it or for one of its leases finds how it ended."""
    whole = parts.group_by("shard_id").aggregate([("lease_id", "distinct"), ("rows", "sum")])
    for shard, leases, rows in zip(
        *(whole[n].to_pylist() for n in ("shard_id", "lease_id_distinct", "rows_sum")), strict=True
    ):
        say("shard merged", shard=shard, order=str(key), leases=sorted(leases), rows=rows)
    for row in missing.to_pylist():
        say("shard missing", level=logging.WARNING, shard=row["shard_id"], order=str(key), reason=row["reason"])


def check_step(settings: Settings, key: OrderKey) -> Verdict:
    """Check a merged night; raise RejectedError naming rules and shards when it must not be published."""
    store = open_store(settings.store, deployment_key=settings.deployment_key)
    frozen = stored_order(store, key)
    model = store.read(layout.bundle(frozen.model_sha256)) if frozen.model_sha256 else None
    labels = workload(frozen.order.workload).labels(model)
    with open_engine(settings.engine) as engine:
        verdict = check_order(store, frozen, load_merged(store, key), labels=labels, pool=engine)
    if not verdict.passed:
        summary = (
            f"{key} is not published: {len(verdict.failing_shards)} shards break a rule; see {layout.verdict(key)}"
        )
        raise RejectedError(summary, [in_words(check) for check in verdict.checks if not check.success])
    return verdict


def publish_step(settings: Settings, key: OrderKey, *, now: datetime) -> Published:
    """Publish a checked night as one version of its order's table.

    Raises:
        TransientError: people are doing something to the order, or a ledger is out of reach.
        RejectedError: the order is not what was merged any more, or its merge did not pass its checks.
    """
    with open_doors(settings) as doors:
        opened = find_order(doors.ledgers, key)
        return _publish(doors.store, opened, load_merged(doors.store, key), now)


def _publish(store: Store, opened: OpenedOrder, merged: Merged, now: datetime) -> Published:
    """Close the order, commit its table, mark it as published: whoever is killed in between is followed by the next."""
    key = opened.frozen.key
    close_order(opened.ledgers, key, merged.token)
    published = publish_order(store, opened.frozen, merged, now=now)
    for ledger in opened.ledgers:
        ledger.mark_published(key)
    return published


def close_order(ledgers: Sequence[PostgresLedger], key: OrderKey, token: str) -> None:
    """Close an order in its cells while it is what was merged under the token; from here on nobody recalls it.

    What is published already is left as it is. Raises RejectedError when the order is another one by now, and
    TransientError when something is done to it at this moment.
    """
    if all(row is not None and row.published_at is not None for row in (ledger.order(key) for ledger in ledgers)):
        return
    versions = [ledger.settled_version(key) for ledger in ledgers]
    if parts_token(key, *_valid_and_missing(ledgers, key)) != token:
        summary = f"{key} is not what was merged any more, a recall took back what it had made; merge it again"
        raise RejectedError(summary, ["nothing of it is published"])
    for ledger, version in zip(ledgers, versions, strict=True):
        if not ledger.close_order(key, version):
            message = f"something is done to {key} at this moment; nothing of it is published before it was looked at"
            raise TransientError(message)


def _valid_and_missing(ledgers: Sequence[PostgresLedger], key: OrderKey) -> tuple[pa.Table, pa.Table]:
    parts = pa.concat_tables([ledger.valid_parts(key) for ledger in ledgers])
    return parts, pa.concat_tables([ledger.missing_shards(key) for ledger in ledgers])


def report_step(settings: Settings, key: OrderKey, *, task_instances: int, now: datetime) -> dict[str, Any]:
    """Write the night's page and then its summary, last of all: from here on the night is done."""
    with open_doors(settings) as doors:
        store, opened = doors.store, find_order(doors.ledgers, key)
        merged = load_merged(store, key)
        published = _publish(store, opened, merged, now)  # the same version again
        rates = pa.concat_tables([ledger.rates() for ledger in opened.ledgers])
        tally = tally_night(store, opened.frozen, merged, rates)
        opening = how_to_open(published.table, [f"{published.table}/{file}" for file in published.files], key.night)
        told = {
            "missing_reasons": dict(tally.missing),
            "task_instances": task_instances,
            "table": published.table,
            "table_version": published.version,
            "open": opening,
            "report": store.uri(layout.report(key)),
            "seconds": round((now - opened.frozen.frozen_at).total_seconds(), 1),
        }
        stats = sum_stats([ledger.night_stats(key) for ledger in opened.ledgers])
        summary = summarise(opened.frozen, merged, tally, stats, told)
        write_report(store, key, summary, tally, opening)
        store.write(layout.summary(key), json.dumps(summary, indent=2).encode())
    say("night done", order=str(key), summary=summary)
    return summary


def sum_stats(stats: Sequence[NightStats]) -> dict[str, float]:
    """Sum what each cell says of a night. Pure."""
    return {field.name: sum(getattr(one, field.name) for one in stats) for field in fields(NightStats)}
