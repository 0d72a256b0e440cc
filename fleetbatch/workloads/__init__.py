"""What cars can compute. A workload turns rows into answers and compares two answers; packages may bring their own."""

from fleetbatch.workloads.answering import answer_rows, rows_at_once, why_ended, with_dead
from fleetbatch.workloads.known import (
    blamed,
    known_workloads,
    open_workload,
    row_seconds,
    row_units,
    usable_workloads,
    workload,
)
from fleetbatch.workloads.protocol import Answer, AnswerRow, Comparison, Device, Workload

__all__ = [
    "Answer",
    "AnswerRow",
    "Comparison",
    "Device",
    "Workload",
    "answer_rows",
    "blamed",
    "known_workloads",
    "open_workload",
    "row_seconds",
    "row_units",
    "rows_at_once",
    "usable_workloads",
    "why_ended",
    "with_dead",
    "workload",
]
