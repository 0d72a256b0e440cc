"""What cars said and nobody has written yet: text in a few large pieces of memory, since it is most of what is kept.

An object for each message would be a page fault every third poll, and work for the garbage collector; memory that is
asked for in pieces comes in huge pages where the system has them.
"""

import contextlib
import mmap
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Final, NamedTuple

import msgspec

from fleetbatch.protocol import PollRequest
from fleetbatch.units import CarId

_PIECE_BYTES: Final = 4 << 20
_PIECES: Final = 16
"""So many pieces there are at least when all is kept that may be: the oldest goes in one."""
_ROW_BYTES: Final = 80
"""What a row takes beside its text."""
_LINE_END: Final = b"\n"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(PollRequest).decode


class Heard(NamedTuple):
    """One poll or beat as it arrived."""

    car_id: CarId
    at: datetime
    said: bytes
    """A valid `PollRequest`, as JSON in one line."""


class Piece:
    """What was heard one after the other, in one piece of memory."""

    def __init__(self, size_bytes: int) -> None:
        """Ask for the memory; what is not written to is not there yet."""
        self.size_bytes = self.room_bytes = size_bytes
        self._text = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(AttributeError, OSError):  # Linux only, and not every kernel
            self._text.madvise(mmap.MADV_HUGEPAGE)
        self.cars = array("Q")
        self.instants: list[datetime] = []

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.cars)

    def __iter__(self) -> Iterator[Heard]:
        """Give the rows as they were heard."""
        lines = bytes(self.lines).split(_LINE_END)[:-1]
        for car, at, said in zip(self.cars, self.instants, lines, strict=True):
            yield Heard(CarId(car), at, said)

    @property
    def lines(self) -> memoryview:
        """Return what was said, a line each."""
        return memoryview(self._text)[: self._text.tell()]

    def add(self, car: CarId, at: datetime, line: bytes) -> None:
        """Add a row; there must be room for its line and `_ROW_BYTES`."""
        self._text.write(line)
        self.cars.append(car)
        self.instants.append(at)
        self.room_bytes -= len(line) + _ROW_BYTES

    @property
    def used_bytes(self) -> int:
        """Return how much of its memory is taken."""
        return self.size_bytes - self.room_bytes

    def add_all(self, other: "Piece") -> None:
        """Add the rows of another piece; there must be room for what that uses."""
        self._text.write(other.lines)
        self.cars.extend(other.cars)
        self.instants.extend(other.instants)
        self.room_bytes -= other.used_bytes


class Rows:
    """What was taken to be written, read from its memory as often as it is gone through."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        """Hold pieces to which nothing is added any more."""
        self.pieces = pieces

    def __len__(self) -> int:
        """Return how many rows there are."""
        return sum(map(len, self.pieces))

    def __iter__(self) -> Iterator[Heard]:
        """Give the rows as they were heard."""
        return chain.from_iterable(self.pieces)


class Telemetry:
    """Keeps what was heard until it is written; when the store is away for long, the oldest goes."""

    def __init__(self, bytes_max: int) -> None:
        """Start with nothing heard."""
        self._bytes_max = bytes_max
        self._piece_bytes = min(_PIECE_BYTES, bytes_max // _PIECES)
        self._pieces: deque[Piece] = deque()
        self._newest: Piece | None = None
        """The last of them, if rows may be added to it."""
        self.dropped = 0
        """Rows that went unwritten."""

    def __len__(self) -> int:
        """Return how many rows wait."""
        return sum(map(len, self._pieces))

    def hear(self, car: CarId, at: datetime, request: PollRequest | bytes) -> None:
        """Keep one row; bytes are those of a message that was found valid."""
        if isinstance(request, bytes):
            said = _encode(_decode(request)) if _LINE_END in request else request
        else:
            said = _encode(request)
        line, newest = said + _LINE_END, self._newest
        if newest is None or newest.room_bytes < len(line) + _ROW_BYTES:
            newest = self._begin(len(line) + _ROW_BYTES)
        newest.add(car, at, line)

    def take(self) -> Rows:
        """Return all rows, and forget them."""
        rows = Rows(tuple(self._pieces))
        self._pieces.clear()
        self._newest = None
        return rows

    def put_back(self, rows: Rows) -> None:
        """Keep rows that could not be written.

        They move together: a store that is away for hours leaves a piece at every try, and most of each would be empty.
        """
        may_grow = self._newest is not None
        self._pieces = _moved_together((*rows.pieces, *self._pieces), self._piece_bytes)
        self._newest = self._pieces[-1] if may_grow else None
        self._drop_oldest(0)

    def _begin(self, least_bytes: int) -> Piece:
        """Begin a piece that has room for a row of so many bytes."""
        size_bytes = max(least_bytes, self._piece_bytes)
        self._drop_oldest(size_bytes)
        self._newest = piece = Piece(size_bytes)
        self._pieces.append(piece)
        return piece

    def _drop_oldest(self, room_bytes: int) -> None:
        """Drop pieces until there is so much room."""
        used_bytes = room_bytes + sum(piece.size_bytes for piece in self._pieces)
        while used_bytes > self._bytes_max and self._pieces:
            oldest = self._pieces.popleft()
            used_bytes -= oldest.size_bytes
            self.dropped += len(oldest)
        if not self._pieces:
            self._newest = None


def _moved_together(pieces: Iterable[Piece], size_bytes: int) -> deque[Piece]:
    """Return the rows in pieces of which no two neighbours would fit into one.

    Nothing is added to a piece that is given: whoever failed to write it may hold on to its memory.
    """
    kept: deque[Piece] = deque()
    for piece in pieces:
        fits = bool(kept) and kept[-1].used_bytes + piece.used_bytes <= size_bytes
        kept.append(_both(kept.pop(), piece, size_bytes) if fits else piece)
    return kept


def _both(first: Piece, second: Piece, size_bytes: int) -> Piece:
    both = Piece(size_bytes)
    both.add_all(first)
    both.add_all(second)
    return both
