"""What runner and worker say to each other over a pipe: length-prefixed msgpack, never a file, so no key is on disk."""

import struct
from typing import IO, Final, TypeAlias

import msgspec

from fleetbatch.protocol import Lease

_LENGTH: Final = struct.Struct(">I")


class Work(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """To the worker: compute one row group, or rows [start, stop) of it, which are here where another has read them."""

    lease: Lease
    row_group: int
    start: int = 0
    stop: int | None = None
    """None: up to its end."""
    rows: bytes = b""
    few: bool = False
    """Few rows at a time: another may soon be idle, and is not to wait for its half."""
    one_by_one: bool = False
    """Each row alone."""
    dead: dict[int, str] = {}
    """Row to reason: rows that are answered with that error."""


class Share(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """To the worker: another is idle. Give half of what you have not begun of this lease, as soon as there is some."""

    lease_id: str


class GroupDone(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """From the worker: the answers of one row group, from row `start` on, as an Arrow stream."""

    lease_id: str
    row_group: int
    start: int
    answers: bytes
    down_bytes_per_s: float


class Spare(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """From the worker, which was asked to share: rows [start, stop) of its row group as an Arrow stream, opened.

    What it has still to do ends where they begin.
    """

    lease_id: str
    row_group: int
    start: int
    stop: int
    rows: bytes


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """From the worker: it cannot compute this lease. `refused` when trying again would change nothing."""

    lease_id: str
    refused: bool
    detail: str


ToWorker: TypeAlias = Work | Share
FromWorker: TypeAlias = GroupDone | Spare | Failed


def write_frame(pipe: IO[bytes], message: msgspec.Struct) -> None:
    """Write one message."""
    body = msgspec.msgpack.encode(message)
    pipe.write(_LENGTH.pack(len(body)))
    pipe.write(body)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> bytes | None:
    """Return the next message's bytes, or None when the other side is gone."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = pipe.read(length)
    return body if len(body) == length else None


def to_worker(frame: bytes) -> ToWorker:
    """Decode what a worker is told."""
    return msgspec.msgpack.decode(frame, type=Work | Share)


def from_worker(frame: bytes) -> FromWorker:
    """Decode what a worker says."""
    return msgspec.msgpack.decode(frame, type=GroupDone | Spare | Failed)
