"""Can this machine compute: provider, memory, the model's goldens, speed, and a stop within a second?"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from fleetbatch.bundle import BUNDLE_BYTES
from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.runner.check.dry_run import DryRun, dry_run
from fleetbatch.runner.check.findings import Finding, bad, fine, odd, skipped
from fleetbatch.runner.worker import WorkerSettings
from fleetbatch.units import MIB

STOP_MAX_S: Final = 1.0
START_MAX_S: Final = 4.0
SECONDS: Final = 2.0
"""How long the dry run computes."""


def check_machine(settings: WorkerSettings, memory_bytes: int, model: bytes) -> Iterator[Finding]:
    """Yield what is found of this machine."""
    yield _memory(memory_bytes, psutil.virtual_memory().available)
    yield _cores(settings.workers)
    yield _cache(settings.cache)
    try:
        measured = dry_run(settings, model, seconds=SECONDS)
    except (RejectedError, TransientError, OSError) as error:
        yield bad("dry run", str(error), "the workers cannot compute at all: look at the installation")
        return
    yield from _judged(measured, settings)


def _memory(wanted: int, free: int) -> Finding:
    found = f"{free // MIB} MiB free, {wanted // MIB} MiB for the runner"
    if free < wanted:
        return bad("memory", found, "free memory, or promise less (--memory-mib, or memory_mib in the hardware file)")
    return fine("memory", found)


def _cache(folder: Path) -> Finding:
    """Try to write as much as a model may have."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as trial:
            os.posix_fallocate(trial.fileno(), 0, BUNDLE_BYTES)
    except OSError as error:
        advice = "make room there, or name another folder (--cache): until then every process downloads its model"
        return odd("bundle cache", f"{folder}: {error.strerror}", advice)
    return fine("bundle cache", f"{folder} takes a model of {BUNDLE_BYTES // MIB} MiB")


def _cores(workers: int) -> Finding:
    load, found = os.getloadavg()[0], f"{workers} of {psutil.cpu_count()}"
    if load > (psutil.cpu_count() or 1):
        return odd("cores", f"{found}; the machine is busy (load {load:.1f})", "what is measured below is too slow")
    return fine("cores", found)


def _judged(measured: DryRun, settings: WorkerSettings) -> Iterator[Finding]:
    if measured.refused:
        advice = "provider or precision of the hardware class do not fit this machine, or the bundle is not for it"
        yield bad("goldens", measured.refused, advice)
        yield skipped("speed", "not measured", "first the goldens")
        return
    yield fine("goldens", f"reproduced on {settings.provider}")
    slow = "the car's disk or cores are slow, or busy" if measured.first_s > START_MAX_S else ""
    started = f"first answers after {measured.first_s:.1f} s"
    yield odd("start", started, slow) if slow else fine("start", started)
    yield fine("speed", f"{measured.rows_per_s:.0f} small pictures a second on {settings.workers} cores")
    found = f"{measured.peak_bytes // MIB} MiB of {settings.memory_bytes // MIB} by the largest worker"
    over = measured.peak_bytes > settings.memory_bytes
    yield bad("memory bound", found, "report this: it must not be") if over else fine("memory bound", found)
    stopped = f"in mid-work, {measured.stop_s * 1000:.0f} ms after the word"
    late = measured.stop_s > STOP_MAX_S
    yield (
        bad("stop", stopped, "the cable may be out before compute stops: free the cores")
        if late
        else fine("stop", stopped)
    )
