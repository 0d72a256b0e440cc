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
_ROWS_MIN: Final = 8
_ROWS_MAX: Final = 2000
_PARTS: Final = 4
"""Row groups of a shard, each delivered as a part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightRequest:
    """One night on the laptop. Without `images` the order file of that name runs."""

    home: Path
    night: str
    order: str = "overnight"
    images: Path | None = None
    model: Path | None = None
    force: bool = False
    cars: int = 8
    incidents: bool = True
    """Let one owner unplug and one car be killed in mid-shard."""


def check_request(request: NightRequest) -> None:
    """Raise RejectedError with everything that can be seen to be wrong before anything is started."""
    problems = []
    if (request.images is None) != (request.model is None):
        problems.append("--images and --model go together: pictures need a model bundle (see `fleetbatch model pack`)")
    if request.images is not None and not request.images.is_dir():
        problems.append(f"--images {request.images}: there is no such folder")
    if request.model is not None and not request.model.is_file():
        problems.append(f"--model {request.model}: there is no such file")
    elif request.model is not None and request.model.suffix != ".zip":
        problems.append(f"--model {request.model}: not a bundle (.zip); make one of it with `fleetbatch model pack`")
    try:
        datetime.strptime(request.night, "%Y-%m-%d")  # noqa: DTZ007 # a night is a local date
    except ValueError:
        problems.append(f"--night {request.night}: not a date; expected YYYY-MM-DD")
    if request.cars < 0:
        problems.append(f"--cars {request.cars}: a fleet cannot be negative (0 leaves the night to the cloud lane)")
    if problems:
        summary = "this night cannot start"
        raise RejectedError(summary, problems)


def order_name_of(request: NightRequest) -> str:
    """Return the order's name: the order file's, or one that follows from the folder of pictures."""
    if request.images is None:
        return request.order
    slug = re.sub(r"[^a-z0-9_-]+", "-", request.images.name.lower()).strip("-")
    return (slug if slug[:1].isalpha() else f"images-{slug}".rstrip("-"))[:40]


def own_order(request: NightRequest, pictures: int) -> str:
    """Return the order file (TOML) for somebody's own pictures, cut so small that every car of the laptop has work."""
    shards = max(1, request.cars * _SHARDS_PER_CAR)
    rows = min(_ROWS_MAX, max(_ROWS_MIN, math.ceil(pictures / shards)))
    lines = [
        f"# Written by `fleetbatch night --images`: {pictures} files.",
        'workload = "image"',
        f"source = {json.dumps(str(request.images))}",
        f"model = {json.dumps(str(request.model))}",
        "deadline_hours = 8.0",
        'schedule = ""',
        "",
        "[cutting]",
        f"shard_rows = {rows}",
        f"row_group_rows = {math.ceil(rows / _PARTS)}",
    ]
    return "\n".join(lines) + "\n"
