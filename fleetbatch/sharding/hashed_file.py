"""A file that is written to scratch memory, each piece hashed while the processor has it at hand."""

import hashlib
import io

from fleetbatch.sharding.scratch import Scratch
from fleetbatch.units import Sha256


class HashedFile(io.IOBase):
    """A file while it is written, as pyarrow writes to one of Python's."""

    def __init__(self, memory: Scratch) -> None:
        """Begin an empty file over whatever the memory holds."""
        self._scratch, self._memory = memory, memory.view()
        self._hash, self._size_bytes = hashlib.sha256(), 0

    def writable(self) -> bool:
        """Return that it is written to."""
        return True

    def write(self, piece: bytes) -> int:
        """Take a piece, which is hashed before it goes to memory that is not at hand."""
        start, stop = self._size_bytes, self._size_bytes + len(piece)
        if stop > len(self._memory):
            self._memory = self._scratch.grown(stop, keep_bytes=start)
        self._hash.update(piece)
        self._memory[start:stop] = piece
        self._size_bytes = stop
        return len(piece)

    def tell(self) -> int:
        """Return how many bytes it has."""
        return self._size_bytes

    def data(self) -> memoryview:
        """Return what there is of the file."""
        return self._memory[: self._size_bytes]

    def sha256(self) -> Sha256:
        """Return its hash."""
        return Sha256(self._hash.hexdigest())
