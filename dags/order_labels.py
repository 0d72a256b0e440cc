"""What Airflow must know of an order file before a night begins: its name and its schedule; light, for often read.

Whether the order is right is for the night's first task to say. A file that cannot even be labelled still gets a DAG,
so that its mistake is seen and no other order is lost.
"""

import re
import tomllib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow.sdk import CronPartitionTimetable
from croniter import croniter  # type: ignore[import-untyped] # Airflow's own parser of cron has no types

_NOT_IN_ID: Final = re.compile(r"[^a-zA-Z0-9_.-]")
_DEADLINE_HOURS: Final = 24.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderLabel:
    """The cover of one order file."""

    path: Path
    cron: str | None
    """Five fields of cron, in `timezone`; None: started by hand only."""
    timezone: str
    deadline: timedelta
    text: str
    """The file as it stands, for people to read."""
    marks: tuple[str, ...]
    """Workload and region, as people search for them."""
    problems: tuple[str, ...]

    @property
    def dag_id(self) -> str:
        """The file's name without .toml."""
        return _NOT_IN_ID.sub("_", self.path.stem)

    def tags(self) -> list[str]:
        """Return what the DAG is found by."""
        return ["fleetbatch", *self.marks, *(["broken order"] if self.problems else [])]

    def timetable(self) -> CronPartitionTimetable | None:
        """Return one partition a night, keyed by the local date on which it starts."""
        if self.cron is None:
            return None
        return CronPartitionTimetable(self.cron, timezone=self.timezone, key_format="%Y-%m-%d")

    def doc(self) -> str:
        """Return the page that Airflow shows beside the DAG."""
        broken = "\n".join(f"- **{problem}**" for problem in self.problems)
        return (
            f"{broken}\n\nThe nights of `{self.path.name}`: frozen and cut into shards in the evening, computed by "
            "parked cars, merged, checked and published as one version of the order's table in the morning. Running a "
            "night that is published already does nothing; with `force` it is computed anew.\n\n"
            f"```toml\n{self.text}\n```\n"
        )


def label_order(path: Path, text: str) -> OrderLabel:
    """Return the cover of an order file's text; what cannot be understood becomes a problem and a default. Pure."""
    problems: list[str] = []
    try:
        said: dict[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = {}
        problems.append(f"not TOML: {error}")
    cron, timezone, hours = said.get("schedule") or None, said.get("timezone", "UTC"), said.get("deadline_hours")
    if cron is not None and not (isinstance(cron, str) and croniter.is_valid(cron)):
        problems.append(f"schedule {cron!r} is not cron")
        cron = None
    if not _is_timezone(timezone):
        problems.append(f"timezone {timezone!r} is not known")
        timezone = "UTC"
    return OrderLabel(
        path=path,
        cron=None if cron is None else str(cron),
        timezone=str(timezone),
        deadline=timedelta(hours=hours if isinstance(hours, int | float) else _DEADLINE_HOURS),
        text=text,
        marks=tuple(f"{name}:{said[name]}" for name in ("workload", "region") if name in said),
        problems=tuple(problems),
    )


def _is_timezone(name: object) -> bool:
    try:
        ZoneInfo(str(name))
    except (ZoneInfoNotFoundError, ValueError):
        return False
    return True
