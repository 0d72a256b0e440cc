"""What the command line says to input that cannot be used: one clear message, exit code 2, nothing half-written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from model_bundles import COLOURS, Shape, colour_model, content, plain_picture

from fleetbatch.bundle import build_bundle
from fleetbatch.cli import EXIT_REJECTED, run_command

ORDER = """
source = "generator:road-signs?count=100"
model = "road-signs"
deadline_hours = 8.0
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "red.png").write_bytes(plain_picture())
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "colours.zip"
    path.write_bytes(build_bundle(content()))
    return path


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Run a command that must be refused; return what it says to a person, on one line."""
    assert run_command([str(word) for word in words]) == EXIT_REJECTED
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return " ".join(said.err.split())


def refused_night(capsys: pytest.CaptureFixture[str], home: Path, *words: str | Path) -> str:
    """Run a night that must be refused before anything is started or written but the folder that it would use."""
    said = refused(capsys, "night", "--home", home, *words)
    left = {path.name for path in home.rglob("*")} if home.is_dir() else set()
    assert left <= {"lock", "orders", "store", ".arriving"}
    return said


def test_an_empty_folder_of_pictures_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = refused_night(capsys, tmp_path / "home", "--images", tmp_path / "empty", "--model", bundle)
    assert f"{tmp_path / 'empty'} is empty: put pictures (JPEG, PNG, BMP, WebP) into it" in said


def test_a_folder_without_a_readable_picture_is_named_with_its_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, bundle: Path
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("buy milk")
    (tmp_path / "notes" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    said = refused_night(capsys, tmp_path / "home", "--images", tmp_path / "notes", "--model", bundle)
    assert "holds 2 items and none can be used; expected pictures" in said
    assert "todo.txt: not a JPEG, PNG, BMP or WebP picture" in said
    assert "broken.jpg: " in said


def test_a_model_that_is_no_bundle_is_named_with_the_command_that_makes_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(colour_model(Shape()))
    (tmp_path / "model.zip").write_bytes(colour_model(Shape()))
    for name in ("model.onnx", "model.zip"):
        said = refused_night(capsys, tmp_path / "home", "--images", pictures, "--model", tmp_path / name)
        assert name in said
        assert "fleetbatch model pack" in said


def test_a_damaged_bundle_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path, bundle: Path
) -> None:
    damaged = bytearray(bundle.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    bundle.write_bytes(damaged)
    assert str(bundle) in refused_night(capsys, tmp_path / "home", "--images", pictures, "--model", bundle)
    assert str(bundle) in refused(capsys, "model", "show", bundle)
    assert str(bundle) in refused(capsys, "model", "check", bundle)


def test_everything_wrong_with_a_night_is_said_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = refused_night(capsys, tmp_path / "home", "--images", tmp_path / "absent", "--night", "tonight")
    for word in ("go together", "absent: there is no such folder", "YYYY-MM-DD"):
        assert word in said


def test_an_order_that_is_not_there_is_told_which_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "there are drive, overnight" in refused_night(capsys, tmp_path / "home", "--order", "underday")


def test_a_home_that_cannot_be_written_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path, bundle: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    said = refused_night(capsys, tmp_path / "file" / "home", "--images", pictures, "--model", bundle)
    assert f"{tmp_path / 'file' / 'home'} cannot be written (Not a directory); choose another place with --home" in said


def test_a_store_that_cannot_be_written_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path, bundle: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "store").write_text("not a folder")
    said = refused_night(capsys, home, "--images", pictures, "--model", bundle)
    assert f"the store's folder {home / 'store'} is not writable" in said
    assert "choose another" in said


def test_an_order_with_three_mistakes_is_refused_with_all_three(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(ORDER.replace("8.0", "-1") + 'region = "atlantis"\ncolour = "blue"\n')
    said = refused(capsys, "order", "check", file)
    assert f"{file} is not an order that can run" in said
    assert "`deadline_hours` is -1; expected hours after the run starts" in said
    assert "`region` 'atlantis' has no cell; cells serve eu, us, or say `any`" in said
    assert "`colour` is not known; known are" in said
    assert said.count(" - ") == 3


def test_a_good_order_is_accepted_with_an_estimate(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text(ORDER)
    assert run_command(["order", "check", str(tmp_path / "good.toml"), "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)
    assert (estimate["order"], estimate["rows"]) == ("good", 100)


@pytest.fixture
def pieces(tmp_path: Path) -> Path:
    (tmp_path / "colours.onnx").write_bytes(colour_model(Shape()))
    (tmp_path / "labels.txt").write_text("\n".join(COLOURS))
    (tmp_path / "preprocessing.toml").write_text(
        '[input]\ncolour = "RGB"\n[resize]\nmode = "squash"\n[normalise]\nscale = 0.0392\n[output]\nkind = "logits"\n'
    )
    (tmp_path / "goldens").mkdir()
    (tmp_path / "goldens" / "red.png").write_bytes(plain_picture())
    return tmp_path


def pack(pieces: Path, model: str = "colours.onnx") -> list[str]:
    words = ["model", "pack", str(pieces / model), "--preprocessing", str(pieces / "preprocessing.toml")]
    words += ["--labels", str(pieces / "labels.txt"), "--golden", str(pieces / "goldens")]
    return [*words, "--out", str(pieces / "out.zip")]


def refused_pack(capsys: pytest.CaptureFixture[str], pieces: Path, model: str = "colours.onnx") -> str:
    said = refused(capsys, *pack(pieces, model))
    assert f"no bundle can be made of {pieces / model}" in said
    assert not [path for path in pieces.iterdir() if "out" in path.name]
    return said


def test_good_pieces_become_a_bundle(capsys: pytest.CaptureFixture[str], pieces: Path) -> None:
    assert run_command(pack(pieces)) == 0
    assert "sha256" in capsys.readouterr().out
    assert run_command(["model", "check", str(pieces / "out.zip")]) == 0


def test_a_model_that_is_not_onnx_is_named(capsys: pytest.CaptureFixture[str], pieces: Path) -> None:
    (pieces / "fake.onnx").write_text("this is no model")
    assert "fake.onnx is not an ONNX file" in refused_pack(capsys, pieces, "fake.onnx")


def test_a_model_that_lacks_an_input_is_named(capsys: pytest.CaptureFixture[str], pieces: Path) -> None:
    import onnx

    model = onnx.load_model_from_string(colour_model(Shape()))
    del model.graph.input[:]
    (pieces / "blind.onnx").write_bytes(model.SerializeToString())
    assert "blind.onnx takes []; a picture model takes one input" in refused_pack(capsys, pieces, "blind.onnx")


def test_a_bundle_without_goldens_is_refused(capsys: pytest.CaptureFixture[str], pieces: Path) -> None:
    (pieces / "goldens" / "red.png").unlink()
    assert "there are no golden pictures" in refused_pack(capsys, pieces)


def test_a_bundle_goes_nowhere_when_its_place_cannot_be_written(
    capsys: pytest.CaptureFixture[str], pieces: Path
) -> None:
    words = pack(pieces)
    words[-1] = str(pieces / "labels.txt" / "out.zip")
    assert f"cannot write {words[-1]}" in refused(capsys, *words)


def test_results_before_the_first_night_say_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words in (["results"], ["why", "00000000000000ab"]):
        said = refused(capsys, *words, "--home", tmp_path)
        assert f"no night has run in {tmp_path}: run `fleetbatch night`" in said


def test_words_that_are_not_understood_end_with_2_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["nigth"]) == EXIT_REJECTED
    assert "night" in capsys.readouterr().err


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    """The settings of a deployment of which nothing runs."""
    (tmp_path / "deployment.key").write_text("00" * 32)
    lines = [f'store = "{(tmp_path / "store").as_uri()}"', 'deployment_key_file = "deployment.key"', "[[cells]]"]
    lines += ['name = "eu-1"', 'region = "eu"', 'gateway_url = "http://127.0.0.1:1"']
    lines += [
        'ledger_url = "postgresql://nobody@127.0.0.1:1/none"',
        'gateway_ledger_url = "postgresql://nobody@127.0.0.1:1/none"',
    ]
    (tmp_path / "settings.toml").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.parametrize("name", ["ffffffffffffffff", "123456789012345678901234567890", "1_0", "car-1"])
@pytest.mark.parametrize("words", [("owner", "statement"), ("owner", "tariff"), ("why",)])
def test_what_no_car_is_called_is_refused_by_every_command(
    capsys: pytest.CaptureFixture[str], deployment: Path, words: tuple[str, ...], name: str
) -> None:
    more = ["0.3"] if words[-1] == "tariff" else []
    assert "sixteen hex digits" in refused(capsys, *words, name, *more, "--home", deployment)


def test_a_ledgers_url_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str], deployment: Path) -> None:
    file = deployment / "settings.toml"
    file.write_text(file.read_text().replace("postgresql://nobody@127.0.0.1:1/none", "the cellar"))
    for words in (("status",), ("owner", "statement", "00000000000000ff"), ("credits", "recompute")):
        assert "the ledger's URL in the settings is none" in refused(capsys, *words, "--home", deployment)


def test_output_that_cannot_be_written_is_one_line_and_worth_another_try() -> None:
    command = [sys.executable, "-c", "from fleetbatch.cli import main; main()", "airflow-settings"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 75
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
