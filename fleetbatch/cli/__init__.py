"""The command line: what people type, errors they can act on, exit codes that scripts can read."""

import signal
import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console

from fleetbatch.errors import RejectedError, TransientError

EXIT_REJECTED: Final = 2
"""The input was refused: a person acts."""
EXIT_TRANSIENT: Final = 75
"""The world was not ready: try again (EX_TEMPFAIL of sysexits.h)."""
EXIT_INTERRUPTED: Final = 130
"""Ctrl-C (128 + SIGINT)."""


def main() -> None:
    """Run the command line's command and end with its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` ends a night as tidily as Ctrl-C
    sys.exit(run_command(sys.argv[1:]))


def run_command(words: Sequence[str]) -> int:
    """Run one command; turn our errors into one clear message and an exit code."""
    console = Console(stderr=True, highlight=False, markup=False)
    try:
        from fleetbatch.cli.commands import app  # here, so that Ctrl-C is heard while libraries load

        app(list(words), prog_name="fleetbatch")
    except KeyboardInterrupt:
        return _interrupted(console)
    except SystemExit as ended:  # how typer ends: well, with words that it does not understand, or by Ctrl-C
        code = ended.code if isinstance(ended.code, int) else 1
        return _interrupted(console) if code == EXIT_INTERRUPTED else code
    except RejectedError as error:
        console.print(f"fleetbatch: {error}", soft_wrap=True)
        return EXIT_REJECTED
    except TransientError as error:
        console.print(f"fleetbatch: {error}\n  trying again may help", soft_wrap=True)
        return EXIT_TRANSIENT
    except OSError as error:  # a disk that is full under the output; what commands read and write they refuse by name
        console.print(f"fleetbatch: {error}", soft_wrap=True)
        return EXIT_TRANSIENT
    return 0


def _interrupted(console: Console) -> int:
    console.print("fleetbatch: interrupted; nothing is left running")
    return EXIT_INTERRUPTED
