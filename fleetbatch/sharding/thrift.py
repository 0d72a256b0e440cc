"""Thrift's compact protocol, in which a Parquet file says what it holds. Pure."""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final

_SHORT_LIST: Final = 15
"""A list of fewer says how many there are beside their kind."""
_STOP: Final = b"\0"


class Kind(IntEnum):
    """What a field is, as the protocol numbers it."""

    I16 = 4
    I32 = 5
    I64 = 6
    BINARY = 8
    LIST = 9
    STRUCT = 12


def layout(fields: Mapping[int, Kind]) -> bytes:
    """Return a struct as a template, which `%` makes one of its fields as they are written.

    The fields' numbers rise, by 15 at most. A file has a struct for every page: written field by field each would cost
    as much as sealing its page.
    """
    parts, before = list[bytes](), 0
    for number_, kind in fields.items():
        parts += (bytes([number_ - before << 4 | kind]).replace(b"%", b"%%"), b"%b")
        before = number_
    return b"".join([*parts, _STOP])


def varint(value: int) -> bytes:
    """Return a number that is not negative, seven bits a byte, the lowest first."""
    if value <= 0x7F:  # noqa: PLR2004 (what seven bits hold)
        return bytes((value,))
    low = bytearray()
    while value > 0x7F:  # noqa: PLR2004
        low.append(value & 0x7F | 0x80)
        value >>= 7
    low.append(value)
    return bytes(low)


def number(value: int) -> bytes:
    """Return a number of 16, 32 or 64 bits; it is not negative, as none in a file's description is."""
    return varint(value << 1)


def binary(data: bytes) -> bytes:
    """Return bytes."""
    return varint(len(data)) + data


def text(words: str) -> bytes:
    """Return a text."""
    return binary(words.encode())


def listed(kind: Kind, values: Sequence[bytes]) -> bytes:
    """Return a list of values of one kind."""
    size = len(values)
    head = bytes((size << 4 | kind,)) if size < _SHORT_LIST else bytes((0xF0 | kind,)) + varint(size)
    return head + b"".join(values)
