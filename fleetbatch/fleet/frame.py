"""The small numbers that stand for names in the planner's tables, fixed once a round. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

WORKLOADS_MAX = 32
"""Consent and cached models are 32 bits of a car's row."""
HARDWARE_MAX = 8
"""A shard's hardware mask is 8 bits."""
OTHER_HARDWARE = "other"
_KIND = ("workload", "model_sha256", "data_class")

Kind = tuple[str, str, str]
"""A workload, the hash of its model, the data class of its input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What the indexes in `cars` and `shards` mean."""

    kinds: tuple[Kind, ...]
    """Index of a workload in the planner's tables -> (workload, model_sha256, data_class)."""
    hardware: tuple[str, ...]
    """Index of a hardware class -> its name; the last one may be `other`."""

    def hardware_index(self, name: str) -> int:
        """Return the index of a class; a class beyond the eight commonest counts as `other`, the last."""
        return self.hardware.index(name) if name in self.hardware else len(self.hardware) - 1


def frame(open_shards: pa.Table, hardware_seen: Iterable[str]) -> Frame:
    """Return the frame of a round: models in use, and the commonest hardware classes, both in order of name.

    A ninth hardware class and what follows share the name `other`: cars name their class themselves, so their
    number must not matter. Shards of a 33rd model wait until one of the others is done.
    """
    kinds = pl.DataFrame(open_shards.select(list(_KIND))).unique().sort(*_KIND)
    counts = Counter(hardware_seen)
    by_use = sorted(counts, key=lambda name: (-counts[name], name))
    kept = by_use if len(by_use) <= HARDWARE_MAX else [*by_use[: HARDWARE_MAX - 1], OTHER_HARDWARE]
    hardware = sorted(set(kept) - {OTHER_HARDWARE}) + [OTHER_HARDWARE] * (OTHER_HARDWARE in kept or not kept)
    return Frame(kinds=tuple(kinds.head(WORKLOADS_MAX).rows()), hardware=tuple(hardware))
