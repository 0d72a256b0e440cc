"""How much memory a car's compute takes, known before anything is opened. Pure.

It is the runner's, and for each worker its process, a model, two row groups, and the picture in work.
"""

from dataclasses import dataclass
from typing import Final

from fleetbatch.errors import RejectedError
from fleetbatch.runner.rota import AHEAD
from fleetbatch.units import MIB

RUNNER_BYTES: Final = 128 * MIB
"""The agent, its calls, and the answers that are not delivered yet."""
PROCESS_BYTES: Final = 144 * MIB
"""A worker that has loaded its libraries and nothing else."""
WORKER_BYTES_MIN: Final = 320 * MIB
"""With less, a worker could not open a photograph beside a small model."""
MODEL_COPIES: Final = 4
"""The file, the session's weights in two layouts, and what lies between its layers."""
GROUP_COPIES: Final = 2
"""A row group as it was sent and as it is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How the memory of a car is divided."""

    workers: int
    worker_bytes: int
    """What each may use."""


def share(memory_bytes: int, cores: int) -> Share:
    """Return as many workers as there are cores and memory for; raise RejectedError when there is none for one."""
    left = memory_bytes - RUNNER_BYTES
    workers = min(cores, left // WORKER_BYTES_MIN)
    if workers < 1:
        needed = (RUNNER_BYTES + WORKER_BYTES_MIN) // MIB
        summary = f"{memory_bytes // MIB} MiB are too little to compute with; a runner needs {needed} MiB"
        raise RejectedError(summary)
    return Share(workers=workers, worker_bytes=left // workers)


def refuse_too_large(worker_bytes: int, *, model_bytes: int, group_bytes: int, row_bytes: int = 0) -> None:
    """Raise RejectedError when a row group would not fit into a worker; `row_bytes` is what its largest row takes."""
    needed = PROCESS_BYTES + MODEL_COPIES * model_bytes + AHEAD * GROUP_COPIES * group_bytes + row_bytes
    if needed > worker_bytes:
        summary = (
            f"needs {needed // MIB} MiB of memory, this car has {worker_bytes // MIB} for it: "
            f"model {model_bytes} bytes, row group {group_bytes} bytes, decoding its largest row {row_bytes} bytes"
        )
        raise RejectedError(summary)
