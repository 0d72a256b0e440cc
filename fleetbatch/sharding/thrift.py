"""Thrift's compact protocol, as much of it as the pages and the footer of a Parquet file need. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

_I16, _I32, _I64, _BINARY, _LIST, _STRUCT = 4, 5, 6, 8, 9, 12
_SHORT_LIST_MAX: Final = 14
"""A longer list has its length behind its kind."""
_MORE: Final = 0x80
"""The bit of a byte that says that another follows."""
_BYTES: Final = tuple(bytes([number]) for number in range(256))

Value: TypeAlias = tuple[int, bytes]
"""What kind of value it is, and the value."""


def varint(number: int) -> bytes:
    """Return a number from 0 on, seven bits a byte, the lowest first."""
    if number < _MORE:
        return _BYTES[number]
    found = bytearray()
    while number >= _MORE:
        found.append(number & 0x7F | _MORE)
        number >>= 7
    found.append(number)
    return bytes(found)


def i16(number: int) -> Value:
    """Return a number of 16 bits."""
    return _I16, _zigzag(number)


def i32(number: int) -> Value:
    """Return a number of 32 bits."""
    return _I32, _zigzag(number)


def i64(number: int) -> Value:
    """Return a number of 64 bits."""
    return _I64, _zigzag(number)


def binary(data: bytes | str) -> Value:
    """Return bytes, or a text as UTF-8."""
    data = data.encode() if isinstance(data, str) else data
    return _BINARY, varint(len(data)) + data


def listed(values: Sequence[Value]) -> Value:
    """Return a list of values that are all of one kind, at least one."""
    (kind, _), size = values[0], len(values)
    head = bytes([size << 4 | kind]) if size <= _SHORT_LIST_MAX else bytes([0xF0 | kind]) + varint(size)
    return _LIST, head + b"".join([data for _, data in values])


def struct(fields: Mapping[int, Value]) -> Value:
    """Return a structure of fields by their numbers, which ascend by at most 15."""
    parts: list[bytes] = []
    last = 0
    for number, (kind, data) in fields.items():
        parts += _BYTES[number - last << 4 | kind], data
        last = number
    return _STRUCT, b"".join(parts) + b"\0"


def _zigzag(number: int) -> bytes:
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)
