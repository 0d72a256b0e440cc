"""What an answer may be: a runner makes a dead letter of any other; audits or the morning's checks refuse it. Pure."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch.contracts import Contract, answer_columns

REASON_BYTES_MAX: Final = 1000
"""Of the error of a dead letter; the rest of a longer one is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What an answer may hold."""

    text_bytes: int = 8192
    """Of one label, id or other text."""
    list_items: int = 2048
    row_bytes: int = 16384
    """Of one answer in memory."""
    item_answers: int = 10_000
    """Answers of one item, where the contract lets an item have several."""


def short(reason: str) -> str:
    """Return as much of a reason as stands in a row, as text that can be written, whatever it was made of."""
    return reason.encode(errors="replace")[:REASON_BYTES_MAX].decode(errors="ignore")


def beyond(answers: pa.Table, bounds: Bounds) -> dict[int, str]:
    """Return the numbers of the answers with a text or a list that is too long, and why."""
    found: dict[int, str] = {}
    short_texts = answers.nbytes <= bounds.text_bytes  # as a whole, as most are that are asked for together
    for name, kind in zip(answers.column_names, answers.schema.types, strict=True):
        if pa.types.is_list(kind):
            for place, items in _above(pc.list_value_length(answers[name].combine_chunks()), bounds.list_items):
                why = f"column {name!r} has a list of {items} items; {bounds.list_items} are allowed"
                found.setdefault(place, why)
        if not short_texts and not pa.types.is_primitive(kind):
            for place, size in _long_texts(answers[name].combine_chunks(), bounds.text_bytes):
                why = f"column {name!r} has a text of {size} bytes; {bounds.text_bytes} are allowed"
                found.setdefault(place, why)
    return found


def _long_texts(column: "pa.Array[Any]", bytes_max: int) -> Iterator[tuple[int, int]]:
    """Yield the rows of longer texts, alone, in lists or in structs, and how long they are."""
    if column.nbytes <= bytes_max:
        return
    rows = np.arange(len(column))
    if pa.types.is_list(column.type):
        rows, column = pc.list_parent_indices(column).to_numpy(), pc.list_flatten(column)
    texts: list[Any] = column.flatten() if isinstance(column, pa.StructArray) else [column]
    for text in texts:
        if pa.types.is_string(text.type) or pa.types.is_binary(text.type):
            for place, size in _above(pc.binary_length(text), bytes_max):
                yield int(rows[place]), size


def too_heavy(answers: pa.Table, bounds: Bounds) -> dict[int, str]:
    """Return the numbers of the answers that take too much memory, and why; what stands beside one is not asked."""
    found, left = dict[int, str](), [(0, answers.num_rows)]
    while left:
        start, stop = left.pop()
        size = answers.slice(start, stop - start).nbytes
        if size > bounds.row_bytes and stop - start == 1:
            found[start] = f"the answer has {size} bytes; {bounds.row_bytes} are allowed"
        elif size > bounds.row_bytes:  # of all together; half of them may take less than one alone may
            middle = (start + stop) // 2
            left += [(start, middle), (middle, stop)]
    return found


def unsound(answers: pa.Table, of: Contract) -> dict[int, str]:
    """Return the numbers of the answers that the checks of a night would not publish, and why.

    `of` is the contract of results: its headline is said, and its numbers are numbers, within their ranges.
    """
    fine, found = _truths(answers["error"].is_null()), dict[int, str]()
    headline = (of.headline or "").partition(".")[0]
    if headline:
        nothing = fine & _truths(answers[headline].is_null())
        found.update(
            dict.fromkeys(np.flatnonzero(nothing).tolist(), f"it has neither {headline!r} nor a reason why not")
        )
    for name in answer_columns(of):
        if name not in answers.column_names:
            continue  # nothing is said of it
        low, high = of.ranges.get(name, (-math.inf, math.inf))
        if name in of.ranges or pa.types.is_floating(of.schema.field(name).type):
            numbers = answers[name].to_numpy().astype(np.float64)  # null is no number, as one that is none
            outside = ~(np.isfinite(numbers) & (low <= numbers) & (numbers <= high))
            for place in np.flatnonzero(fine & outside & _truths(answers[name].is_valid())).tolist():
                found.setdefault(place, f"column {name!r} is {numbers[place]}; expected a number {low:g} to {high:g}")
    return found


def _truths(column: "pa.ChunkedArray[Any]") -> npt.NDArray[np.bool_]:
    return column.to_numpy().astype(np.bool_)


def _above(lengths: Any, most: int) -> Iterator[tuple[int, int]]:  # noqa: ANN401 (Arrow's whole numbers)
    """Yield the places of what is longer, and how long it is."""
    known = pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    for place in np.flatnonzero(known > most).tolist():
        yield place, int(known[place])
