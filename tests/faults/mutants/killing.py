"""Run the simulation against a copy of the product that has one guard less, until a seed sees it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from faults.mutants.catalogue import QUERIES, Edit, Mutant

import fleetbatch
from fleetbatch.contracts import schemas_folder

TESTS = Path(__file__).parents[2]
PACKAGE = Path(fleetbatch.__file__).parent
_WITHIN_S = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """By which seed a mutant was killed, and what was seen; a seed of None is a survivor."""

    mutant: str
    seed: int | None
    seen: str = ""


def copy_product(folder: Path) -> Path:
    """Copy the package, and the schemas beside it, to where they may be changed; return the path to import from."""
    folder.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "schemas")
    shutil.copytree(PACKAGE, folder / "fleetbatch", ignore=ignored)
    (folder / "schemas").symlink_to(schemas_folder())
    return folder


def apply(mutant: Mutant, folder: Path) -> None:
    """Change the copy."""
    for edit in mutant.edits:
        path = folder / "fleetbatch" / edit.file
        path.write_text(edited(path.read_text(), edit))


def restore(mutant: Mutant, folder: Path) -> None:
    """Make the copy whole again."""
    for edit in mutant.edits:
        (folder / "fleetbatch" / edit.file).write_text((PACKAGE / edit.file).read_text())


def edited(text: str, edit: Edit) -> str:
    """Return a file's text with one place changed; there must be exactly one."""
    start, stop = 0, len(text)
    if edit.file == QUERIES:
        start = text.index(f"-- name: {edit.within}\n")
        stop = text.find("\n-- name: ", start)
        stop = len(text) if stop < 0 else stop
    part = text[start:stop]
    assert part.count(edit.find) == 1, f"{part.count(edit.find)} times in {edit.within or edit.file}: {edit.find}"
    return text[:start] + part.replace(edit.find, edit.replace) + text[stop:]


def hunt(mutant: Mutant, folder: Path, server_url: str, seeds: range, events: int) -> Death:
    """Try one seed after the other on the changed copy."""
    apply(mutant, folder)
    try:
        for seed in seeds:
            seen = _run(folder, server_url, seed, events)
            if seen:
                return Death(mutant=mutant.name, seed=seed, seen=seen)
        return Death(mutant=mutant.name, seed=None)
    finally:
        restore(mutant, folder)


def _run(folder: Path, server_url: str, seed: int, events: int) -> str:
    """Return what the first violation was, "" for none."""
    places = os.pathsep.join([str(folder), str(TESTS)])
    command = [sys.executable, "-m", "faults.mutants.victim", server_url, str(seed), str(events)]
    environment = {**os.environ, "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=_WITHIN_S, check=False
    )
    if done.returncode:
        error = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        assert not any(word in error for word in ("SyntaxError", "Undefined", "ImportError", "NameError")), error
        return f"the run broke: {error}"
    violations: list[str] = json.loads(done.stdout.strip().splitlines()[-1])
    return violations[0] if violations else ""
