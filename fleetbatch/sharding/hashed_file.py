"""A file that a store is handed piece by piece, each hashed while the processor has it at hand."""

import hashlib

from fleetbatch.sharding.scratch import Scratch
from fleetbatch.store import Arrival
from fleetbatch.units import Sha256


class HashedFile:
    """A file while it is written."""

    def __init__(self, arrival: Arrival, memory: Scratch) -> None:
        """Begin an empty file, over whatever is in the memory; it will be the object that arrives.

        What the store takes in pieces is gathered in the same small memory again and again; the rest needs memory for
        all of it.
        """
        self._arrival, self._scratch, self._memory = arrival, memory, memory.view()
        self._hash, self._arrived_bytes, self._filled_bytes = hashlib.sha256(), 0, 0

    def lend(self, size_bytes: int) -> memoryview:
        """Return so many bytes where what comes next will lie, to be written to."""
        start = self._filled_bytes
        if start + size_bytes > len(self._memory):
            self._memory = self._scratch.grown(start + size_bytes, keep_bytes=start)
        return self._memory[start : start + size_bytes]

    def take(self, size_bytes: int) -> None:
        """Take so many of the bytes that were lent as what comes next."""
        start, stop = self._filled_bytes, self._filled_bytes + size_bytes
        self._hash.update(self._memory[start:stop])
        self._filled_bytes, piece_bytes = stop, self._arrival.piece_bytes
        if piece_bytes is not None and stop >= piece_bytes:
            self._hand_over(piece_bytes)

    def write(self, data: bytes) -> None:
        """Take what comes next."""
        self.lend(len(data))[:] = data
        self.take(len(data))

    def tell(self) -> int:
        """Return how many bytes it has."""
        return self._arrived_bytes + self._filled_bytes

    def keep(self) -> bool:
        """Make it the object; return False, changing nothing, when there is one."""
        self._arrival.add(self._memory[: self._filled_bytes])
        return self._arrival.keep()

    def sha256(self) -> Sha256:
        """Return its hash."""
        return Sha256(self._hash.hexdigest())

    def _hand_over(self, piece_bytes: int) -> None:
        """Hand over whole pieces; what is left begins the next one."""
        stop = self._filled_bytes - self._filled_bytes % piece_bytes
        for start in range(0, stop, piece_bytes):
            self._arrival.add(self._memory[start : start + piece_bytes])
        left_bytes = self._filled_bytes - stop
        self._memory[:left_bytes] = self._memory[stop : self._filled_bytes]
        self._arrived_bytes, self._filled_bytes = self._arrived_bytes + stop, left_bytes
