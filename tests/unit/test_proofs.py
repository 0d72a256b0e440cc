"""What tests count reaches the end of the session, whoever ran them and whatever became of them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
COUNTING = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_sums_over_its_parameters(number, count):
    print("captured")
    count(events=1000 * number, seen=number)

def test_says_what_it_counted_before_it_failed(count):
    count(violations=2)
    raise AssertionError

def test_says_nothing():
    pass
"""


def session(folder: Path, *words: str) -> str:
    """Run tests of a folder that has our conftest; return what the terminal showed."""
    faults = folder / "tests" / "faults"
    faults.mkdir(parents=True)
    shutil.copy(TESTS / "conftest.py", folder / "tests")
    (faults / "test_counting.py").write_text(COUNTING)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
    command += ["--import-mode=importlib", *words]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_counts_of_parallel_workers_are_told_by_test_and_proofs_summed_as_one_line_of_json(tmp_path: Path) -> None:
    said = session(tmp_path, "-n", "2").splitlines()
    name = "tests/faults/test_counting.py::test"
    assert f"{name}_sums_over_its_parameters: 3 cases, 0 failed, 3,000 events, 3 seen" in said
    assert f"{name}_says_what_it_counted_before_it_failed: 1 case, 1 failed, 2 violations" in said
    assert f"{name}_says_nothing: 1 case, 0 failed" in said
    assert '{"events": 3000, "violations": 2}' in said
    assert "captured" not in said


def test_one_process_tells_the_same(tmp_path: Path) -> None:
    said = session(tmp_path, "-s").splitlines()
    assert '{"events": 3000, "violations": 2}' in said
