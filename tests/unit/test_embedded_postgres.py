"""Whose folders the embedded PostgreSQL touches."""

from pathlib import Path

from fleetbatch.local.postgres import _set_aside_unfinished
from fleetbatch.local.reaper import DATA_PREFIX, forget_data


def test_only_a_folder_made_for_one_server_is_removed_with_its_data(tmp_path: Path) -> None:
    for name in (f"{DATA_PREFIX}abc", "home"):
        (tmp_path / name / "data").mkdir(parents=True)
        forget_data(tmp_path / name / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert (tmp_path / "home" / "data").is_dir()


def test_data_whose_making_was_interrupted_are_set_aside_and_not_deleted(tmp_path: Path) -> None:
    data, whole = tmp_path / "postgres", tmp_path / "postgres.whole"
    data.mkdir()
    (data / "PG_VERSION").write_text("18")
    _set_aside_unfinished(data, whole)
    [aside] = tmp_path.iterdir()
    assert aside.name.startswith("postgres.unfinished-")
    assert (aside / "PG_VERSION").read_text() == "18"


def test_whole_data_stay_where_they_are(tmp_path: Path) -> None:
    data, whole = tmp_path / "postgres", tmp_path / "postgres.whole"
    data.mkdir()
    whole.touch()
    _set_aside_unfinished(data, whole)
    assert data.is_dir()
