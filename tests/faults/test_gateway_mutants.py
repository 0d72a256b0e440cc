"""Guards of the gateway are taken away one by one: a test that is named beside each must see it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults.mutants.catalogue import Mutant
from faults.mutants.doors import DOORS
from faults.mutants.killing import PACKAGE, TESTS, apply, copy_product, edited, restore
from proofs import Count

LANES = 2
WITHIN_S = 180
FAILED, PASSED = 1, 0
"""pytest's exit codes; any other says that it could not try."""


def run(folder: Path, *tests: str) -> tuple[int, str]:
    """Run tests against the copy of the product in a folder; return pytest's exit code and its last words."""
    paths = [str(folder), str(TESTS)]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:randomly", "--timeout", "90"]
    command += ["-o", f"pythonpath={' '.join(paths)}", *(f"{TESTS}/{test}" for test in tests)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    said = [line for line in done.stdout.splitlines() if line.startswith(("E  ", "FAILED", "ERROR"))]
    return done.returncode, said[0].strip() if said else done.stdout[-500:] + done.stderr[-500:]


@pytest.mark.parametrize(("mutant", "killer"), DOORS, ids=lambda one: one.name if isinstance(one, Mutant) else "")
def test_every_mutant_still_fits_the_product_and_its_killer_is_there(mutant: Mutant, killer: str) -> None:
    for edit in mutant.edits:
        text = (PACKAGE / edit.file).read_text()
        assert edited(text, edit) != text
    file, _, name = killer.partition("::")
    assert f"def {name.partition('[')[0]}(" in (TESTS / file).read_text()


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_the_whole_product_passes_every_test_that_kills(tmp_path: Path) -> None:
    code, said = run(copy_product(tmp_path / "whole"), *dict.fromkeys(killer for _, killer in DOORS))
    assert code == PASSED, said


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_every_mutant_of_the_gateway_is_killed_by_its_test(tmp_path: Path, count: Count) -> None:
    def lane(number: int) -> list[str]:
        folder = copy_product(tmp_path / f"lane-{number}")
        return [mutant.name for mutant, killer in DOORS[number::LANES] if not _killed(folder, mutant, killer)]

    with ThreadPoolExecutor(LANES) as lanes:
        survivors = [name for names in lanes.map(lane, range(LANES)) for name in names]
    count(mutants=len(DOORS), killed=len(DOORS) - len(survivors))
    assert not survivors


def _killed(folder: Path, mutant: Mutant, killer: str) -> bool:
    apply(mutant, folder)
    try:
        code, said = run(folder, killer)
    finally:
        restore(mutant, folder)
    assert code in {PASSED, FAILED}, f"{mutant.name}: {said}"
    assert not any(word in said for word in ("SyntaxError", "ImportError", "NameError")), f"{mutant.name}: {said}"
    print(f"{mutant.name}: {killer.rpartition('::')[2] if code else 'SURVIVED'}: {said[:120]}", flush=True)
    return code == FAILED
