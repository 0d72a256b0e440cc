"""What tests of cutting share: an empty store, and a folder of pictures to cut."""

from pathlib import Path

import pytest
from cuts import SECRET, picture_folder

from fleetbatch.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path / 'store'}", deployment_key=SECRET)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return picture_folder(tmp_path / "pictures")
