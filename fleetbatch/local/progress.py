"""What a person sees while a night runs: one live line on a terminal, a line per change elsewhere, always on stderr."""

import sys
import time
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.status import Status

_REPEAT_S: Final = 5.0
"""Without a terminal, an unchanged stage is not repeated and a changing one at most this often."""


@dataclass(slots=True)
class Progress:
    """Says what happens; `event` lines stay, `now` is replaced by the next one."""

    quiet: bool = False
    _console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    _status: Status | None = None
    _began: float = field(default_factory=time.monotonic)
    _said: str = ""
    _said_at: float = 0.0

    def event(self, text: str) -> None:
        """Print a line that stays."""
        if not self.quiet:
            self._console.print(f"[dim]{self.seconds():5.0f} s[/dim]  {text}", soft_wrap=True)

    def now(self, text: str) -> None:
        """Show what is going on right now."""
        if self.quiet or text == self._said:
            return
        if self._console.is_terminal:
            if self._status is None:
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(text)
        elif time.monotonic() - self._said_at >= _REPEAT_S:
            self._said_at = time.monotonic()
            self.event(text)
        self._said = text

    def seconds(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self._began

    def close(self) -> None:
        """Take the live line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        sys.stderr.flush()
