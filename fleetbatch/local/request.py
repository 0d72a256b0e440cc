"""What somebody asked the laptop for: the repository's order, or their own pictures and model."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fleetbatch.errors import RejectedError


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
    try:
        datetime.strptime(request.night, "%Y-%m-%d")  # noqa: DTZ007 # a night is a local date
    except ValueError:
        problems.append(f"--night {request.night}: not a date; expected YYYY-MM-DD")
    if request.cars < 0:
        problems.append(f"--cars {request.cars}: a fleet cannot be negative (0 leaves the night to the cloud lane)")
    if problems:
        summary = "this night cannot start"
        raise RejectedError(summary, problems)
