"""A runner's log: one JSON object a line on stderr."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

_LOG: Final = logging.getLogger("fleetbatch.runner")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return one line: ts, level, event, and the facts of the record."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"ts": at, "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps({**line, **getattr(record, "facts", {})}, default=str)


def open_log() -> None:
    """Send the runner's records to stderr as JSON lines."""
    target = logging.StreamHandler(sys.stderr)
    target.setFormatter(_JsonLines())
    _LOG.addHandler(target)
    _LOG.setLevel(logging.INFO)
    _LOG.propagate = False


def say(event: str, *, level: int = logging.INFO, **facts: Any) -> None:  # noqa: ANN401 (whatever JSON takes)
    """Log an event with its facts."""
    _LOG.log(level, event, extra={"facts": facts})
