"""A sealed Parquet file that is written page by page, each sealed from where it lies to where the file has it.

pyarrow's writer gives the same file (Parquet modular encryption, AES_GCM_V1; apache/parquet-format, Encryption.md), but
takes a whole row group from memory and copies every page four times on its way: a cut cost a quarter more. Whatever
reads sealed Parquet reads this.
"""

import os
import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

import pyarrow as pa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fleetbatch.sharding.hashed_file import HashedFile
from fleetbatch.sharding.parquet_words import Page, RowGroup, footer, offset_index, page_header, sealing_words

_MAGIC: Final = b"PARE"
_FILE_ID_BYTES: Final = 8
_SIZE: Final = struct.Struct("<I")
_NONCE_BYTES: Final = 12
_BEFORE_BYTES: Final = _SIZE.size + _NONCE_BYTES
_TAG_BYTES: Final = 16
SEAL_BYTES: Final = _BEFORE_BYTES + _TAG_BYTES
"""What sealing adds to a module: its size, its nonce and its tag."""
_PLACES: Final = tuple(struct.Struct(f"<B{ordinals}h") for ordinals in range(4))


class Module(IntEnum):
    """What is sealed by itself, as the format numbers it."""

    FOOTER = 0
    PAGE = 2
    PAGE_HEADER = 4
    OFFSET_INDEX = 7


class SealedParquet:
    """A file of row groups; of each the columns come one after the other, in any order, page by page."""

    def __init__(self, file: HashedFile, key: bytes, schema: pa.Schema, codecs: Mapping[str, str]) -> None:
        """Begin the file; `codecs` say by column how the pages are packed that will come ("none" or "snappy")."""
        self._file, self._cipher, self._file_id = file, AESGCM(key), os.urandom(_FILE_ID_BYTES)
        self._schema, self._codecs = schema, codecs
        self._groups: list[RowGroup] = []
        self._pages: list[list[Page]] = [[] for _ in schema]  # of the row group that is open, by column
        file.write(_MAGIC)

    def add_page(self, column: str, content: bytes | memoryview, *, rows: int, unpacked_bytes: int) -> None:
        """Write a column's next page, packed already; nothing comes between the pages of a column."""
        number, start = self._schema.get_field_index(column), self._file.tell()
        pages = self._pages[number]
        header = page_header(rows=rows, open_bytes=unpacked_bytes, stored_bytes=len(content) + SEAL_BYTES)
        header_bytes = len(header) + SEAL_BYTES
        size_bytes = header_bytes + len(content) + SEAL_BYTES
        place, room = (len(self._groups), number, len(pages)), self._file.lend(size_bytes)
        self._seal(header, room[:header_bytes], Module.PAGE_HEADER, *place)
        self._seal(content, room[header_bytes:], Module.PAGE, *place)
        self._file.take(size_bytes)
        open_bytes = len(header) + unpacked_bytes
        pages.append(Page(start=start, stop=start + size_bytes, rows=rows, open_bytes=open_bytes))

    def end_group(self) -> RowGroup:
        """End the row group, of which every column has all its pages; return it."""
        group = RowGroup(tuple(map(tuple, self._pages)))
        self._groups.append(group)
        self._pages = [[] for _ in self._schema]
        return group

    def end(self, words: Mapping[str, str]) -> None:
        """Write the page index and the footer, which holds `words`."""
        indexes = [self._index(number, group) for number, group in enumerate(self._groups)]
        start = self._file.tell()
        self._file.write(sealing_words(self._file_id))
        self._write(footer(self._schema, self._codecs, self._groups, indexes, words), Module.FOOTER)
        self._file.write(_SIZE.pack(self._file.tell() - start) + _MAGIC)

    def _index(self, number: int, group: RowGroup) -> list[range]:
        places = []
        for column, pages in enumerate(group.columns):
            start = self._file.tell()
            self._write(offset_index(pages), Module.OFFSET_INDEX, number, column)
            places.append(range(start, self._file.tell()))
        return places

    def _write(self, content: bytes, module: Module, *place: int) -> None:
        size_bytes = len(content) + SEAL_BYTES
        self._seal(content, self._file.lend(size_bytes), module, *place)
        self._file.take(size_bytes)

    def _seal(self, content: bytes | memoryview, room: memoryview, module: Module, *place: int) -> None:
        """Seal a module, bound to this file and to its place in it: nowhere else is it taken for genuine."""
        nonce, bound_to = os.urandom(_NONCE_BYTES), self._file_id + _PLACES[len(place)].pack(module, *place)
        room[:_BEFORE_BYTES] = _SIZE.pack(len(room) - _SIZE.size) + nonce
        self._cipher.encrypt_into(nonce, content, bound_to, room[_BEFORE_BYTES:])
