"""`python -m benchmarks.run NAME`: run benchmarks/NAME.py, print a table, and one JSON line per subject and metric.

A benchmark is a module with `BENCH`, a `Bench`. Every measurement runs in a process of its own, which prints lines of
{"metric", "value", "unit"}; subjects take turns round by round, and the medians over the rounds are shown. "ours" runs
in this environment, a peer in one of its own (.bench/<name>), made from its lock file.
"""

import argparse
import hashlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who is measured: a script, its arguments, and for a peer the lock file of its environment."""

    name: str
    script: str
    arguments: tuple[str, ...] = ()
    lock: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One benchmark: its subjects and how many rounds they take turns in."""

    name: str
    subjects: tuple[Subject, ...]
    rounds: int = 3
    prepare: str | None = None
    """A script that lays out what all subjects read; a second run finds it done."""
    headline: tuple[str, ...] = ()
    """Metrics of "ours" that are told once more, together, in the last line."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What every subject's process is started with, besides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One value that one subject measured in one round, or the median of its rounds."""

    subject: str
    metric: str
    value: float
    unit: str


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=sorted(names()))
    parser.add_argument("--rounds", type=int, help="instead of the benchmark's own number")
    told = parser.parse_args(arguments)
    bench: Bench = importlib.import_module(f"benchmarks.{told.name}").BENCH
    found: list[Figure] = []
    failed: list[str] = []
    rounds = told.rounds or bench.rounds
    pythons = {subject.name: python_of(subject) for subject in bench.subjects}
    if bench.prepare is not None:
        measure(Subject(name="input", script=bench.prepare), Path(sys.executable))
    for number in range(rounds):
        for subject in bench.subjects:
            print(f"round {number + 1} of {rounds}: {subject.name}", file=sys.stderr, flush=True)
            try:
                found += measure(subject, pythons[subject.name], bench.environment)
            except subprocess.CalledProcessError as error:
                failed.append(f"{subject.name} ({subject.script}): exit code {error.returncode}")
    if found:
        show(bench, medians(found))
    if failed:
        sys.exit("not measured: " + "; ".join(failed))


def names() -> list[str]:
    """Return the benchmarks there are: modules that define BENCH."""
    return [path.stem for path in Path(__file__).parent.glob("*.py") if "\nBENCH = " in path.read_text()]


def python_of(subject: Subject) -> Path:
    """Return the subject's interpreter, having made a peer's environment if there is none from its present lock."""
    if subject.lock is None:
        return Path(sys.executable)
    folder = ROOT / ".bench" / Path(subject.lock).stem
    python = folder / "bin" / "python"
    installed, lock = folder / ".installed", ROOT / subject.lock
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if not installed.exists() or installed.read_text() != wanted:
        print(f"setting up {folder.name}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*pip, "-r", str(lock)], check=True)
        installed.write_text(wanted)
    return python


def measure(subject: Subject, python: Path, besides: Mapping[str, str] = MappingProxyType({})) -> list[Figure]:
    """Run the subject once; what it prints goes to the terminal.

    Raises subprocess.CalledProcessError when it fails.
    """
    single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **single, **besides, "PYTHONPATH": str(ROOT)}
    command = [str(python), str(ROOT / subject.script), *subject.arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures = []
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            told: dict[str, Any] = json.loads(line)
            figures.append(Figure(subject=subject.name, metric=told["metric"], value=told["value"], unit=told["unit"]))
            print(f"  {told['metric']}: {told['value']:,.4g} {told['unit']}", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr)
    return figures


def medians(figures: Iterable[Figure]) -> list[Figure]:
    """Return one figure per subject and metric, in the order in which they were first seen."""
    rounds: dict[tuple[str, str, str], list[float]] = {}
    for figure in figures:
        rounds.setdefault((figure.subject, figure.metric, figure.unit), []).append(figure.value)
    return [
        Figure(subject=subject, metric=metric, value=statistics.median(values), unit=unit)
        for (subject, metric, unit), values in rounds.items()
    ]


def show(bench: Bench, figures: Sequence[Figure]) -> None:
    """Print the table, metrics down and subjects across, and the JSON lines."""
    subjects = list(dict.fromkeys(figure.subject for figure in figures))
    metrics = list(dict.fromkeys((figure.metric, figure.unit) for figure in figures))
    values = {(figure.metric, figure.subject): f"{figure.value:,.4g}" for figure in figures}
    first = max(len(f"{metric}, {unit}") for metric, unit in metrics)
    wide = max(12, *(len(subject) + 2 for subject in subjects))
    print(f"{bench.name:<{first}}" + "".join(f"{subject:>{wide}}" for subject in subjects))
    for metric, unit in metrics:
        cells = "".join(f"{values.get((metric, subject), '-'):>{wide}}" for subject in subjects)
        print(f"{f'{metric}, {unit}':<{first}}{cells}")
    for f in figures:
        line = {"bench": bench.name, "subject": f.subject, "metric": f.metric, "value": f.value, "unit": f.unit}
        print(json.dumps(line))
    if bench.headline:
        ours = {f.metric: f.value for f in figures if f.subject == "ours"}
        print(json.dumps({"bench": bench.name, **{metric: ours.get(metric) for metric in bench.headline}}))


def tell(metric: str, value: float, unit: str) -> None:
    """Print one figure; what a subject's script calls."""
    print(json.dumps({"metric": metric, "value": value, "unit": unit}), flush=True)


if __name__ == "__main__":
    main()
