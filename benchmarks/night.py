"""What a night costs on the trusted side: CPU per stage, and the memory of cutting ten times as many pictures.

As a script, `night.py stages` and `night.py cut N` print the figures of one round; the parts are computed here too,
with the car's own code, so that the later stages have something to merge.
"""

import hashlib
import io
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.run import Bench, Subject, tell
from fleetbatch import layout
from fleetbatch.audit.choice import audit_seed, choose_rows
from fleetbatch.bundle import Bundle, open_bundle
from fleetbatch.checks import check_order
from fleetbatch.inference import Inference, open_inference
from fleetbatch.merge import merge_order
from fleetbatch.nouns import FrozenOrder, OrderKey
from fleetbatch.orders import Known, freeze_order, load_order, model_file
from fleetbatch.publish import publish_order
from fleetbatch.sealing import shard_key, unseal, unwrap_secret
from fleetbatch.sharding import cut_order
from fleetbatch.sharding.road_signs import Drawing, picture_file, uris
from fleetbatch.store import Store, open_store
from fleetbatch.units import CellName, LeaseId, Night, ShardId
from fleetbatch.workloads import workload

PICTURES = 2000
"""Of the stages."""
PADDED_BYTES = 24 * 1024
"""Size of a picture when memory is measured: 2,000 of them fill more than a shard of 32 MiB."""
KEY = bytes(32)
NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)
SHARES = {CellName("bench"): 1.0}
LEASE = LeaseId("0" * 32)

BENCH = Bench(
    name="night",
    subjects=(
        Subject(name="ours", script="benchmarks/night.py", arguments=("stages",)),
        Subject(name="ours", script="benchmarks/night.py", arguments=("cut", "2000")),
        Subject(name="ours", script="benchmarks/night.py", arguments=("cut", "20000")),
    ),
)


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="fleetbatch-bench-") as folder:
        match arguments:
            case ["stages"]:
                stages(Path(folder))
            case ["cut", pictures]:
                cut_many(Path(folder), int(pictures))
            case _:
                raise SystemExit(__doc__)


def stages(folder: Path) -> None:
    """Run one night without cars and tell the CPU seconds of every stage."""
    draw_folder(folder / "pictures", PICTURES, padded_bytes=0)
    frozen, store = frozen_order(folder, "shard_rows = 250\nrow_group_rows = 50\n")
    secret = unwrap_secret(frozen.secret_wrapped, KEY)
    with stage("cut"):
        manifest = cut_order(store, frozen, secret=secret, shares=SHARES)
    bundle = open_bundle(store.read(layout.bundle(frozen.model_sha256)), expected_sha256=frozen.model_sha256)
    inference = open_inference(bundle, provider="CPUExecutionProvider", threads=1)
    with stage("infer"):
        parts = pa.Table.from_pylist(
            [
                compute(store, frozen, secret, ShardId(row["shard_id"]), bundle, inference)
                for row in manifest.to_pylist()
            ]
        )
    with stage("audit"):
        for part in parts.to_pylist():
            audit(store, frozen, secret, ShardId(part["shard_id"]), bundle, inference)
    with stage("merge"):
        missing = pa.table({"shard_id": pa.array([], pa.uint64()), "reason": pa.array([], pa.string())})
        merged = merge_order(store, frozen, parts, missing)
    with stage("check"):
        verdict = check_order(store, frozen, merged, labels=bundle.labels)
    assert verdict.passed, verdict
    assert merged.rows_out == PICTURES
    with stage("publish"):
        publish_order(store, frozen, merged, now=NOW)


def cut_many(folder: Path, pictures: int) -> None:
    """Cut that many pictures and tell this process's highest memory and its CPU time."""
    draw_folder(folder / "pictures", pictures, padded_bytes=PADDED_BYTES)
    frozen, store = frozen_order(folder, "")
    secret = unwrap_secret(frozen.secret_wrapped, KEY)
    started = time.process_time()
    manifest = cut_order(store, frozen, secret=secret, shares=SHARES)
    tell(f"cut {pictures} pictures, CPU", time.process_time() - started, "s")
    tell(f"cut {pictures} pictures, peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB")
    tell(f"cut {pictures} pictures, shards", manifest.num_rows, "shards")


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Tell the CPU seconds of this process and the children that it waited for."""
    before = cpu_s()
    yield
    tell(name, cpu_s() - before, "CPU s")


def cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def draw_folder(folder: Path, pictures: int, *, padded_bytes: int) -> None:
    """Fill a folder with road signs, all different.

    Padded ones are a hundred drawn ones with other bytes behind the end of the JPEG, which no decoder minds.
    """
    folder.mkdir()
    drawn = [picture_file(uri) for uri in uris(Drawing(count=min(pictures, 100) if padded_bytes else pictures, seed=5))]
    for number in range(pictures):
        content = drawn[number % len(drawn)]
        if padded_bytes:
            content += number.to_bytes(8, "big") * ((padded_bytes - len(content)) // 8)
        (folder / f"{number:06}.jpg").write_bytes(content)


def frozen_order(folder: Path, cutting: str) -> tuple[FrozenOrder, Store]:
    text = f'source = "pictures"\nmodel = "{model_file("road-signs")}"\n[cutting]\n{cutting}'
    (folder / "bench.toml").write_text(text)
    order = load_order(folder / "bench.toml", Known(regions=frozenset(), workloads=frozenset({"image"})))
    store = open_store((folder / "store").as_uri(), deployment_key=KEY)
    frozen = freeze_order(store, order, night=Night("2026-11-22"), force=False, now=NOW, deployment_key=KEY)
    assert isinstance(frozen, FrozenOrder)
    return frozen, store


def opened(store: Store, key: OrderKey, secret: bytes, shard: ShardId) -> pq.ParquetFile:
    sealed = pa.BufferReader(store.read(layout.shard(key, shard)))
    return pq.ParquetFile(sealed, decryption_properties=unseal(shard_key(secret, shard)))


def compute(
    store: Store, frozen: FrozenOrder, secret: bytes, shard: ShardId, bundle: Bundle, inference: Inference
) -> dict[str, object]:
    """Answer a shard as a car does and return its part as the ledger would."""
    with opened(store, frozen.key, secret, shard) as file:
        groups = file.num_row_groups
        answers = [
            workload("image").answer(file.read_row_group(group), bundle, inference, row_group=group)
            for group in range(groups)
        ]
    table = pa.concat_tables(answers)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    key = layout.part(frozen.key, shard, LEASE, 0, groups)
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


def audit(
    store: Store, frozen: FrozenOrder, secret: bytes, shard: ShardId, bundle: Bundle, inference: Inference
) -> None:
    """Recompute the secretly chosen rows of a shard and compare."""
    with opened(store, frozen.key, secret, shard) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        chosen = choose_rows(audit_seed(secret, shard, LEASE), range(sum(sizes)), frozen.order.auditing)
        part = pq.read_table(pa.BufferReader(store.read(layout.part(frozen.key, shard, LEASE, 0, len(sizes)))))
        first = 0
        for group, rows in enumerate(sizes):
            here = [row - first for row in chosen if first <= row < first + rows]
            if here:
                again = workload("image").answer(
                    file.read_row_group(group).take(pa.array(here)), bundle, inference, row_group=group
                )
                assert not workload("image").compare(again, part).disagreements
            first += rows


if __name__ == "__main__":
    main(sys.argv[1:])
