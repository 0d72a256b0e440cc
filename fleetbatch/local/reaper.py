"""Whatever ends the laptop's night, even SIGKILL, this process ends what the night started.

It reads from its standard input, a line each, which process groups and the data of which PostgreSQL to end (`group
4711`, `postgres /tmp/.../data`), and acts when the input closes, as it does when the parent is gone.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Final

import psutil

_GRACE_S: Final = 5.0
_SERVER_S: Final = 15.0
_LOOK_EVERY_S: Final = 0.05
DATA_PREFIX: Final = "fleetbatch-postgres-"
"""How a temporary folder is called that holds the data of one server and goes with it."""


def main() -> None:
    """Collect what must end until the input closes, then end it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent decides what it means
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    groups: list[int] = []
    servers: list[Path] = []
    for line in sys.stdin:
        match line.rstrip("\n").partition(" "):
            case ("group", _, number):
                groups.append(int(number))
            case ("postgres", _, data):
                servers.append(Path(data))
            case _:
                continue
    end_groups(groups)
    for data in servers:
        _end_server(data)


def end_groups(groups: list[int], *, grace_s: float = _GRACE_S) -> None:
    """Ask every process group to stop, wait, then kill what is left."""
    for group in groups:
        _signal(group, signal.SIGTERM)
    give_up_at = time.monotonic() + grace_s
    while any(_alive(group) for group in groups) and time.monotonic() < give_up_at:
        time.sleep(_LOOK_EVERY_S)
    for group in groups:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _end_server(data: Path) -> None:
    """End whatever runs on a server's data, the programs that make or start it included; root's data go with it."""
    give_up_at = time.monotonic() + _SERVER_S
    while (found := _on(data)) and time.monotonic() < give_up_at:
        for process in found:
            with contextlib.suppress(psutil.Error):  # SIGQUIT: an immediate shutdown; initdb takes away what it made
                process.send_signal(signal.SIGQUIT if process.name() == "postgres" else signal.SIGTERM)
        time.sleep(_LOOK_EVERY_S)
    forget_data(data)


def forget_data(data: Path) -> None:
    """Remove a server's data where we made the folder for this one server alone; leave every other folder alone."""
    if data.parent.name.startswith(DATA_PREFIX):
        shutil.rmtree(data.parent, ignore_errors=True)


def _on(data: Path) -> list[psutil.Process]:
    """Return the processes whose command line names the data as their folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(data) in process.cmdline():
                found.append(process)
    return found


if __name__ == "__main__":
    main()
