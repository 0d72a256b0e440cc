"""One JSON object a line on stderr, alike in every process, so that grep follows a shard or a lease through them all.

A line has ts, level, event, process, what the process always says (its cell or car), then the facts of the event. Ids
bear the same name and the same text everywhere: shard and car sixteen hex digits, lease as the ledger writes it (it
holds the shard's digits), order NIGHT/ORDER/gN, round a number.

A line is written at once, and survives whatever becomes of its process. A process that has much to say may gather its
lines (`gathered`) and write them together: if it is killed, those are missing that it said after the last `write_out`.
A warning or an error is written at once even there, with all that was said before it.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, BinaryIO, Final

import msgspec

_LOG: Final = logging.getLogger("fleetbatch")
_HEX: Final = ("shard", "car", "owner")
"""Ids that are 63-bit numbers inside."""
_encode = msgspec.json.Encoder(enc_hook=str).encode
_QUIET: Final = ("uvicorn", "httpx", "botocore")
"""Libraries that speak of every request."""
_GATHERED_MAX: Final = 1000


def say(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **facts: Any) -> None:  # noqa: ANN401 # whatever JSON takes
    """Log an event with its facts; with an error its traceback goes along."""
    if not _LOG.isEnabledFor(level):
        return
    raised = None if error is None else (type(error), error, error.__traceback__)
    if _STDERR.lines is not None:  # a record of logging would be most of a line's cost
        if raised:
            facts["trace"] = _STDERR.lines.formatException(raised)
        line = _STDERR.lines.line(event, facts, level=level, at_ms=time.time_ns() // 1_000_000)
        _STDERR.put(line, at_once=level > logging.INFO)
        return
    record = logging.LogRecord(_LOG.name, level, "", 0, event, None, raised)
    record.facts = facts
    _LOG.handle(record)


def log_to_stderr(process: str, **always: Any) -> None:  # noqa: ANN401 # whatever JSON takes
    """Write what this process and its libraries say to stderr as JSON lines that name the process and `always`."""
    _STDERR.lines = JsonLines({"process": process, **always})
    handler = _Handler()
    handler.setFormatter(_STDERR.lines)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for library in _QUIET:
        logging.getLogger(library).setLevel(logging.WARNING)


@contextmanager
def gathered() -> Iterator[None]:
    """Keep this process's lines until `write_out`, in the body; at its end all of them are written."""
    _STDERR.gathers = True
    try:
        yield
    finally:
        _STDERR.gathers = False
        write_out()


def write_out() -> None:
    """Write the lines that were gathered."""
    _STDERR.put(b"", at_once=True)


class JsonLines(logging.Formatter):
    """Turns an event, or a record of a library, into one line."""

    def __init__(self, always: Mapping[str, Any]) -> None:
        """Say `always` in every line."""
        super().__init__()
        self._always = _with_hex(dict(always))
        self._begun: dict[tuple[int, str], bytes] = {}

    def line(self, event: str, facts: dict[str, Any], *, level: int, at_ms: int) -> bytes:
        """Return the line, with its end; `facts` are the caller's no more, `event` is one of a few."""
        second, millisecond = divmod(at_ms, 1000)
        at = b"%b.%03d+00:00" % (_second(second), millisecond)
        if not facts.keys().isdisjoint(self._always):
            return self._encoded({"ts": at.decode(), **self._head(event, level), **_with_hex(facts)})
        begun = self._begun.get((level, event))
        if begun is None:
            begun = self._begun[level, event] = self._encoded(self._head(event, level))[1:-2]
        if not facts:
            return b'{"ts":"%b",%b}\n' % (at, begun)
        return b'{"ts":"%b",%b,%b' % (at, begun, self._encoded(_with_hex(facts))[1:])

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's line, without its end."""
        second, millisecond = divmod(int(record.created * 1000), 1000)
        at = f"{_second(second).decode()}.{millisecond:03}+00:00"
        facts = _with_hex(dict(getattr(record, "facts", {})))
        if record.exc_info:
            facts["trace"] = self.formatException(record.exc_info)
        return self._encoded({"ts": at, **self._head(record.getMessage(), record.levelno), **facts})[:-1].decode()

    def _head(self, event: str, level: int) -> dict[str, Any]:
        return {"level": logging.getLevelName(level).lower(), "event": event, **self._always}

    def _encoded(self, line: Mapping[str, Any]) -> bytes:
        try:
            return _encode(line) + b"\n"
        except (TypeError, ValueError, OverflowError):  # half a character, a number beyond 64 bits: json takes them
            return json.dumps(line, default=str, separators=(",", ":")).encode() + b"\n"


class _Stderr:
    """This process's stderr: there is one."""

    def __init__(self) -> None:
        """Begin as a process that leaves its records to logging."""
        self.lines: JsonLines | None = None
        self.begin()

    def begin(self) -> None:
        """Keep nothing, as a forked child does, too: its parent writes what was said before."""
        self.gathers = False
        self._kept: list[bytes] = []
        self._lock = threading.Lock()

    def put(self, line: bytes, *, at_once: bool) -> None:
        """Write a line after all before it, now or with those that come soon."""
        with self._lock:
            self._kept.append(line)
            if at_once or not self.gathers or len(self._kept) >= _GATHERED_MAX:
                kept, self._kept = b"".join(self._kept), []
                _write(sys.stderr.buffer, kept)


_STDERR: Final = _Stderr()
os.register_at_fork(after_in_child=_STDERR.begin)


class _Handler(logging.Handler):
    """Writes the records of libraries among our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        _STDERR.put(self.format(record).encode() + b"\n", at_once=True)


def _write(file: BinaryIO, data: bytes) -> None:
    try:
        file.write(data)
        file.flush()
    except OSError:  # nobody reads any more, or the disk is full: no reason to stop the work
        return


@lru_cache(maxsize=2)
def _second(at: int) -> bytes:
    """Return a second of UTC as text; a busy process writes many lines in one."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def _with_hex(facts: dict[str, Any]) -> dict[str, Any]:
    """Turn ids into the text under which people meet them."""
    for name in _HEX:
        value = facts.get(name)
        if isinstance(value, int):
            facts[name] = f"{value:016x}"
    return facts
