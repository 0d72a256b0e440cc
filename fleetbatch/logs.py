"""One JSON object a line on stderr, alike in every process, so that grep follows a shard or a lease through them all.

A line has ts, level, event, process, what the process always says (its cell or car), then the facts of the event. Ids
bear the same name and the same text everywhere: shard and car sixteen hex digits, lease as the ledger writes it (it
holds the shard's digits), order NIGHT/ORDER/gN, round a number.
"""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

_LOG: Final = logging.getLogger("fleetbatch")
_HEX: Final = frozenset({"shard", "car", "owner"})
"""Ids that are 63-bit numbers inside."""
_encode = msgspec.json.Encoder(enc_hook=str).encode
_QUIET: Final = ("uvicorn", "httpx", "botocore")
"""Libraries that speak of every request."""


def say(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **facts: Any) -> None:  # noqa: ANN401 # whatever JSON takes
    """Log an event with its facts; with an error its traceback goes along."""
    if not _LOG.isEnabledFor(level):
        return
    raised = None if error is None else (type(error), error, error.__traceback__)
    # Made here, since logging would walk the stack for a line number that nobody reads: a fifth of a line's cost.
    record = logging.LogRecord(_LOG.name, level, "", 0, event, None, raised)
    record.facts = facts
    _LOG.handle(record)


def log_to_stderr(process: str, **always: Any) -> None:  # noqa: ANN401 # whatever JSON takes
    """Send this process's records to stderr as JSON lines that say which process it is, and whatever it always says."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines({"process": process, **always}))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for library in _QUIET:
        logging.getLogger(library).setLevel(logging.WARNING)


class JsonLines(logging.Formatter):
    """Turns a record, of ours or of a library, into one line."""

    def __init__(self, always: Mapping[str, Any]) -> None:
        """Say `always` in every line."""
        super().__init__()
        self._always = {name: _shown(name, value) for name, value in always.items()}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        second, millisecond = divmod(int(record.created * 1000), 1000)
        at = f"{_second(second)}.{millisecond:03}+00:00"
        line = {"ts": at, "level": record.levelname.lower(), "event": record.getMessage(), **self._always}
        facts: Mapping[str, Any] = getattr(record, "facts", {})
        line |= {name: _shown(name, value) for name, value in facts.items()}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        try:
            return _encode(line).decode()
        except (TypeError, ValueError, OverflowError):  # half a character, a number beyond 64 bits: json takes them
            return json.dumps(line, default=str)


@lru_cache(maxsize=2)
def _second(at: int) -> str:
    """Return a second of UTC as text; a busy process writes many lines in one."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _shown(name: str, value: Any) -> Any:  # noqa: ANN401 # whatever JSON takes
    return f"{value:016x}" if name in _HEX and isinstance(value, int) else value
