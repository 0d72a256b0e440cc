"""`fleetbatch car enrol`, `car revoke` and `owner token` on a deployment: who is let in, and out."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deployments import deployed
from ledger_nights import Cell, open_cell, yes

from fleetbatch.car.identity import car_id_of, make_key, public_pem
from fleetbatch.cli import EXIT_REJECTED, run_command
from fleetbatch.gateway.identity import token_key
from fleetbatch.ledger.messages import Granted
from fleetbatch.local.postgres import Postgres
from fleetbatch.settings import load_settings
from fleetbatch.units import CarId, CellName, OwnerId

OWNER = "00000000000003e9"


@dataclass(slots=True, kw_only=True)
class Scene:
    """A deployment of two cells, and a car that has a key."""

    home: Path
    cell: Cell
    key: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def car(self) -> CarId:
        return car_id_of(self.key.read_bytes())

    def run(self, *words: str) -> tuple[int, str]:
        code = run_command([*words, "--home", str(self.home)])
        said = self.capsys.readouterr()
        return code, said.out + said.err

    def enrol(self, *, cell: str = "eu-1", owner: str = OWNER) -> tuple[int, str]:
        return self.run("car", "enrol", str(self.key), "--cell", cell, "--owner", owner)


@pytest.fixture
def scene(tmp_path: Path, postgres: Postgres, capsys: pytest.CaptureFixture[str]) -> Iterator[Scene]:
    with deployed(tmp_path, postgres) as file, open_cell(load_settings(file).cells[0].ledger_url) as cell:
        key = tmp_path / "car.pem"
        key.write_text(public_pem(make_key()))
        yield Scene(home=tmp_path, cell=cell, key=key, capsys=capsys)


def test_a_car_is_let_in_once_and_works_when_its_owner_consents(scene: Scene) -> None:
    code, said = scene.enrol()
    assert (code, f"{scene.car:016x}" in said, "1 cars are new" in said) == (0, True, True)
    assert "0 cars are new, 1 were enrolled before" in scene.enrol()[1]
    known = scene.cell.ledger.car_key(scene.car)
    assert known is not None
    assert (known.owner_id, known.public_key_pem) == (OwnerId(1001), scene.key.read_text())
    scene.cell.open({7: (1,)})
    assert not isinstance(scene.cell.ask(scene.car, 7), Granted)
    scene.cell.ledger.set_consent(yes(scene.car))
    assert isinstance(scene.cell.ask(scene.car, 7), Granted)


def test_a_revoked_car_loses_its_lease_and_tokens_and_is_not_let_in_again(scene: Scene) -> None:
    scene.enrol()
    scene.cell.ledger.set_consent(yes(scene.car))
    scene.cell.open({7: (1,)})
    lease = scene.cell.take(scene.car, 7)
    code, said = scene.run("car", "revoke", f"{scene.car:016x}", "--why", "key lost")
    assert (code, "is revoked" in said) == (0, True)
    assert scene.cell.beat(lease).reason == "the lease is revoked: the car is revoked: key lost"
    assert scene.car in scene.cell.ledger.voided_tokens(timedelta(hours=1))
    code, said = scene.enrol()
    assert (code, "was revoked, for good; give it a new key" in said) == (EXIT_REJECTED, True)


def test_a_car_of_another_owner_or_cell_is_not_enrolled_twice(scene: Scene) -> None:
    scene.enrol()
    for words, complaint in (
        ({"owner": "1"}, "is enrolled for owner 00000000000003e9"),
        ({"cell": "us-1"}, "is enrolled in cell eu-1"),
        ({"cell": "mars"}, "there is no cell 'mars'"),
        ({"owner": "me"}, "'me' is not an owner"),
    ):
        code, said = scene.enrol(**words)
        assert (code, complaint in said) == (EXIT_REJECTED, True)


def test_what_is_no_key_or_no_car_is_named(scene: Scene) -> None:
    for content in (b"", b"\xff\xfe", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        scene.key.write_bytes(content)
        code, said = scene.enrol()
        assert (code, str(scene.key) in said.replace("\n", "")) == (EXIT_REJECTED, True)
    scene.key.unlink()
    assert "cannot read" in scene.enrol()[1]
    code, said = scene.run("car", "revoke", "00000000000000ff", "--why", "lost")
    assert (code, "no cell knows the car" in said) == (EXIT_REJECTED, True)


def test_an_owners_token_opens_the_owners_doors_of_one_cell_until_it_ends(scene: Scene) -> None:
    code, said = scene.run("owner", "token", OWNER, "--cell", "eu-1", "--minutes", "5")
    assert code == 0
    secret, now = load_settings(scene.home / "settings.toml").deployment_key, datetime.now(UTC)
    opens = {
        (cell, kind): token_key(secret, CellName(cell), kind).bearer(said.strip().encode(), now=now)
        for cell in ("eu-1", "us-1")
        for kind in ("owner", "car")
    }
    bearer = opens.pop(("eu-1", "owner"))
    assert bearer is not None
    assert bearer.who == 1001
    assert set(opens.values()) == {None}
    late = now + timedelta(minutes=6)
    assert token_key(secret, CellName("eu-1"), "owner").bearer(said.strip().encode(), now=late) is None
