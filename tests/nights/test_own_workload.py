"""A workload that another package brings runs a whole night: cut, computed, audited, merged, checked and published."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from night import Night, night_in
from surroundings import environment, importable

from fleetbatch.audit import recompute
from fleetbatch.contracts import contract
from fleetbatch.errors import FleetbatchError, RejectedError, TransientError
from fleetbatch.local.postgres import Postgres
from fleetbatch.sharding import open_input
from fleetbatch.steps.closing import check_step, publish_step, report_step
from fleetbatch.workloads import Device, known_workloads, open_workload, row_seconds, usable_workloads, workload

PACKAGE = Path(__file__).parents[1] / "own_workload"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, installed as pip does it, into a folder of its own and without a network."""
    source, target = tmp_path_factory.mktemp("source") / "package", tmp_path_factory.mktemp("installed")
    shutil.copytree(PACKAGE, source)  # building leaves traces beside the source
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*pip, "--no-build-isolation", "--no-deps", "--target", target, source], check=True)
    return target


@pytest.fixture
def installed(package: Path) -> Iterator[None]:
    with importable(package), environment({"PYTHONPATH": str(package)}):
        workload.cache_clear()
        recompute._reader.close()  # this process's auditor may have begun before the package was there
        yield
    contract.cache_clear()
    workload.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "fleet_words"]:
        del sys.modules[name]


@pytest.fixture
def night(tmp_path: Path, postgres: Postgres, installed: None) -> Iterator[Night]:  # noqa: ARG001 (first the package)
    with night_in(tmp_path, postgres) as night:
        yield night


def test_without_the_package_nobody_knows_the_workload() -> None:
    assert "words" not in known_workloads()
    with pytest.raises(RejectedError, match="'words' is not known; known are image"):
        workload("words")


@pytest.mark.usefixtures("installed")
def test_the_package_brings_its_workload_and_its_contracts() -> None:
    assert "words" in usable_workloads()
    assert workload("words").opener == "fleetbatch.sharding.openers:Files"
    assert contract("results_words").headline == "commonest"
    missing = set(contract("results").schema) - set(contract("results_words").schema)
    assert not missing, "every table of results has the common columns"


@pytest.mark.usefixtures("installed")
def test_contracts_that_do_not_fit_each_other_are_refused_in_the_evening(package: Path, tmp_path: Path) -> None:
    shutil.copytree(package, tmp_path / "spoilt")
    schemas = tmp_path / "spoilt" / "fleet_words" / "schemas"
    text = (schemas / "results_words.odcs.yaml").read_text()
    (schemas / "results_words.odcs.yaml").write_text(
        text.replace("name: energy_wh", "name: energy").replace("int64", "int32")
    )
    unfit = pytest.raises(RejectedError, match="do not fit each other")
    with importable(tmp_path / "spoilt"), unfit as refused:
        workload("words")
    said = "\n".join(refused.value.problems)
    assert "'words' is not as in answers_words: int64" in said
    assert "'energy_wh' is not as in results" in said


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("was", "spoilt", "why"),
    [
        ("value: commonest", "value: common", "the headline 'common' is no column of answers_words"),
        ("physicalType: double", "physicalType: list<double>", "'share' has a range and holds no numbers: list<"),
    ],
)
def test_contracts_whose_answers_no_check_could_ask_are_refused_in_the_evening(
    package: Path, tmp_path: Path, was: str, spoilt: str, why: str
) -> None:
    shutil.copytree(package, tmp_path / "spoilt")
    for file in (tmp_path / "spoilt" / "fleet_words" / "schemas").iterdir():
        file.write_text(file.read_text().replace(was, spoilt))
    unfit = pytest.raises(RejectedError, match="do not fit each other")
    with importable(tmp_path / "spoilt"), unfit as refused:
        workload("words")
    assert why in "\n".join(refused.value.problems)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("rate", ["0.0", "1e-320", "float('nan')", "float('inf')", "'fast'", "None"])
