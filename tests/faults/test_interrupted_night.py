"""However a night on the laptop is ended, no process is left, and the next run of the same night finishes it."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from model_bundles import content, plain_picture
from parked_cars import until

from fleetbatch.bundle import build_bundle
from fleetbatch.cli import EXIT_INTERRUPTED, EXIT_REJECTED, run_command
from fleetbatch.local.deployment import alone_in

FLEETBATCH = str(Path(sys.executable).with_name("fleetbatch"))
MARK = "FLEETBATCH_TEST_NIGHT"
PICTURES = 96


@dataclass(kw_only=True)
class RunningNight:
    """A night in a session of its own, as in a terminal; whatever it starts carries its mark."""

    home: Path
    mark: str
    words: list[str]
    process: subprocess.Popen[bytes]

    def said(self) -> str:
        return (self.home.parent / "said").read_text()

    def has_said(self, words: str) -> Callable[[], bool]:
        def look() -> bool:
            assert self.process.poll() is None, self.said()
            return words in self.said()

        return look

    def processes(self) -> list[psutil.Process]:
        """Return the night's living processes, itself included."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def has_postgres(self) -> bool:
        return any(words and Path(words[0]).name == "postgres" for words in self.commands())

    def press_ctrl_c(self) -> None:
        """Send what a terminal sends: SIGINT to everybody in the foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def is_gone(self) -> bool:
        return not self.processes()

    def commands(self) -> list[list[str]]:
        """Return the command lines of its living processes."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                found.append(process.cmdline())
        return found


def begin(folder: Path) -> RunningNight:
    """Start a night of small plain pictures."""
    (folder / "colours.zip").write_bytes(build_bundle(content()))
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for number in range(PICTURES):
        (pictures / f"{number:03d}.png").write_bytes(plain_picture((number, 255 - number, 60)))
    mark, home = secrets.token_hex(8), folder / "home"
    words = ["night", "--home", str(home), "--images", str(pictures), "--model", str(folder / "colours.zip")]
    words += ["--night", "2026-11-22", "--cars", "2", "--no-incidents"]
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [FLEETBATCH, *words], stdout=said, stderr=said, env={**os.environ, MARK: mark}, start_new_session=True
        )
    return RunningNight(home=home, mark=mark, words=words, process=process)


@pytest.fixture
def night(tmp_path: Path) -> Iterator[RunningNight]:
    running = begin(tmp_path)
    yield running
    for process in running.processes():
        with contextlib.suppress(psutil.Error):
            process.kill()
    running.process.wait()


def data_folders(night: RunningNight) -> set[Path]:
    """Return where the night's PostgreSQL keeps its data, also while it is being made."""
    return {Path(words[words.index("-D") + 1]) for words in night.commands() if "-D" in words}


def is_free(data: Path) -> bool:
    """Tell whether no server holds the data; root's are temporary and gone."""
    return not (data.parent if os.geteuid() == 0 else data / "postmaster.pid").exists()


def finish(night: RunningNight) -> dict[str, Any]:
    """Run the same night again, to its end."""
    command = [FLEETBATCH, *night.words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def test_ctrl_c_leaves_no_process_behind_and_a_second_night_in_the_same_place_is_refused(
    night: RunningNight, capsys: pytest.CaptureFixture[str]
) -> None:
    until(night.has_said("cars are parked"), seconds=90, what="the parking of the cars")
    [data] = data_folders(night)
    assert run_command(night.words) == EXIT_REJECTED
    assert f"another night is running in {night.home}" in capsys.readouterr().err
    night.press_ctrl_c()
    assert night.process.wait(timeout=30) == EXIT_INTERRUPTED
    assert night.commands() == []
    assert "interrupted; nothing is left running" in night.said()
    assert "Traceback" not in night.said()
    assert is_free(data)


def wait_for_postgres(night: RunningNight) -> None:
    until(night.has_postgres, seconds=60, what="PostgreSQL")


def wait_for_cars(night: RunningNight) -> None:
    until(night.has_said("cars are parked"), seconds=120, what="the parking of the cars")


def wait_for_a_part(night: RunningNight) -> None:
    store = night.home / "store"
    until(lambda: list(store.glob("nights/*/*/*/parts/*")), seconds=180, what="the first part")


def wait_for_the_merge(night: RunningNight) -> None:
    store = night.home / "store"
    until(lambda: list(store.glob("nights/*/*/*/staging/*")), seconds=240, what="the merge")


@pytest.mark.prove
@pytest.mark.timeout(900)
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda end: end.name)
@pytest.mark.parametrize("moment", [wait_for_postgres, wait_for_cars, wait_for_a_part, wait_for_the_merge])
def test_a_night_that_is_ended_at_any_moment_leaves_nothing_and_the_next_run_finishes_it(
    night: RunningNight, moment: Callable[[RunningNight], None], end: signal.Signals
) -> None:
    moment(night)
    folders = data_folders(night)
    if end is signal.SIGINT:
        night.press_ctrl_c()
    else:
        night.process.send_signal(end)
    code = night.process.wait(timeout=40)
    assert code == (-signal.SIGKILL if end is signal.SIGKILL else EXIT_INTERRUPTED)
    if end is signal.SIGKILL:
        until(night.is_gone, seconds=40, what="the end of what a killed night started")
    assert night.commands() == []
    assert [folder for folder in folders if not is_free(folder)] == []
    with alone_in(night.home):
        pass
    summary = finish(night)
    assert (summary["generation"], summary["rows_in"], summary["rows_out"]) == (1, PICTURES, PICTURES)
    assert (summary["dead_letter_rows"], summary["missing_rows"], summary["table_version"]) == (0, 0, 1)
