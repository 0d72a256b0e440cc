"""The mutants grade the simulation: a guard that could be taken away unseen is not tested."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults.mutants.catalogue import MUTANTS, Mutant
from faults.mutants.killing import PACKAGE, Death, copy_product, edited, hunt
from proofs import Count

from fleetbatch.local.postgres import Postgres

SEEDS = range(1, 19)
EVENTS = 2500
LANES = 2
WHOLE = Mutant("nothing is taken away", ())
"""What dies of these seeds would say nothing if the whole product died of them, too."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_still_fits_the_product(mutant: Mutant, count: Count) -> None:
    count(edits=len(mutant.edits))
    for edit in mutant.edits:
        text = (PACKAGE / edit.file).read_text()
        assert edited(text, edit) != text


@pytest.mark.prove
@pytest.mark.timeout(1200)
def test_the_whole_product_survives_every_seed_that_mutants_are_hunted_with(
    rough_postgres: Postgres, tmp_path: Path, count: Count
) -> None:
    assert hunt(WHOLE, copy_product(tmp_path / "whole"), rough_postgres.url, SEEDS, EVENTS).seen == ""
    count(seeds_survived=len(SEEDS))


@pytest.mark.prove
@pytest.mark.timeout(7200)
def test_every_mutant_is_killed(rough_postgres: Postgres, tmp_path: Path, count: Count) -> None:
    def lane(number: int) -> list[Death]:
        folder = copy_product(tmp_path / f"lane-{number}")
        found = []
        for mutant in MUTANTS[number::LANES]:
            death = hunt(mutant, folder, rough_postgres.url, SEEDS, EVENTS)
            found.append(death)
            print(f"{death.mutant}: seed {death.seed}: {death.seen[:160]}", flush=True)
        return found

    with ThreadPoolExecutor(LANES) as lanes:
        deaths = [death for found in lanes.map(lane, range(LANES)) for death in found]
    survivors = [death.mutant for death in deaths if death.seed is None]
    count(mutants=len(deaths), killed=len(deaths) - len(survivors))
    assert not survivors
