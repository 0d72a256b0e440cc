"""Guards of the gateway are taken away one by one: a test that is named beside each must see it."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from faults.mutants.catalogue import Mutant
from faults.mutants.doors import DOORS
from faults.mutants.killing import PACKAGE, TESTS, apply, copy_product, edited, restore
from proofs import Count

LANES = 2
WITHIN_S = 180
REFUSALS = ("AssertionError", "assert ", "Failed: DID NOT RAISE")
"""What a test says that saw something it must not see; any other error says only that it could not look."""
_WHERE = re.compile(r"^(\S+\.py):\d+: \w+$", re.ASCII)
"""The last line of a failure: where it was raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the tests of one run: how many ran, to what they objected, what else went wrong."""

    tests: int
    objections: tuple[str, ...]
    errors: tuple[str, ...]

    @property
    def kills(self) -> bool:
        """Whether the test objected, and did nothing else."""
        return bool(self.objections) and not self.errors

    @property
    def passes(self) -> bool:
        """Whether all there was to try was tried and found good."""
        return self.tests > 0 and not self.objections and not self.errors


def outcome(report: Path, *, tests: Path) -> Outcome:
    """Read pytest's JUnit report, which lies where it ran; `tests` holds all whose assertions count."""
    cases = list(ET.parse(report).iter("testcase"))
    bad = [one for case in cases for one in case if one.tag in {"failure", "error", "skipped"}]
    objections = [one for one in bad if _objects(one, report.parent, tests)]
    return Outcome(
        tests=len(cases),
        objections=tuple(one.get("message", "") for one in objections),
        errors=tuple(f"{one.tag}: {one.get('message', '')}" for one in bad if one not in objections),
    )


def _objects(one: ET.Element, ran_in: Path, tests: Path) -> bool:
    """Tell whether a test said no; an assertion of the product's says that it broke."""
    where = _WHERE.match((one.text or "").rstrip().rpartition("\n")[2])
    own = where is not None and (ran_in / where[1]).resolve().is_relative_to(tests)
    return one.tag == "failure" and own and one.get("message", "").startswith(REFUSALS)


def run(folder: Path, *tests: str) -> Outcome:
    """Run tests against the copy of the product in a folder."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    paths = [str(folder), str(TESTS)]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:randomly", "--timeout", "90"]
    command += [f"--junitxml={report}", "-o", "junit_family=xunit1"]
    command += ["-o", f"pythonpath={' '.join(paths)}", *(f"{TESTS}/{test}" for test in tests)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(tests=0, objections=(), errors=(f"no end within {WITHIN_S} s",))
    if not report.exists():
        return Outcome(tests=0, objections=(), errors=(done.stdout[-500:] + done.stderr[-500:],))
    found = outcome(report, tests=TESTS)
    return found if found.tests else replace(found, errors=(*found.errors, done.stdout[-500:] + done.stderr[-500:]))


@pytest.mark.parametrize(("mutant", "killer"), DOORS, ids=lambda one: one.name if isinstance(one, Mutant) else "")
def test_every_mutant_still_fits_the_product_and_its_killer_is_there(mutant: Mutant, killer: str) -> None:
    for edit in mutant.edits:
        text = (PACKAGE / edit.file).read_text()
        assert edited(text, edit) != text
    file, _, name = killer.partition("::")
    assert f"def {name.partition('[')[0]}(" in (TESTS / file).read_text()


CASES = """
import pytest, time
from product import refuses

@pytest.fixture
def broken():
    raise AssertionError("not of the test itself")

def test_compares(): assert 1 + 1 == 3
def test_says_why(): assert not refuses, "it refuses"
def test_expects_a_refusal():
    with pytest.raises(ValueError): pass
def test_expects_other_words():
    with pytest.raises(ValueError, match="one"): raise ValueError("two")

def test_has_no_surroundings(broken): pass
def test_breaks(): raise ValueError("at least one table")
def test_fails_in_the_product(): refuses()
@pytest.mark.timeout(0.2)
def test_takes_too_long(): time.sleep(5)
def test_gives_up(): pytest.fail("cannot")
def test_is_skipped(): pytest.skip("not here")

def test_passes(): pass
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pytest has run these cases on a product of one function."""
    folder = tmp_path_factory.mktemp("cases")
    (folder / "product.py").write_text("def refuses():\n    assert False, 'a bug'\n")
    (folder / "tests").mkdir()
    (folder / "tests" / "test_cases.py").write_text(CASES)
    command = [sys.executable, "-m", "pytest", "-q", f"--rootdir={folder}", "--junitxml=report.xml", "tests"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=WITHIN_S, check=False)
    return folder / "report.xml"


def test_only_what_a_test_itself_objects_to_kills_a_mutant(ran: Path) -> None:
    found = outcome(ran, tests=ran.parent / "tests")
    assert [said.partition("\n")[0] for said in found.objections] == [
        "assert (1 + 1) == 3",
        "AssertionError: it refuses",
        "Failed: DID NOT RAISE ValueError",
        "AssertionError: Regex pattern did not match.",
    ]
    assert (len(found.errors), found.tests, found.kills, found.passes) == (6, 11, False, False)


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_the_whole_product_passes_every_test_that_kills(tmp_path: Path) -> None:
    found = run(copy_product(tmp_path / "whole"), *dict.fromkeys(killer for _, killer in DOORS))
    assert found.passes, found


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
        found = run(folder, killer)
    finally:
        restore(mutant, folder)
    said = [" ".join(words.split())[:160] for words in (*found.objections, *found.errors)]
    print(f"{mutant.name}: {killer.rpartition('::')[2] if found.kills else 'NOT KILLED'}: {said}", flush=True)
    return found.kills
