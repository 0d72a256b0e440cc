"""What a workload is: how it opens a model, answers rows, and tells a right answer from a wrong one."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch.contracts import contract
from fleetbatch.errors import FleetbatchError, in_one_line

Answer: TypeAlias = Callable[[pa.Table], pa.Table]
"""Rows of contract `shard`, all with bytes and none with an error, to their answers; see `Workload.open`."""

AnswerRow: TypeAlias = dict[str, Any]
"""One row of the contract of answers."""


PIXEL_BYTES: Final = 12
"""A decoded pixel takes four; turned or resized it is there twice, and transparent ones are laid on white."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a process computes with."""

    provider: str
    """onnxruntime's execution provider."""
    threads: int = 1
    precision: str = ""
    """Which variant of a model is wanted where there is one; empty is the main one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What comparing two answers for the same items found."""

    rows: int
    """Items compared."""
    disagreements: tuple[tuple[str, str], ...]
    """(item_id, why), in the order of our items."""


class Workload(ABC):
    """One kind of work. A subclass gives `name` and `open`; everything else has a default.

    Its package ships two contracts in its folder `schemas`: `answers_NAME`, what a car delivers, and `results_NAME`,
    what is published: the same columns and those of contract `results`. Both begin with item_id. An item has one
    answer, unless the contracts' key names a column beside item_id: then it may have many, told apart by that column.
    Columns but item_id, row_group and key are null in an answer that is an error.
    """

    name: ClassVar[str]
    """What orders, leases and bundles call it."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Modules that a car must have besides the one that holds the workload."""
    opener: ClassVar[str] = "fleetbatch.sharding.openers:Files"
    """`module:name` of what cuts its input into rows (sharding.openers.Opener); only trusted machines load it."""

    options: ClassVar[frozenset[str] | None] = None
    """Names of the order's options that `open` and the opener know, so that another is refused; None: it may be any."""

    rows_per_s: ClassVar[float] = 50 / 3
    """What the reference car is taken to answer until cars were measured; an order that does not say how it is cut has
    shards of 20 minutes at this rate."""

    @property
    def answers_contract(self) -> str:
        """Return the contract of a part."""
        return f"answers_{self.name}"

    @property
    def results_contract(self) -> str:
        """Return the contract of what is published."""
        return f"results_{self.name}"

    @property
    def answer_schema(self) -> pa.Schema:
        """Return the columns that `open`'s function gives: those of the contract but row_group."""
        schema = contract(self.answers_contract).schema
        return schema.remove(schema.get_field_index("row_group"))

    @abstractmethod
    def open(self, model: bytes | None, device: Device, options: Mapping[str, str]) -> Answer:
        """Return the function that answers rows.

        `model` is the order's verified bundle, None for an order without one; `options` are the order's. The answers
        have the columns of the contract but row_group, each item's together; what can be said of an item follows from
        its row alone, whatever rows are asked beside it. An answer larger than bounds.py allows is dead. Raises
        RejectedError when the model cannot be used here.
        """

    def misfit(self, model: bytes | None, row: bytes) -> str:  # noqa: ARG002 (workloads that can tell read them)
        """Return why an order's model cannot answer such a row, or nothing; asked in the evening.

        An order is refused when there is a reason for its first row and for a few others, from all over its input. What
        makes a single row unusable is none; nor is a model that `open` refuses, or needs and has not.
        """
        return ""

    def row_bytes(self, rows: pa.Table) -> int:
        """Return the memory that answering the largest of some rows (contract `shard`) takes beside their own bytes.

        A car that has less does not begin. By default that of a picture with the row's width and height.
        """
        pixels = pc.max(pc.multiply(rows["width"].cast(pa.int64()), rows["height"].cast(pa.int64()))).as_py() or 0
        return PIXEL_BYTES * int(pixels)

    def labels(self, model: bytes | None) -> tuple[str, ...] | None:  # noqa: ARG002 (workloads with labels read it)
        """Return every value that the contract's headline may have; None when they cannot be listed."""
        return None

    def differs(self, ours: AnswerRow, theirs: AnswerRow) -> str:
        """Return why two answers without errors are not the same, or nothing; a float must be equal to the bit."""
        wrong = [name for name, value in ours.items() if name != "row_group" and theirs[name] != value]
        return f"{wrong[0]} is {theirs[wrong[0]]!r}, ours is {ours[wrong[0]]!r}" if wrong else ""

    def compare(self, ours: pa.Table, theirs: pa.Table) -> Comparison:
        """Return where `theirs` is not what `ours` (recomputed on a trusted machine) says, for each item of ours."""
        subkey = contract(self.answers_contract).key[1:]
        found, wanted = _by_item(theirs), _by_item(ours)
        whys = ((item, self._difference(rows, found.get(item, []), subkey)) for item, rows in wanted.items())
        return Comparison(rows=len(wanted), disagreements=tuple((item, why) for item, why in whys if why))

    def _difference(self, ours: Sequence[AnswerRow], theirs: Sequence[AnswerRow], subkey: Sequence[str]) -> str:
        if not theirs:
            return "no answer"
        if [_key(row, subkey) for row in ours] != [_key(row, subkey) for row in theirs]:
            return f"{len(theirs)} answers, ours has {len(ours)}, or another {', '.join(subkey) or 'item'}"
        for our, their in zip(ours, theirs, strict=True):
            if (our["error"] is None) != (their["error"] is None):
                return f"error is {their['error']!r}, ours is {our['error']!r}"
            why = self._why(our, their) if our["error"] is None else ""  # the wording may differ between versions
            if why:
                return why
        return ""

    def _why(self, ours: AnswerRow, theirs: AnswerRow) -> str:
        """Ask `differs`; an answer at which it breaks is wrong, unless it breaks at our own one too."""
        try:
            return self.differs(ours, theirs)
        except FleetbatchError:
            raise
        except Exception as error:  # noqa: BLE001 (a user's code raises whatever it raises)
            self.differs(ours, ours)
            return f"it cannot be compared: {in_one_line(error)}"


def _by_item(answers: pa.Table) -> dict[str, list[AnswerRow]]:
    items = defaultdict(list)
    for row in answers.to_pylist():
        items[row["item_id"]].append(row)
    return items


def _key(row: AnswerRow, subkey: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in subkey)
