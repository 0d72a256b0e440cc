"""A simulated night tells a terminal how far it is, and Ctrl-C ends it with nothing left behind."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from fleetbatch.cli import EXIT_INTERRUPTED

FLEETBATCH = str(Path(sys.executable).with_name("fleetbatch"))


def read_until(terminal: int, words: str) -> str:
    """Read what the terminal shows up to some words."""
    said = ""
    while words not in said:
        said += os.read(terminal, 4096).decode()
    return said


def test_ctrl_c_ends_a_simulated_night_with_one_line_no_page_and_no_process(tmp_path: Path) -> None:
    command = [
        FLEETBATCH,
        "simulate",
        "--cars",
        "4000",
        "--shards",
        "32000",
        "--report",
        str(tmp_path / "page"),
        "--json",
    ]
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    read_until(terminal, "cars plugged in")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert "Traceback" not in read_until(terminal, "nothing is left running")
    printed, _ = process.communicate(timeout=60)
    os.close(terminal)
    assert process.returncode == EXIT_INTERRUPTED
    assert printed == b""
    assert list(tmp_path.iterdir()) == []
    assert not any(child.is_running() for child in children)
