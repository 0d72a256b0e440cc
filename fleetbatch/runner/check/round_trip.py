"""One real piece of work, on request: a lease, a signed GET, a signed PUT, and the lease given back."""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from fleetbatch.runner.check.findings import Finding, bad, fine, skipped

STOP_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.1


def check_round_trip(flags: Sequence[str], seconds: float) -> Iterator[Finding]:
    """Run the runner itself until it has delivered a part, for at most that long, then end it as a car is ended."""
    if seconds <= 0:
        yield skipped("signed GET and PUT", "not tried", "--work SECONDS takes one real lease, if there is work")
        return
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, "-m", "fleetbatch.runner", *flags], stderr=log)  # noqa: S603 (ours)
        give_up_at = time.monotonic() + seconds
        while time.monotonic() < give_up_at and process.poll() is None and not _events(log, "part delivered"):
            time.sleep(_LOOK_EVERY_S)
        ended_s = _end(process)
        yield from _judged(log, process.returncode, ended_s)


def _end(process: "subprocess.Popen[bytes]") -> float:
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    process.kill()
    process.wait()
    return time.monotonic() - began


def _judged(log: Any, returncode: int, ended_s: float) -> Iterator[Finding]:  # noqa: ANN401 (an open file)
    troubles = [*_events(log, "work failed"), *_events(log, "refused"), *_events(log, "not reached")]
    if not _events(log, "work starts"):
        why = troubles[-1]["detail"] if troubles else "no work was offered in this time"
        yield skipped("signed GET and PUT", why, "offer this car something, or wait longer (--work)")
    elif not _events(log, "part delivered"):
        why = troubles[-1]["detail"] if troubles else "no part was finished in this time"
        yield bad("signed GET and PUT", why, "the store's address must be reachable from the car, for GET and PUT")
    else:
        yield fine("signed GET and PUT", "a shard was read, a part was delivered and confirmed")
    found = f"exit {returncode} after {ended_s:.1f} s"
    well = returncode == 0 and ended_s < STOP_S
    yield fine("shutdown", found) if well else bad("shutdown", found, "the runner must end within seconds of SIGTERM")


def _events(log: Any, event: str) -> list[dict[str, Any]]:  # noqa: ANN401 (an open file)
    lines = Path(f"/proc/self/fd/{log.fileno()}").read_text(errors="replace").splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    return [line for line in told if line.get("event") == event]
