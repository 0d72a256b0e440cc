"""The command line: what people type, errors they can act on, exit codes that scripts can read."""

import os
import signal
import sys
from typing import Final

from rich.console import Console

from fleetbatch.cli.commands import app
from fleetbatch.errors import RejectedError, TransientError

EXIT_REJECTED: Final = 2
"""The input was refused: a person acts."""
EXIT_TRANSIENT: Final = 75
"""The world was not ready: try again (EX_TEMPFAIL of sysexits.h)."""
EXIT_INTERRUPTED: Final = 130
"""Ctrl-C (128 + SIGINT)."""


def main() -> None:
    """Run one command; turn our errors into one clear message and an exit code."""
    console = Console(stderr=True, highlight=False, markup=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` ends a night as tidily as Ctrl-C
    try:
        app()
    except RejectedError as error:
        console.print(f"fleetbatch: {error}", soft_wrap=True)
        sys.exit(EXIT_REJECTED)
    except TransientError as error:
        console.print(f"fleetbatch: {error}\n  trying again may help", soft_wrap=True)
        sys.exit(EXIT_TRANSIENT)
    except KeyboardInterrupt:
        console.print("fleetbatch: interrupted; nothing is left running")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
