"""A car installs `fleetbatch[car]` from the wheel and has nothing of the trusted side."""

import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1]
LOCK = PROJECT / "infra" / "locks" / "laptop.txt"
TRUSTED = ("airflow", "great_expectations", "psycopg", "polars", "obstore", "deltalake", "onnx", "boto3", "starlette")
RUNS = """
import importlib, importlib.util, sys
for name in {trusted!r}:
    assert importlib.util.find_spec(name) is None, name
for name in ("runner.life", "runner.worker", "runner.process", "workloads.image", "car.agent", "inference", "sealing"):
    importlib.import_module(f"fleetbatch.{{name}}")
from pathlib import Path
import fleetbatch
from fleetbatch.bundle import open_bundle
from fleetbatch.contracts import contract
from fleetbatch.inference import check_goldens, open_inference
here = Path(fleetbatch.__file__).parent
assert here.is_relative_to(sys.prefix), here
bundle = open_bundle((here / "models" / "road_signs.zip").read_bytes(), expected_sha256=None)
check_goldens(bundle, open_inference(bundle, provider="CPUExecutionProvider", threads=1))
print("goldens right,", contract("answers_image").version)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this working tree, by the build backend itself."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True, text=True)
    [built] = folder.glob("fleetbatch-*.whl")
    return built


@pytest.fixture
def car(tmp_path: Path) -> Path:
    """The Python of an empty environment."""
    venv.create(tmp_path / "car", with_pip=False, symlinks=True)
    return tmp_path / "car" / "bin" / "python"


def test_the_wheel_with_what_its_car_extra_names_runs_a_car_and_nothing_else(wheel: Path, car: Path) -> None:
    install(car, "--no-deps", "--no-index", str(wheel))
    for needed in closure("fleetbatch[car]"):
        link(needed, site_packages(car))
    check(car)


@pytest.mark.prove
def test_the_car_extra_installs_at_the_locked_versions(wheel: Path, car: Path, tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    pins = [line.split(" \\")[0] for line in LOCK.read_text().splitlines() if re.match(r"[a-z0-9]", line)]
    constraints.write_text("\n".join(pins))
    install(car, "--constraint", str(constraints), f"{wheel}[car]")
    check(car)


def check(car: Path) -> None:
    """Help is shown, the trusted side is absent, a model answers its goldens."""
    assert "usage" in run(car, "-m", "fleetbatch.runner", "--help")
    assert "goldens right, 1.0.0" in run(car, "-c", RUNS.format(trusted=TRUSTED))


def run(car: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(car), "-E", "-s", *arguments], cwd=car.parent, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def install(car: Path, *arguments: str) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(car), "install", "-q"]
    done = subprocess.run([*pip, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def closure(requirement: str) -> Iterator[Distribution]:
    """Yield what a requirement needs, as declared, of what is installed here; the package itself left out."""
    waiting, seen = [Requirement(requirement)], set()
    while waiting:
        wanted = waiting.pop()
        key = (wanted.name.lower(), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        found = distribution(wanted.name)
        for text in found.requires or []:
            one = Requirement(text)
            extras = wanted.extras or {""}
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(one)
        if wanted.name != Requirement(requirement).name:
            yield found


def link(found: Distribution, folder: Path) -> None:
    """Let an environment see one installed distribution, and nothing beside it."""
    for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in {"..", "__pycache__"}}:
        target = folder / top
        if not target.exists():
            target.symlink_to(Path(str(found.locate_file(top))))


def site_packages(car: Path) -> Path:
    [folder] = (car.parents[1] / "lib").glob("python*/site-packages")
    return folder
