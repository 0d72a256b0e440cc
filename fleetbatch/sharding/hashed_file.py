"""A file that a store is handed piece by piece, each hashed while the processor has it at hand."""

import hashlib
import io

from fleetbatch.sharding.scratch import Scratch
from fleetbatch.store import Arrival
from fleetbatch.units import Sha256


class HashedFile(io.IOBase):
    """A file while it is written, as pyarrow writes to one of Python's."""

    def __init__(self, arrival: Arrival, memory: Scratch) -> None:
        """Begin an empty file, over whatever is in the memory; it will be the object that arrives.

        What the store takes in pieces is gathered in the same small memory again and again; the rest needs memory for
        all of it.
        """
        self._arrival, self._scratch = arrival, memory
        pieces_of = arrival.piece_bytes
        self._memory = memory.view() if pieces_of is None else memory.grown(pieces_of)[:pieces_of]
        self._hash, self._arrived_bytes, self._filled_bytes = hashlib.sha256(), 0, 0

    def writable(self) -> bool:
        """Return that it is written to."""
        return True

    def write(self, data: bytes) -> int:
        """Take what comes next, which is hashed before it goes to memory that is not at hand."""
        self._hash.update(data)
        start = self._filled_bytes
        stop = start + len(data)
        if stop > len(self._memory):
            return self._write_on(memoryview(data))
        self._memory[start:stop] = data
        self._filled_bytes = stop
        return stop - start

    def tell(self) -> int:
        """Return how many bytes it has."""
        return self._arrived_bytes + self._filled_bytes

    def keep(self) -> bool:
        """Make it the object; return False, changing nothing, when there is one."""
        self._hand_over()
        return self._arrival.keep()

    def sha256(self) -> Sha256:
        """Return its hash."""
        return Sha256(self._hash.hexdigest())

    def _write_on(self, data: memoryview) -> int:
        """Take what does not fit."""
        if self._arrival.piece_bytes is None:
            needed_bytes = self._filled_bytes + len(data)
            self._memory = self._scratch.grown(needed_bytes, keep_bytes=self._filled_bytes)
        left = data
        while left:
            start = self._filled_bytes
            stop = min(start + len(left), len(self._memory))
            self._memory[start:stop] = left[: stop - start]
            self._filled_bytes, left = stop, left[stop - start :]
            if left:
                self._hand_over()
        return len(data)

    def _hand_over(self) -> None:
        self._arrival.add(self._memory[: self._filled_bytes])
        self._arrived_bytes, self._filled_bytes = self.tell(), 0
