"""What a command costs with every process that it starts: CPU time, peak memory, and how long it took."""

import contextlib
import ctypes
import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_S = 0.05
LOOKING_SHARE = 0.02
"""What a watch may take of a core: the memory of many large processes takes long to add up, and they want that core."""
_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2): orphans of our children become our children, so that their CPU is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The highest sums over all processes: of proportional set sizes (shared pages count once) and of resident ones."""

    pss_mb: float = 0.0
    rss_mb: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """CPU and memory of all processes."""

    cpu_s: float
    peak: Peak
    wall_s: float


class Watch:
    """Samples the memory and the CPU time of a process and all below it, until it is stopped."""

    def __init__(self, pid: int) -> None:
        """Begin at once."""
        self.peak = Peak()
        self._ticks: dict[tuple[int, int], int] = {}
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> Peak:
        """Return the peak."""
        self._over.set()
        self._thread.join()
        return self.peak

    @property
    def cpu_s(self) -> float:
        """What all of them had used when they were last seen: less than they did, by a sample each at most."""
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")

    def _sample(self) -> None:
        took = 0.0
        while not self._over.wait(max(SAMPLE_S, took / LOOKING_SHARE)):
            began = time.thread_time()
            pids = tree(self._pid)
            for pid in pids:
                self._see(pid)
            now = [_memory_mb(pid) for pid in pids]
            pss_mb, rss_mb = (sum(sizes) for sizes in zip(*now, strict=True))
            self.peak = Peak(pss_mb=max(self.peak.pss_mb, pss_mb), rss_mb=max(self.peak.rss_mb, rss_mb))
            took = time.thread_time() - began

    def _see(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            fields = _stat(pid)
            self._ticks[pid, int(fields[19])] = int(fields[11]) + int(fields[12])


def run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[Cost, str]:
    """Run a command to its end, its orphans included; return what it cost and what it printed.

    A process that ignores the end of its children, as Ray's do, adds nothing of theirs to its own: the system's sum of
    all that was waited for and the sum of what was seen of each are both too small, and the larger one counts.
    """
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    before, began = children_cpu_s(), time.monotonic()
    process = subprocess.Popen(list(command), env=dict(environment), stdout=subprocess.PIPE, text=True)
    watch = Watch(process.pid)
    printed, _ = process.communicate()
    took = time.monotonic() - began
    peak = watch.stop()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command), printed)
    reap()
    return Cost(cpu_s=max(children_cpu_s() - before, watch.cpu_s), peak=peak, wall_s=took), printed


def reap() -> None:
    """Wait for every child that is left, orphans included."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def children_cpu_s() -> float:
    """Return the CPU time of all children that were waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_s(pid: int) -> float:
    """Return the CPU time of a running process and of all below it, the ended ones included."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            total += sum(int(ticks) for ticks in _stat(one)[11:15])
    return total / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found


def _stat(pid: int) -> list[str]:
    """Return a process's fields in proc(5), from its state on; raises an OSError when it is gone."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _memory_mb(pid: int) -> tuple[float, float]:
    """Return a process's proportional and resident set size; zeros when it is gone."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        told = {line.split()[0]: line.split()[1] for line in lines[1:]}
        return int(told["Pss:"]) * 1024 / 1e6, int(told["Rss:"]) * 1024 / 1e6
    return 0.0, 0.0