def test_a_workload_whose_rate_counts_no_work_is_refused(package: Path, tmp_path: Path, rate: str) -> None:
    shutil.copytree(package, tmp_path / "spoilt")
    with (tmp_path / "spoilt" / "fleet_words" / "__init__.py").open("a") as module:
        module.write(f"\nWords.rows_per_s = {rate}\n")
    with (
        importable(tmp_path / "spoilt"),
        pytest.raises(RejectedError, match="rows a second; expected a number above 0"),
    ):
        workload("words")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise OSError('libwords.so.1 is not there')", "OSError: libwords.so.1 is not there"),
        ("raise SystemExit('no licence')", "SystemExit: no licence"),
        ("Words.__init__ = lambda self: [][1]", "IndexError: list index out of range"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_package_that_cannot_be_loaded_costs_its_own_orders_and_nobody_elses(
    package: Path, tmp_path: Path, code: str, why: str
) -> None:
    shutil.copytree(package, tmp_path / "spoilt")
    with (tmp_path / "spoilt" / "fleet_words" / "__init__.py").open("a") as module:
        module.write(f"\n{code}\n")
    with importable(tmp_path / "spoilt"):
        with pytest.raises(RejectedError, match=f"'words' cannot be loaded from fleet_words:Words: {why}"):
            workload("words")
        assert usable_workloads() == ("image", "scenario", "video")
        assert set(row_seconds()) == {"image", "scenario", "video"}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("code", "error", "why"),
    [
        ("options['missing']", RejectedError, "KeyError: 'missing'"),
        ("bytearray(1 << 62)", TransientError, "there is not enough memory now"),
    ],
)
def test_a_workload_that_cannot_be_opened_is_refused_with_what_it_raised_and_tried_again_with_more_memory(
    package: Path, tmp_path: Path, code: str, error: type[FleetbatchError], why: str
) -> None:
    shutil.copytree(package, tmp_path / "spoilt")
    with (tmp_path / "spoilt" / "fleet_words" / "__init__.py").open("a") as module:
        module.write(f"\nWords.open = lambda self, model, device, options: {code}\n")
    with importable(tmp_path / "spoilt"), pytest.raises(error, match=f"'words' cannot be opened here: {why}"):
        open_workload("words", None, Device(provider="CPUExecutionProvider"), {})


@pytest.mark.usefixtures("installed")
def test_an_opener_that_breaks_at_an_orders_options_is_refused_with_what_it_raised(
    package: Path, tmp_path: Path
) -> None:
    shutil.copytree(package, tmp_path / "spoilt")
    with (tmp_path / "spoilt" / "fleet_words" / "__init__.py").open("a") as module:
        module.write("\nneedy = lambda options: options['lines']\nWords.opener = 'fleet_words:needy'\n")
    refused = pytest.raises(RejectedError, match="cannot open its input with fleet_words:needy: KeyError: 'lines'")
    with importable(tmp_path / "spoilt"), refused:
        open_input("words", str(tmp_path), {})


def test_a_night_of_somebody_elses_work_is_published_with_its_dead_letters(night: Night) -> None:
    texts = night.home / "texts"
    texts.mkdir()
    for number in range(20):
        (texts / f"{number:02}.txt").write_text(f"The night is long the car is idle {'zzz ' * (number % 3)}")
    (texts / "20.txt").write_bytes(b"\xff\xfe not UTF-8")
    (texts / "21.txt").write_text("   ")
    for name in ("car-1", "car-2"):
        night.park(name)
    night.begin(workload="words", source=str(texts), model="", options={"case": False})

    merged = night.merge()

    assert (merged.rows_in, merged.rows_out, merged.dead_letter_rows, merged.missing_rows) == (22, 20, 2, 0)
    assert night.stats()["audited_rows"] >= 20
    assert night.stats()["disagreements"] == 0
    assert check_step(night.settings, night.key).passed
    published = publish_step(night.settings, night.key, now=night.now)
    rows = pl.read_parquet([f"{published.table}/{file}" for file in published.files])
    drawn = night.stats()
    assert sum(rows["energy_wh"].to_list()) + drawn["wasted_wh"] == pytest.approx(drawn["energy_wh"], rel=1e-6)
    assert drawn["energy_wh"] > 0
    told = {row["source_uri"].rpartition("/")[2]: row for row in rows.to_dicts()}
    assert (told["00.txt"]["commonest"], told["00.txt"]["words"], told["00.txt"]["share"]) == ("is", 8, 0.25)
    assert told["20.txt"]["error"].startswith("UnicodeDecodeError")
    assert told["21.txt"]["error"] == "the file has no words"
    summary = report_step(night.settings, night.key, task_instances=8, now=night.now)
    assert summary["headline"] == {"is": 20}
    assert summary["numbers"]["words"]["least"] == 8


def test_a_car_that_invents_counts_is_found_out(night: Night) -> None:
    texts = night.home / "texts"
    texts.mkdir()
    for number in range(8):
        (texts / f"{number}.txt").write_text("all quiet")
    night.park("liar", spoil=lambda answers: answers.set_column(3, "words", [[7] * answers.num_rows]))
    night.begin(workload="words", source=str(texts), model="")
    night.wait_until(lambda: night.stats()["disagreements"])
    assert night.parts() == []


def test_a_workload_that_does_not_repeat_itself_refuses_no_honest_car(night: Night, package: Path) -> None:
    code = package / "fleet_words" / "__init__.py"
    steady = code.read_text()
    texts = night.home / "texts"
    texts.mkdir()
    for number in range(8):
        (texts / f"{number}.txt").write_text("all quiet")
    chance = 'round(__import__("random").random(), 9)'
    code.write_text(steady.replace("words[commonest] / words.total()", chance))
    try:
        night.park("honest")
        night.begin(workload="words", source=str(texts), model="")
        merged = night.merge()
    finally:
        code.write_text(steady)
    assert (merged.rows_out, merged.missing_rows) == (8, 0)
    assert night.stats()["disagreements"] == 0
