"""Whatever ends the laptop's night, even SIGKILL, this process ends what the night started.

It reads from its standard input, a line each, which process groups and which PostgreSQL to end (`group 4711`,
`postgres /tmp/.../data /path/to/pg_ctl`), and acts when the input closes, as it does when the parent is gone.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

_GRACE_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.05


def main() -> None:
    """Collect what must end until the input closes, then end it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent decides what it means
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    groups: list[int] = []
    servers: list[tuple[Path, str]] = []
    for line in sys.stdin:
        match line.split():
            case ["group", number]:
                groups.append(int(number))
            case ["postgres", data, pg_ctl]:
                servers.append((Path(data), pg_ctl))
            case _:
                continue
    end_groups(groups)
    for data, pg_ctl in servers:
        _end_server(data, pg_ctl)


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


def _end_server(data: Path, pg_ctl: str) -> None:
    if not (data / "postmaster.pid").exists():
        return
    owner = pwd.getpwuid(data.stat().st_uid).pw_name if os.geteuid() == 0 else None
    subprocess.run(  # noqa: S603 # the program and folder come from our own parent
        [pg_ctl, "-D", str(data), "stop", "-m", "immediate", "-w"],
        user=owner,
        cwd="/",
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if os.geteuid() == 0:
        shutil.rmtree(data.parent, ignore_errors=True)


if __name__ == "__main__":
    main()
