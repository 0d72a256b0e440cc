"""What loading libraries has read is let go of; what was written to it never is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleetbatch.runner.allocator import KEPT_BYTES, unwritten

LETS_GO = """
import ctypes, msgspec, numpy, pyarrow.parquet as pq, pyarrow as pa
from pathlib import Path
from fleetbatch.runner.allocator import let_go_of_libraries
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
before = resident()
let_go_of_libraries()
after = resident()
sink = pa.BufferOutputStream()
pq.write_table(pa.table({"a": numpy.arange(1000)}), sink, compression="zstd")
assert pq.read_table(pa.BufferReader(sink.getvalue()))["a"].to_pylist() == list(range(1000))
print(before, after)
"""

KEEPS = """
import sys
from fleetbatch.runner.allocator import KEPT_BYTES, Heap, keep_freed_memory, own_bytes
keep_freed_memory()
def use_and_free(size):
    pieces = [bytearray(1 << 20) for _ in range(size >> 20)]
    last = bytearray(1 << 20)  # what is freed below it is a hole
    del pieces
    return last
heap, held = Heap(), []
heap.give_back()
for size in map(int, sys.argv[1:]):
    held.append(use_and_free(size))
    before = own_bytes()
    heap.settle()
    print(before - own_bytes())
"""


def mapping(head: str, *, anonymous: int = 0, swap: int = 0) -> list[str]:
    return [head, "Rss:  64 kB", f"Anonymous:  {anonymous} kB", f"Swap:  {swap} kB", "VmFlags: rd mr mw me"]


def test_files_are_let_go_of_that_nobody_wrote_to() -> None:
    code = mapping("1000-3000 r-xp 00001000 08:01 77                 /usr/lib/one.so")
    table = mapping("3000-4000 r--p 00003000 08:01 77                 /usr/lib/with a blank.so")
    assert list(unwritten(code + table)) == [(0x1000, 0x3000), (0x3000, 0x4000)]


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(mapping("1000-3000 r--p 0 08:01 77 /usr/lib/one.so", anonymous=4), id="relocated"),
        pytest.param(mapping("1000-3000 r--p 0 08:01 77 /usr/lib/one.so", swap=4), id="relocated and swapped out"),
        pytest.param(mapping("1000-3000 rw-p 0 08:01 77 /usr/lib/one.so"), id="writable"),
        pytest.param(mapping("1000-3000 r--s 0 08:01 77 /dev/shm/one"), id="shared"),
        pytest.param(mapping("1000-3000 r-xp 0 00:00 0 [vdso]"), id="no file"),
        pytest.param(mapping("1000-3000 r--p 0 00:00 0"), id="no name"),
    ],
)
def test_what_could_not_be_read_again_is_kept(kept: list[str]) -> None:
    code = mapping("5000-6000 r-xp 0 08:01 77 /usr/lib/two.so")
    assert list(unwritten(kept + code + kept)) == [(0x5000, 0x6000)]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="memory is looked at as Linux shows it")
def test_a_process_computes_on_with_a_third_less_in_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LETS_GO], env=os.environ, check=True, capture_output=True, text=True, timeout=60
    )
    before, after = map(int, done.stdout.split())
    assert after < before * 2 / 3


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="glibc"
)
def test_what_ordinary_pictures_leave_is_kept_and_what_a_large_one_leaves_is_given_back() -> None:
    sizes = [str(KEPT_BYTES // 2), str(KEPT_BYTES * 3)]
    command = [sys.executable, "-c", KEEPS, *sizes]
    done = subprocess.run(command, env=os.environ, check=True, capture_output=True, text=True, timeout=60)
    small, large = map(int, done.stdout.split())
    assert small == 0
    assert large > KEPT_BYTES * 2
