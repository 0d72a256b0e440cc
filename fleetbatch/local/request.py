"""What somebody asked the laptop for: the repository's order, or their own pictures and model."""

import json
import math
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from fleetbatch.errors import RejectedError

_SHARDS_PER_CAR: Final = 3
"""Enough that every car gets some and a car that leaves takes little with it."""
_ROWS_MIN: Final = {"image": 8, "video": 1}
_ROWS_MAX: Final = 2000
_PARTS: Final = 4
"""Row groups of a shard, each delivered as a part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightRequest:
    """One night on the laptop. Without `images` or `video` the order file of that name runs."""

    home: Path
    night: str
    order: str = "overnight"
    images: Path | None = None
    video: Path | None = None
    every_s: float = 1.0
    """Which frames of `video` are looked at."""
    model: Path | None = None
    force: bool = False
    cars: int = 8
    incidents: bool = True
    """Let one owner unplug and one car be killed in mid-shard."""

    @property
    def folder(self) -> Path | None:
        """Return the folder of somebody's own input."""
        return self.images or self.video

    @property
    def workload(self) -> str:
        """Return what is done with it."""
        return "image" if self.video is None else "video"


def check_request(request: NightRequest) -> None:
    """Raise RejectedError with everything that can be seen to be wrong before anything is started."""
    problems = _own_problems(request)
    try:
        datetime.strptime(request.night, "%Y-%m-%d")  # noqa: DTZ007 # a night is a local date
    except ValueError:
        problems.append(f"--night {request.night}: not a date; expected YYYY-MM-DD")
    if request.cars < 0:
        problems.append(f"--cars {request.cars}: a fleet cannot be negative (0 leaves the night to the cloud lane)")
    if problems:
        summary = "this night cannot start"
        raise RejectedError(summary, problems)


def _own_problems(request: NightRequest) -> list[str]:
    """Return what is wrong with what somebody brings: input and model."""
    problems = []
    if request.images is not None and request.video is not None:
        problems.append("--images and --video are two nights: run one after the other")
    if (request.folder is None) != (request.model is None):
        problems.append("--images (or --video) and --model go together: see `fleetbatch model pack` for a bundle")
    if request.folder is not None and not request.folder.is_dir():
        flag = "--images" if request.video is None else "--video"
        problems.append(f"{flag} {request.folder}: there is no such folder")
    if not request.every_s > 0:
        problems.append(f"--every-s {request.every_s}: expected seconds above 0")
    if request.model is not None and not request.model.is_file():
        problems.append(f"--model {request.model}: there is no such file")
    elif request.model is not None and request.model.suffix != ".zip":
        problems.append(f"--model {request.model}: not a bundle (.zip); make one of it with `fleetbatch model pack`")
    return problems


def order_name_of(request: NightRequest) -> str:
    """Return the order's name: the order file's, or one that follows from the folder of somebody's own input."""
    if request.folder is None:
        return request.order
    slug = re.sub(r"[^a-z0-9_-]+", "-", request.folder.name.lower()).strip("-")
    return (slug if slug[:1].isalpha() else f"{request.workload}s-{slug}".rstrip("-"))[:40]


def own_order(request: NightRequest, rows: int) -> str:
    """Return the order file (TOML) for somebody's own input, cut so small that every car of the laptop has work."""
    shards = max(1, request.cars * _SHARDS_PER_CAR)
    shard_rows = min(_ROWS_MAX, max(_ROWS_MIN[request.workload], math.ceil(rows / shards)))
    lines = [
        f"# Written by `fleetbatch night`: {rows} rows.",
        f'workload = "{request.workload}"',
        f"source = {json.dumps(str(request.folder))}",
        f"model = {json.dumps(str(request.model))}",
        "deadline_hours = 8.0",
        'schedule = ""',
        "",
        "[cutting]",
        f"shard_rows = {shard_rows}",
        f"row_group_rows = {math.ceil(shard_rows / _PARTS)}",
        "",
        "[options]",
        *(f"{name} = {value}" for name, value in own_options(request).items()),
    ]
    return "\n".join(lines) + "\n"


def own_options(request: NightRequest) -> dict[str, str]:
    """Return the options of an order for somebody's own input."""
    return {} if request.video is None else {"every_s": str(request.every_s), "segment_s": "1.0"}
