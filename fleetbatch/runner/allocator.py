"""A worker's freed memory is kept for its next picture, and given back where that pays."""

import ctypes
import mmap
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

_KEEP: Final = {"M_TRIM_THRESHOLD": (-1, 128 << 20), "M_MMAP_THRESHOLD": (-3, 32 << 20), "M_ARENA_MAX": (-8, 1)}
"""mallopt(3). A picture's memory is used again for the next one: giving it back costs 3 % of the CPU time."""

_PASS_ON: Final = {"M_MMAP_THRESHOLD": (-3, 128 << 10), "M_ARENA_MAX": (-8, 1)}
KEPT_BYTES: Final = 24 << 20
"""Of freed memory, between two row groups: what ordinary pictures are decoded in. To touch it anew costs up to a
millisecond a picture. The hole that a large picture leaves is more than this, and is given back."""

_MAPPED_FILE: Final = re.compile(r"(?P<start>[0-9a-f]+)-(?P<stop>[0-9a-f]+) r-.p \S+ \S+ \d+ +/")
_WRITTEN: Final = frozenset({"Anonymous:", "Swap:"})
"""Pages of a mapping that are no longer its file's, in memory and outside."""


def keep_freed_memory() -> None:
    """Let this process use one heap for everything; where the C library is not glibc, nothing changes."""
    _tell_malloc(_KEEP)


def pass_memory_on() -> None:
    """Let this process give back what is large once it is freed: rows and answers only pass through the runner."""
    _tell_malloc(_PASS_ON)


@dataclass(slots=True)
class Heap:
    """What this process has for itself, and how little that was when it last gave back."""

    least_bytes: int = 0

    def settle(self) -> None:
        """Give back what is free where that is much more than ordinary pictures need."""
        if (own := own_bytes()) > self.least_bytes + KEPT_BYTES or not own:
            self.give_back()

    def give_back(self) -> None:
        """Return what is free now. Opening a model takes several times its size; a large picture leaves a hole."""
        pa.default_memory_pool().release_unused()
        if trim := _of_glibc("malloc_trim"):
            trim(0)
        self.least_bytes = own_bytes()


def own_bytes() -> int:
    """Return the memory that this process shares with no file; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    _, resident, shared, *_ = statm.read_text().split()
    return (int(resident) - int(shared)) * mmap.PAGESIZE


def let_go_of_libraries() -> None:
    """Drop the pages that loading libraries has read; code that is used comes back from the file.

    Relocations and symbols are read once and were half of what a runner held. The process must have one thread.
    """
    smaps = Path("/proc/self/smaps")
    if smaps.exists() and (advise := _of_glibc("madvise")):
        for start, stop in unwritten(smaps.read_text().splitlines()):
            advise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED)


def unwritten(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield [start, stop) of the mapped files that may not be written to now, and of which no page ever was. Pure.

    `smaps` are the lines of proc_pid_smaps(5): a head for each mapping, what it holds, and its flags as the last.
    """
    span, written_kb = None, 0
    for line in smaps:
        name, *told = line.split(maxsplit=1)
        if head := _MAPPED_FILE.match(line):
            span, written_kb = (int(head["start"], 16), int(head["stop"], 16)), 0
        elif name in _WRITTEN:
            written_kb += int(told[0].removesuffix("kB"))
        elif name == "VmFlags:":
            if span and not written_kb:
                yield span
            span = None


def _tell_malloc(parameters: Mapping[str, tuple[int, int]]) -> None:
    if mallopt := _of_glibc("mallopt"):
        for parameter, value in parameters.values():
            mallopt(parameter, value)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None)
