"""Answers are put beside the items they are about: an item is there whole, or not at all. Pure."""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch.contracts import contract
from fleetbatch.errors import RejectedError
from fleetbatch.merge.codes import conform_coded
from fleetbatch.units import ShardId, shard_hex

Counts: TypeAlias = npt.NDArray[np.int64]

_PROBLEMS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A shard's answers beside their items."""

    results: pa.Table
    """By the results' contract, in the order of the items; texts that repeat as codes."""
    unanswered: pa.Table
    """Sources of the items without an answer."""
    items: int
    """Answered items, dead ones included."""
    dead: int
    """Items that have errors only."""


def place(name: str, shard_id: ShardId, answered: pa.Table, sources: pa.Table) -> Placed:
    """Return answers (contract `name` without source_uri) beside their sources; raise RejectedError for misfits.

    An answer to an item that the shard does not have, a doubled one, and an item with another number of answers than
    its source says are misfits.
    """
    begun = sources.slice(0, answered.num_rows)
    single = len(contract(name).key) == 1
    if single and answered["item_id"].equals(begun["item_id"]):  # as it comes: parts in order, rows in order
        return Placed(
            results=conform_coded(answered.append_column("source_uri", begun["source_uri"]), name),
            unanswered=sources.slice(answered.num_rows),
            items=answered.num_rows,
            dead=answered.num_rows - answered["error"].null_count,
        )
    return _place(name, shard_id, answered, sources)


def _place(name: str, shard_id: ShardId, answered: pa.Table, sources: pa.Table) -> Placed:
    at = pc.index_in(answered["item_id"], value_set=sources["item_id"].combine_chunks())
    unknown = [str(item) for item in answered["item_id"].filter(at.is_null()).to_pylist()]
    problems = _strangers(answered, name, unknown)
    if problems:
        summary = f"the valid parts of shard {shard_hex(shard_id)} are not its rows; audit it again"
        raise RejectedError(summary, problems)
    places, failed = at.to_numpy(), answered["error"].is_valid().to_numpy()
    counts = np.bincount(places, minlength=sources.num_rows)
    errors = np.bincount(places[failed], minlength=sources.num_rows)
    _refuse_partial(shard_id, sources, counts, errors)
    order = np.argsort(places, kind="stable")
    results = answered.take(order).append_column("source_uri", sources["source_uri"].take(places[order]))
    return Placed(
        results=conform_coded(results, name),
        unanswered=sources.filter(pa.array(counts == 0)),
        items=int((counts > 0).sum()),
        dead=int(((counts > 0) & (counts == errors)).sum()),
    )


def _strangers(answered: pa.Table, name: str, unknown: list[str]) -> list[str]:
    problems = [f"row {item} is not in the shard" for item in unknown[:_PROBLEMS_SHOWN]]
    key = list(contract(name).key)
    doubled = answered.num_rows - answered.select(key).unify_dictionaries().group_by(key).aggregate([]).num_rows
    return problems + ([f"{doubled} rows are answered twice"] if doubled else [])


def _refuse_partial(shard_id: ShardId, sources: pa.Table, counts: Counts, errors: Counts) -> None:
    """Raise RejectedError naming items that have some of their answers; one error may stand for all of them."""
    wanted = np.array([-1 if count is None else count for count in sources["answers"].to_pylist()])
    whole = (counts == 0) | (wanted == -1) | (counts == wanted) | ((counts == 1) & (errors == 1))
    if not whole.all():
        partial = np.flatnonzero(~whole)[:_PROBLEMS_SHOWN].tolist()
        summary = f"items of shard {shard_hex(shard_id)} are answered in part; audit it again"
        items = sources["item_id"]
        raise RejectedError(summary, [f"{items[row]} has {counts[row]} answers of {wanted[row]}" for row in partial])
