"""What a person sees while a night runs: one live line on a terminal, a line per change elsewhere, always on stderr."""

import sys
import textwrap
import time
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.status import Status
from rich.text import Text

_REPEAT_S: Final = 5.0
"""Without a terminal, an unchanged stage is not repeated and a changing one at most this often."""
_CLOCK_WIDTH: Final = 9
_NARROWEST: Final = 20


@dataclass(slots=True)
class Progress:
    """Says what happens; `event` lines stay, `now` is replaced by the next one."""

    _console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    _status: Status | None = None
    _began: float = field(default_factory=time.monotonic)
    _said: str = ""
    _said_at: float = 0.0

    def event(self, text: str) -> None:
        """Print a line that stays."""
        for number, line in enumerate(self._lines(text)):
            clock = f"{self.seconds():5.0f} s" if number == 0 else ""
            self._console.print(f"{clock:{_CLOCK_WIDTH}}{line}", soft_wrap=True, markup=False)

    def now(self, text: str) -> None:
        """Show what is going on right now, and on a terminal that time passes."""
        if self._console.is_terminal:
            self._said = text
            if self._status is None:
                self._status = self._console.status(self)
                self._status.start()
        elif text != self._said and time.monotonic() - self._said_at >= _REPEAT_S:
            self._said_at = time.monotonic()
            self._said = text
            self.event(text)

    def _lines(self, text: str) -> list[str]:
        """Break a line between words where the terminal ends, so that what follows stands under what it belongs to."""
        if not self._console.is_terminal:
            return [text]
        width = max(_NARROWEST, self._console.width - _CLOCK_WIDTH)
        return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)

    def seconds(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self._began

    def __rich__(self) -> Text:
        """Return the live line; it is drawn some times a second."""
        return Text(f"{self.seconds():3.0f} s  {self._said}")

    def close(self) -> None:
        """Take the live line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        sys.stderr.flush()
