"""Which rows a worker is at: a few bytes that it shares with the runner, so that a hang is blamed on a row.

Written before every call of the workload and read five times a second; nothing is sent and nobody waits. A value that
is read while it is written is wrong for one look only, and a look that matters repeats itself.
"""

import mmap
import os
import struct
import tempfile
import time
from dataclasses import dataclass
from typing import Final, Self

_FIELDS: Final = struct.Struct("=qqqd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Rows [start, stop) of a row group have been in work since `since_s` (time.monotonic)."""

    row_group: int
    start: int
    stop: int
    since_s: float


class Whereabouts:
    """Shared between two processes by an inherited file descriptor."""

    def __init__(self, descriptor: int) -> None:
        """Map the file behind the descriptor."""
        self.descriptor = descriptor
        self._shared = mmap.mmap(descriptor, _FIELDS.size)

    @classmethod
    def create(cls) -> Self:
        """Make one in a nameless file; nobody is anywhere."""
        with tempfile.TemporaryFile() as file:
            file.truncate(_FIELDS.size)
            return cls(os.dup(file.fileno()))

    def enter(self, row_group: int, start: int, stop: int) -> None:
        """Say that these rows are begun now."""
        _FIELDS.pack_into(self._shared, 0, row_group, start, stop, time.monotonic())

    def leave(self) -> None:
        """Say that no row is in work."""
        _FIELDS.pack_into(self._shared, 0, 0, 0, 0, 0.0)

    def place(self) -> Place | None:
        """Return where the other side is, if at a row at all."""
        row_group, start, stop, since_s = _FIELDS.unpack_from(self._shared)
        return Place(row_group=row_group, start=start, stop=stop, since_s=since_s) if start < stop else None

    def close(self) -> None:
        """Let go of it."""
        self._shared.close()
        os.close(self.descriptor)
