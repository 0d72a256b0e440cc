"""What a night costs on the trusted side: CPU per stage, and the memory of cutting ten times as many pictures.

As a script, `night.py N` cuts N pictures and prints the figures of one round.
"""

import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.run import Bench, Subject, tell
from fleetbatch.nouns import FrozenOrder
from fleetbatch.orders import Known, freeze_order, load_order, model_file
from fleetbatch.sealing import unwrap_secret
from fleetbatch.sharding import cut_order
from fleetbatch.sharding.road_signs import Drawing, picture_file, uris
from fleetbatch.store import Store, open_store
from fleetbatch.units import CellName, Night
from fleetbatch.workloads import workload

PADDED_BYTES = 24 * 1024
"""Size of a picture when memory is measured: 2,000 of them fill more than a shard of 32 MiB."""
KEY = bytes(32)
NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)
SHARES = {CellName("bench"): 1.0}
KNOWN = Known(regions=frozenset(), workloads=frozenset({"image"}), rows_per_s=lambda name: workload(name).rows_per_s)

BENCH = Bench(
    name="night",
    subjects=(
        Subject(name="ours", script="benchmarks/night_stages.py"),
        Subject(name="ours", script="benchmarks/night.py", arguments=("2000",)),
        Subject(name="ours", script="benchmarks/night.py", arguments=("20000",)),
    ),
)


def main(pictures: int) -> None:
    with tempfile.TemporaryDirectory(prefix="fleetbatch-bench-") as folder:
        cut_many(Path(folder), pictures)


def cut_many(folder: Path, pictures: int) -> None:
    """Cut that many pictures and tell this process's highest memory and its CPU time."""
    draw_folder(folder / "pictures", pictures, padded_bytes=PADDED_BYTES)
    frozen, store = frozen_order(folder, "")
    secret = unwrap_secret(frozen.secret_wrapped, KEY)
    before, started = peak_mib(), time.process_time()
    manifest = cut_order(store, frozen, secret=secret, shares=SHARES)
    name = f"cut {pictures} pictures of {PADDED_BYTES >> 10} KiB"
    tell(f"{name}, CPU", time.process_time() - started, "s")
    tell(f"{name}, peak memory of the process", peak_mib(), "MiB")
    tell(f"{name}, of that by the cut", peak_mib() - before, "MiB")
    tell(f"{name}, result", manifest.num_rows, "shards")


def peak_mib() -> float:
    """Return the highest resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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
    order = load_order(folder / "bench.toml", KNOWN)
    store = open_store((folder / "store").as_uri(), deployment_key=KEY)
    frozen = freeze_order(store, order, night=Night("2026-11-22"), force=False, now=NOW, deployment_key=KEY)
    assert isinstance(frozen, FrozenOrder)
    return frozen, store


if __name__ == "__main__":
    main(int(sys.argv[1]))
