"""What cars can compute. A workload turns opened input rows into answers and compares two answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch.bundle import Bundle
from fleetbatch.errors import RejectedError

Scorer = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""[N, ...] inputs to [N, classes] scores; `inference.Inference` is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What comparing two answers for the same rows found."""

    rows: int
    disagreements: tuple[tuple[str, str], ...]
    """(item_id, why), in the order of our rows."""


class Workload(Protocol):
    """One kind of work; tables in and out follow the named contracts."""

    @property
    def name(self) -> str:
        """Return what orders and leases call it."""
        ...

    @property
    def answers_contract(self) -> str:
        """Return the contract of a part."""
        ...

    @property
    def results_contract(self) -> str:
        """Return the contract of what is published."""
        ...

    def answer(self, rows: pa.Table, bundle: Bundle, inference: Scorer, *, row_group: int) -> pa.Table:
        """Return one answer per row of contract `shard`, in order; a row that cannot be answered has `error` set."""
        ...

    def compare(self, ours: pa.Table, theirs: pa.Table) -> Comparison:
        """Return where `theirs` is not what `ours` (recomputed on a trusted machine) says, for each row of ours."""
        ...


def workload(name: str) -> Workload:
    """Return a workload by name; raise RejectedError that lists the known names."""
    from fleetbatch.workloads.image import ImageWorkload

    known: dict[str, Workload] = {"image": ImageWorkload()}
    if name not in known:
        summary = f"workload {name!r} is not known; known are {', '.join(known)}"
        raise RejectedError(summary)
    return known[name]
