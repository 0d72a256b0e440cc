"""One night without cars, stage by stage: prints the CPU seconds of each.

The parts are computed here with the car's own code, so that audit, merge, check and publish have something to do.
"""

import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.night import KEY, NOW, SHARES, draw_folder, frozen_order
from benchmarks.run import tell
from fleetbatch import layout
from fleetbatch.audit.choice import audit_seed, choose_rows
from fleetbatch.checks import check_order
from fleetbatch.merge import merge_order
from fleetbatch.nouns import FrozenOrder, OrderKey
from fleetbatch.publish import publish_order
from fleetbatch.sealing import shard_key, unseal, unwrap_secret
from fleetbatch.sharding import cut_order
from fleetbatch.store import Store
from fleetbatch.units import LeaseId, Sha256, ShardId
from fleetbatch.workloads import Answer, Device, answer_rows
from fleetbatch.workloads.image import ImageWorkload

PICTURES = 2000
LEASE = LeaseId("0" * 32)
DIGEST = Sha256("0" * 64)
IMAGE = ImageWorkload()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fleetbatch-bench-") as folder:
        stages(Path(folder))


def stages(folder: Path) -> None:
    """Run one night without cars and tell the CPU seconds of every stage."""
    draw_folder(folder / "pictures", PICTURES, padded_bytes=0)
    frozen, store = frozen_order(folder, "shard_rows = 250\nrow_group_rows = 50\n")
    secret = unwrap_secret(frozen.secret_wrapped, KEY)
    with stage("cut"):
        manifest = cut_order(store, frozen, secret=secret, shares=SHARES)
    model = store.read(layout.bundle(frozen.model_sha256))
    answer = IMAGE.open(model, Device(provider="CPUExecutionProvider"), {})
    with stage("infer"):
        parts = pa.Table.from_pylist(
            [compute(store, frozen, secret, ShardId(row["shard_id"]), answer) for row in manifest.to_pylist()]
        )
    with stage("audit"):
        for part in parts.to_pylist():
            audit(store, frozen, secret, ShardId(part["shard_id"]), answer)
    with stage("merge"):
        missing = pa.table({"shard_id": pa.array([], pa.uint64()), "reason": pa.array([], pa.string())})
        merged = merge_order(store, frozen, parts, missing)
    with stage("check"):
        verdict = check_order(store, frozen, merged, labels=IMAGE.labels(model))
    assert verdict.passed, verdict
    assert merged.rows_out == PICTURES
    with stage("publish"):
        publish_order(store, frozen, merged, now=NOW)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Tell the CPU seconds of this process and the children that it waited for."""
    before = cpu_s()
    yield
    tell(f"{name} {PICTURES} pictures, CPU", cpu_s() - before, "s")


def cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def opened(store: Store, key: OrderKey, secret: bytes, shard: ShardId) -> pq.ParquetFile:
    sealed = pa.BufferReader(store.read(layout.shard(key, shard)))
    return pq.ParquetFile(sealed, decryption_properties=unseal(shard_key(secret, shard)))


def compute(store: Store, frozen: FrozenOrder, secret: bytes, shard: ShardId, answer: Answer) -> dict[str, object]:
    """Answer a shard as a car does and return its part as the ledger would."""
    with opened(store, frozen.key, secret, shard) as file:
        groups = file.num_row_groups
        answers = [answer_rows(IMAGE, answer, file.read_row_group(group), row_group=group) for group in range(groups)]
    table = pa.concat_tables(answers)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    key = layout.part(frozen.key, shard, LEASE, 0, groups, DIGEST)
    store.create(key, sink.getvalue())
    return {
        "shard_id": shard,
        "row_group_start": 0,
        "row_group_stop": groups,
        "key": key,
        "rows": table.num_rows,
        "sha256": hashlib.sha256(sink.getvalue()).hexdigest(),
        "hardware_class": "bench",
        "provider": "CPUExecutionProvider",
        "runner_version": "bench",
        "energy_wh": 1.0,
        "energy_source": "estimated",
        "confirmed_at": NOW,
        "car_id": 1,
    }


def audit(store: Store, frozen: FrozenOrder, secret: bytes, shard: ShardId, answer: Answer) -> None:
    """Recompute the secretly chosen rows of a shard and compare."""
    with opened(store, frozen.key, secret, shard) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        chosen = choose_rows(audit_seed(secret, shard, LEASE), range(sum(sizes)), frozen.order.auditing)
        key = layout.part(frozen.key, shard, LEASE, 0, len(sizes), DIGEST)
        part = pq.read_table(pa.BufferReader(store.read(key)))
        first = 0
        for group, rows in enumerate(sizes):
            here = [row - first for row in chosen if first <= row < first + rows]
            if here:
                again = answer_rows(IMAGE, answer, file.read_row_group(group).take(pa.array(here)), row_group=group)
                assert not IMAGE.compare(again, part).disagreements
            first += rows


if __name__ == "__main__":
    main()
