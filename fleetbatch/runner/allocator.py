"""A worker's freed memory is kept for its next picture, and given back where that pays."""

import ctypes
from collections.abc import Callable
from typing import Final

import pyarrow as pa

_MALLOPT: Final = {"M_TRIM_THRESHOLD": (-1, 128 << 20), "M_MMAP_THRESHOLD": (-3, 32 << 20), "M_ARENA_MAX": (-8, 1)}
"""mallopt(3). A picture's memory is used again for the next one: giving it back costs 3 % of the CPU time."""


def keep_freed_memory() -> None:
    """Let this process use one heap for everything; where the C library is not glibc, nothing changes."""
    if mallopt := _of_glibc("mallopt"):
        for parameter, value in _MALLOPT.values():
            mallopt(parameter, value)


def give_back() -> None:
    """Return what is free now. Opening a model takes several times its size; a large picture leaves a hole."""
    pa.default_memory_pool().release_unused()
    if trim := _of_glibc("malloc_trim"):
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None)
