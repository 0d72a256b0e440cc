"""A Parquet file that is sealed page by page (modular encryption, AES_GCM_V1), each page once it is there.

pyarrow's writer takes a whole row group, and copies every page from buffer to buffer: memory that the processor has to
fetch again each time, and a cut took 1.4 times the CPU with it. Here an item is sealed from where it was read to where
it is stored, and hashed there, while it is at hand. The format is the standard's: pyarrow reads it, and DuckDB what it
reads of pyarrow's own (columns of one page).
"""

import hashlib
import os
import struct as packing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import GCM

from fleetbatch.sharding.parquet_parts import (
    LENGTH,
    MAGIC,
    Chunk,
    Index,
    Page,
    chunk_of,
    crypto_metadata,
    footer,
    offset_index,
    page_header,
)
from fleetbatch.sharding.scratch import Scratch
from fleetbatch.units import KIB, Sha256

_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_HEAD_BYTES: Final = LENGTH.size + _NONCE_BYTES
_AROUND_BYTES: Final = _HEAD_BYTES + _TAG_BYTES
"""A module is its length, a nonce, what is sealed, and a tag."""
_UNIQUE_BYTES: Final = 8
_LARGE_BYTES: Final = 512 * KIB
_PIECE_BYTES: Final = 256 * KIB
"""To begin a seal in pieces takes 40 us, as much as hashing a piece again from memory that is far."""


_FOOTER, _PAGE, _HEADER, _OFFSETS = b"\0", b"\2", b"\4", b"\7"
"""What is sealed, and behind it its place in the file: in the seal, so that no module passes for another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """Where a row group lies: bytes [start, stop)."""

    rows: int
    start: int
    stop: int


class SealedFile:
    """A file while it is written, in scratch memory, hashed as it comes."""

    def __init__(self, schema: pa.Schema, memory: Scratch, *, key: bytes) -> None:
        """Begin a file over whatever the memory holds; the key is this file's alone."""
        self.schema, self._scratch, self._memory = schema, memory, memory.view()
        self._gcm, self._cipher, self._unique = AESGCM(key), AES256(key), os.urandom(_UNIQUE_BYTES)
        self._hash, self._size_bytes = hashlib.sha256(), 0
        self._compressed = [one.type != pa.binary() for one in schema]
        self._groups: list[list[Chunk]] = []
        self._pages: list[list[Page]] = [[] for _ in schema]
        self._write(MAGIC)

    def page(self, column: int, plain: bytes | memoryview, *, rows: int) -> None:
        """Seal the next page of a column; the pages of one are not interrupted by those of another."""
        pages, start = self._pages[column], self._size_bytes
        place = packing.pack("<3H", len(self._groups), column, len(pages))
        stored = pa.compress(plain, codec="snappy", asbytes=True) if self._compressed[column] else plain
        header = page_header(rows=rows, plain_bytes=len(plain), stored_bytes=len(stored) + _AROUND_BYTES)
        self._seal(header, _HEADER + place)
        self._seal(stored, _PAGE + place)
        size_bytes, plain_bytes = self._size_bytes - start, len(header) + len(plain)
        pages.append(Page(start=start, size_bytes=size_bytes, plain_bytes=plain_bytes, rows=rows))

    def end_group(self) -> None:
        """End a row group, in which every column has a page."""
        columns = zip(self._pages, self._compressed, strict=True)
        self._groups.append([chunk_of(pages, compressed=compressed) for pages, compressed in columns])
        self._pages = [[] for _ in self.schema]

    def end(self, said: Mapping[str, str]) -> None:
        """Write page index and footer."""
        groups = [
            [(chunk, self._offsets(chunk, packing.pack("<2H", group, column))) for column, chunk in enumerate(chunks)]
            for group, chunks in enumerate(self._groups)
        ]
        start = self._size_bytes
        self._write(crypto_metadata(self._unique))
        self._seal(footer(self.schema, groups, said), _FOOTER)
        self._write(LENGTH.pack(self._size_bytes - start) + MAGIC)

    def data(self) -> memoryview:
        """Return what there is of the file."""
        return self._memory[: self._size_bytes]

    def sha256(self) -> Sha256:
        """Return its hash."""
        return Sha256(self._hash.hexdigest())

    def row_groups(self) -> list[RowGroup]:
        """Return where the row groups lie."""
        return [
            RowGroup(
                rows=chunks[0].rows,
                start=min(chunk.start for chunk in chunks),
                stop=max(chunk.start + chunk.size_bytes for chunk in chunks),
            )
            for chunks in self._groups
        ]

    def _offsets(self, chunk: Chunk, place: bytes) -> Index | None:
        """Write where a chunk's pages are, unless it is one page: where that is stands in the footer."""
        if len(chunk.pages) == 1:
            return None
        start = self._size_bytes
        self._seal(offset_index(chunk), _OFFSETS + place)
        return Index(start=start, size_bytes=self._size_bytes - start)

    def _seal(self, plain: bytes | memoryview, module: bytes) -> None:
        """Seal one module under a nonce of its own; which file's it is, and which, are in the seal."""
        room, nonce = self._room(len(plain) + _AROUND_BYTES), os.urandom(_NONCE_BYTES)
        room[:_HEAD_BYTES] = LENGTH.pack(len(room) - LENGTH.size) + nonce
        if len(plain) > _LARGE_BYTES:
            self._seal_in_pieces(memoryview(plain), module, nonce, room)
            return
        self._gcm.encrypt_into(nonce, plain, self._unique + module, room[_HEAD_BYTES:])
        self._hash.update(room)

    def _seal_in_pieces(self, plain: memoryview, module: bytes, nonce: bytes, room: memoryview) -> None:
        """Seal and hash a module piece by piece: what is larger than the processor's cache is gone before its end."""
        sealing = Cipher(self._cipher, GCM(nonce)).encryptor()
        sealing.authenticate_additional_data(self._unique + module)
        self._hash.update(room[:_HEAD_BYTES])
        for start in range(0, len(plain), _PIECE_BYTES):
            piece = plain[start : start + _PIECE_BYTES]
            sealed = room[_HEAD_BYTES + start : _HEAD_BYTES + start + len(piece)]
            sealing.update_into(piece, sealed)
            self._hash.update(sealed)
        sealing.finalize()
        room[-_TAG_BYTES:] = sealing.tag
        self._hash.update(sealing.tag)

    def _write(self, plain: bytes) -> None:
        self._room(len(plain))[:] = plain
        self._hash.update(plain)

    def _room(self, size_bytes: int) -> memoryview:
        start, stop = self._size_bytes, self._size_bytes + size_bytes
        if stop > len(self._memory):
            self._memory = self._scratch.grown(stop, keep_bytes=start)
        self._size_bytes = stop
        return self._memory[start:stop]
