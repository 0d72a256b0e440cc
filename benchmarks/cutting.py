"""Cutting a folder of pictures beside what can be had for less: the files read, hashed and written into one file.

Megabytes per CPU second. Nothing is decoded: a cut looks at the first bytes of a picture only. Ours seals every shard
(AES-GCM), hashes what was stored and waits until the disk has it; a tar has none of that. All run as a night's step
does (its environment).
"""

import hashlib
import sys
import tarfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.run import ROOT, Bench, Subject, tell
from fleetbatch.engine import ENVIRONMENT

PICTURES = ROOT / ".bench" / "runner-input" / "pictures"
SUBJECTS = ("ours", "read-hash-write", "tar")

BENCH = Bench(
    name="cutting",
    subjects=tuple(Subject(name=name, script="benchmarks/cutting.py", arguments=(name,)) for name in SUBJECTS),
    prepare="benchmarks/runner_input.py",
    environment=ENVIRONMENT,
)


def ours(folder: Path) -> None:
    """Cut them as an order does, after a few, so that what is loaded once is not counted."""
    from benchmarks.night import KEY, SHARES, frozen_order
    from fleetbatch.sealing import unwrap_secret
    from fleetbatch.sharding import cut_order

    for pictures in (PICTURES.with_name("few"), PICTURES):
        home = folder / pictures.name
        home.mkdir()
        (home / "pictures").symlink_to(pictures)
        frozen, store = frozen_order(home, "")
        secret = unwrap_secret(frozen.secret_wrapped, KEY)
        cut = partial(cut_order, store, frozen, secret=secret, shares=SHARES)
        _measure(cut) if pictures == PICTURES else cut()


def read_hash_write(folder: Path) -> None:
    """Read every file, hash it, and append it to one file."""

    def work() -> None:
        with (folder / "all").open("wb") as out:
            for path in sorted(PICTURES.iterdir()):
                content = path.read_bytes()
                hashlib.sha256(content).digest()
                out.write(content)

    _measure(work)


def tar(folder: Path) -> None:
    """Write a tar."""

    def work() -> None:
        with tarfile.open(folder / "all.tar", "w") as out:
            for path in sorted(PICTURES.iterdir()):
                out.add(path, path.name)

    _measure(work)


def _measure(work: Callable[[], object]) -> None:
    size = sum(path.stat().st_size for path in PICTURES.iterdir())
    before = time.process_time()
    work()
    tell("mb_per_cpu_s", size / 1e6 / (time.process_time() - before), "MB/s")


if __name__ == "__main__":
    with TemporaryDirectory(prefix="fleetbatch-bench-") as name:
        {"ours": ours, "read-hash-write": read_hash_write, "tar": tar}[sys.argv[1]](Path(name))
