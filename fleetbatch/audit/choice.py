"""Which rows a trusted machine computes again, and what it concludes. Pure: the secret comes in as an argument."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fleetbatch.nouns import Auditing
from fleetbatch.units import LeaseId, ShardId, shard_hex

_REASONS_KEPT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What an audit of one shard concludes."""

    passed: bool
    audited_items: tuple[str, ...]
    """Rows that were computed again, in the order of the shard."""
    disagreements: int
    detail: str
    """Why it was refused, and what nobody could judge, for a person; else empty."""


def audit_seed(secret: bytes, shard_id: ShardId, lease: LeaseId) -> bytes:
    """Derive the seed of one lease's audit from the order's secret; no car can know it, a retried audit finds it again.

    It shares no bytes with the shard's key, which the car does know.
    """
    return hashlib.blake2b(f"{shard_hex(shard_id)} {lease}".encode(), key=secret, person=b"fleetbatch-audit").digest()


def choose_rows(seed: bytes, rows: Sequence[int], auditing: Auditing) -> tuple[int, ...]:
    """Choose from row numbers those to compute again, ascending: a share of them, but at least the minimum.

    Each row's rank is a keyed hash of its number, so every choice is equally likely to whoever lacks the seed.
    """
    wanted = max(auditing.rows_min, math.ceil(len(rows) * auditing.rows_per_1000 / 1000))
    ranked = sorted(rows, key=lambda row: hashlib.blake2b(row.to_bytes(8), key=seed, digest_size=16).digest())
    return tuple(sorted(ranked[:wanted]))


def judge(
    audited: Sequence[str], disagreements: Sequence[tuple[str, str]], unsteady: Sequence[tuple[str, str]] = ()
) -> Judgement:
    """Pass a shard whose audited rows all agree; one row outside the workload's tolerance refuses it.

    `unsteady` are those that a trusted machine itself answers otherwise each time, and how: they confirm nothing, and
    are nobody's fault but the workload's.
    """
    excused = dict(unsteady)
    wrong = [f"{item}: {why}" for item, why in disagreements if item not in excused]
    odd = [f"{item} is answered otherwise each time: {why}" for item, why in unsteady]
    return Judgement(
        passed=not wrong,
        audited_items=tuple(item for item in audited if item not in excused),
        disagreements=len(wrong),
        detail=_in_short(wrong + odd),
    )


def refuse(problems: Sequence[str], audited: Sequence[str] = ()) -> Judgement:
    """Refuse a delivery that is not what a part must be; none of the rows chosen could be confirmed."""
    return Judgement(
        passed=False, audited_items=tuple(audited), disagreements=max(1, len(audited)), detail=_in_short(problems)
    )


def _in_short(reasons: Sequence[str]) -> str:
    more = len(reasons) - _REASONS_KEPT
    return "; ".join([*reasons[:_REASONS_KEPT], *([f"and {more} more"] if more > 0 else [])])
