"""What a sealed Parquet file says of itself: page headers, the page index and the footer, in its format's words. Pure.

Field numbers are those of the format's definition (apache/parquet-format, parquet.thrift).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import pyarrow as pa

from fleetbatch.sharding.thrift import Kind, binary, layout, listed, number, text

_WRITER: Final = text("fleetbatch version 1.0.0")
_VERSION: Final = number(2)
_DATA_PAGE, _PLAIN, _RLE = number(0), number(0), number(3)
_REQUIRED, _OPTIONAL = number(0), number(1)
_INT32, _BYTE_ARRAY = number(1), number(6)
_UTF8: Final = number(0)
_CODECS: Final = {"none": number(0), "snappy": number(1)}
_TYPES: Final = {pa.int32(): _INT32, pa.binary(): _BYTE_ARRAY, pa.string(): _BYTE_ARRAY}
"""The physical type of each of Arrow's."""

_NOTHING: Final = layout({})
_FIRST_OF_UNION: Final = layout({1: Kind.STRUCT})
_PAGE_HEADER: Final = layout({1: Kind.I32, 2: Kind.I32, 3: Kind.I32, 5: Kind.STRUCT})
_DATA_PAGE_HEADER: Final = layout(dict.fromkeys((1, 2, 3, 4), Kind.I32))
_OFFSET_INDEX: Final = layout({1: Kind.LIST})
_PAGE_LOCATION: Final = layout({1: Kind.I64, 2: Kind.I32, 3: Kind.I64})
_AES_GCM: Final = layout({2: Kind.BINARY})
_KEY_VALUE: Final = layout({1: Kind.BINARY, 2: Kind.BINARY})
_ROOT: Final = layout({4: Kind.BINARY, 5: Kind.I32})
_COLUMN: Final = layout({1: Kind.I32, 3: Kind.I32, 4: Kind.BINARY})
_TEXT_COLUMN: Final = layout({1: Kind.I32, 3: Kind.I32, 4: Kind.BINARY, 6: Kind.I32, 10: Kind.STRUCT})
_COLUMN_CHUNK: Final = layout({2: Kind.I64, 3: Kind.STRUCT, 4: Kind.I64, 5: Kind.I32, 8: Kind.STRUCT})
_COLUMN_META: Final = layout(
    {1: Kind.I32, 2: Kind.LIST, 3: Kind.LIST, 4: Kind.I32, **dict.fromkeys((5, 6, 7, 9), Kind.I64)}
)
_ROW_GROUP: Final = layout({1: Kind.LIST, **dict.fromkeys((2, 3, 5, 6), Kind.I64), 7: Kind.I16})
_FOOTER: Final = layout(
    {1: Kind.I32, 2: Kind.LIST, 3: Kind.I64, 4: Kind.LIST, 5: Kind.LIST, 6: Kind.BINARY, 7: Kind.LIST}
)


class Page(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A page that was written, [start, stop) its header and content in the file; one is made for every large item."""

    start: int
    stop: int
    rows: int
    open_bytes: int
    """How large header and content were, neither packed nor sealed."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group that was written: each column's pages, in the order of the schema."""

    columns: tuple[tuple[Page, ...], ...]

    @property
    def rows(self) -> int:
        """Return how many rows it has."""
        return sum(page.rows for page in self.columns[0])

    @property
    def start(self) -> int:
        """Return where it begins in the file."""
        return min(pages[0].start for pages in self.columns)

    @property
    def stop(self) -> int:
        """Return where it ends."""
        return max(pages[-1].stop for pages in self.columns)


def page_header(*, rows: int, open_bytes: int, stored_bytes: int) -> bytes:
    """Return the header of a page of plain values; `stored_bytes` is its size packed and sealed."""
    values = _DATA_PAGE_HEADER % (number(rows), _PLAIN, _RLE, _RLE)
    return _PAGE_HEADER % (_DATA_PAGE, number(open_bytes), number(stored_bytes), values)


def offset_index(pages: Sequence[Page]) -> bytes:
    """Return where a column's pages lie, and with which of the row group's rows each begins."""
    places, first_row = [], 0
    for page in pages:
        places.append(_PAGE_LOCATION % (number(page.start), number(page.stop - page.start), number(first_row)))
        first_row += page.rows
    return _OFFSET_INDEX % listed(Kind.STRUCT, places)


def sealing_words(file_id: bytes) -> bytes:
    """Return how the file is sealed: AES-GCM, all of it under the footer's key."""
    return _FIRST_OF_UNION % (_FIRST_OF_UNION % (_AES_GCM % binary(file_id)))


def footer(
    schema: pa.Schema,
    codecs: Mapping[str, str],
    groups: Sequence[RowGroup],
    indexes: Sequence[Sequence[range]],
    words: Mapping[str, str],
) -> bytes:
    """Return the footer; `indexes` say by row group and column where the page index lies, `words` are its own."""
    columns = [_ROOT % (text("schema"), number(len(schema))), *map(_column, schema)]
    described = [_group(place, schema, codecs, *both) for place, both in enumerate(zip(groups, indexes, strict=True))]
    said = [_KEY_VALUE % (text(name), text(word)) for name, word in words.items()]
    return _FOOTER % (
        _VERSION,
        listed(Kind.STRUCT, columns),
        number(sum(group.rows for group in groups)),
        listed(Kind.STRUCT, described),
        listed(Kind.STRUCT, said),
        _WRITER,
        listed(Kind.STRUCT, [_FIRST_OF_UNION % _NOTHING] * len(schema)),
    )


def _column(field: "pa.Field[Any]") -> bytes:
    repeated = _OPTIONAL if field.nullable else _REQUIRED
    said = (_TYPES[field.type], repeated, text(field.name))
    # A text is called one twice: once for readers of the format's first versions.
    return _TEXT_COLUMN % (*said, _UTF8, _FIRST_OF_UNION % _NOTHING) if field.type == pa.string() else _COLUMN % said


def _group(
    place: int, schema: pa.Schema, codecs: Mapping[str, str], group: RowGroup, indexes: Sequence[range]
) -> bytes:
    columns = zip(schema, group.columns, indexes, strict=True)
    return _ROW_GROUP % (
        listed(Kind.STRUCT, [_chunk(field, codecs[field.name], pages, index) for field, pages, index in columns]),
        number(sum(page.open_bytes for pages in group.columns for page in pages)),
        number(group.rows),
        number(group.start),
        number(group.stop - group.start),
        number(place),
    )


def _chunk(field: "pa.Field[Any]", codec: str, pages: Sequence[Page], index: range) -> bytes:
    described = _COLUMN_META % (
        _TYPES[field.type],
        listed(Kind.I32, [_PLAIN, _RLE]),
        listed(Kind.BINARY, [text(field.name)]),
        _CODECS[codec],
        number(sum(page.rows for page in pages)),
        number(sum(page.open_bytes for page in pages)),
        number(pages[-1].stop - pages[0].start),
        number(pages[0].start),
    )
    sealed_as_the_footer = _FIRST_OF_UNION % _NOTHING
    return _COLUMN_CHUNK % (number(0), described, number(index.start), number(len(index)), sealed_as_the_footer)
