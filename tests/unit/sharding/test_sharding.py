"""A source is cut into sealed shards that hold every item once."""

import hashlib
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cuts import (
    KEY,
    SECRET,
    all_rows,
    cut,
    frozen_order,
    metadata,
    picture,
    shard_ids,
    total,
)

from fleetbatch import layout
from fleetbatch.nouns import Cutting
from fleetbatch.sealing import shard_key, unseal
from fleetbatch.store import Store


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("JPEG", "RGB"),
        ("JPEG", "L"),
        ("PNG", "P"),
        ("PNG", "RGBA"),
        ("PNG", "I;16"),
        ("BMP", "RGB"),
        ("WEBP", "RGB"),
        ("MPO", "RGB"),
    ],
)
def test_a_picture_is_known_by_its_content(store: Store, tmp_path: Path, kind: str, mode: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "holiday.txt").write_bytes(picture(kind, mode=mode))
    frozen = frozen_order(tmp_path / "in")
    [row] = all_rows(store, frozen, cut(store, frozen)).to_pylist()
    assert (row["format"], row["width"], row["height"], row["error"]) == (kind.replace("MPO", "JPEG"), 9, 7, None)


def test_a_cut_holds_every_file_once_and_the_manifest_says_where(store: Store, folder: Path) -> None:
    frozen = frozen_order(folder)
    manifest = cut(store, frozen)
    rows = all_rows(store, frozen, manifest)
    sources = pq.read_table(pa.BufferReader(store.read(layout.sources(frozen.key))))
    assert sources["item_id"].to_pylist() == rows["item_id"].to_pylist()
    assert len(set(rows["item_id"].to_pylist())) == 12
    files = [path for name in ("0", "1", "2") for path in sorted((folder / name).iterdir())]
    assert sources["source_uri"].to_pylist() == [path.as_uri() for path in files]
    assert rows["bytes"].to_pylist() == [path.read_bytes() for path in files]
    assert manifest["rows"].to_pylist() == [5, 5, 2]
    assert manifest["row_group_rows"].to_pylist() == [[2, 2, 1], [2, 2, 1], [2]]
    assert sources["row_group"].to_pylist() == [0, 0, 1, 1, 2, 0, 0, 1, 1, 2, 0, 0]


def test_the_manifest_describes_the_stored_files(store: Store, folder: Path) -> None:
    frozen = frozen_order(folder)
    for row in cut(store, frozen).to_pylist():
        data = store.read(row["key"])
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row["size_bytes"], row["sha256"])
        assert row["row_group_start"][0] == 4
        assert row["row_group_start"][1:] == row["row_group_stop"][:-1]
        assert row["row_group_stop"][-1] < row["size_bytes"]


def test_a_shard_opens_only_with_its_own_key_and_a_flipped_bit_is_refused(store: Store, folder: Path) -> None:
    frozen = frozen_order(folder)
    first, second, _ = shard_ids(cut(store, frozen))
    data = bytearray(store.read(layout.shard(frozen.key, first)))
    with pytest.raises((OSError, pa.ArrowException)):
        pq.ParquetFile(pa.BufferReader(data), decryption_properties=unseal(shard_key(SECRET, second)))
    data[200] ^= 1
    with pytest.raises((OSError, pa.ArrowException)):
        pq.ParquetFile(pa.BufferReader(data), decryption_properties=unseal(shard_key(SECRET, first))).read()


def test_the_footer_says_what_the_file_is(store: Store, folder: Path) -> None:
    frozen = frozen_order(folder)
    first, *_ = shard_ids(cut(store, frozen))
    said = metadata(store, frozen, first)
    assert (said[b"format"], said[b"order"], said[b"rows"]) == (b"fleetbatch-shard-1", str(KEY).encode(), b"5")
    assert said[b"last_item_id"] == f"{first:016x}-000004".encode()


def test_what_cannot_be_read_goes_in_with_its_error_and_nothing_stops(store: Store, folder: Path) -> None:
    (folder / "a-empty.jpg").touch()
    (folder / "b-text.jpg").write_text("no picture")
    (folder / "c-gone.jpg").symlink_to(folder / "nowhere")
    (folder / "d-large.bmp").write_bytes(picture("BMP", size=(100, 100)))
    os.mkfifo(folder / "e-pipe")
    (folder / ".hidden").write_text("not an item")
    frozen = frozen_order(folder)
    manifest = cut(store, frozen)
    rows = all_rows(store, frozen, manifest)
    dead = [row for row in rows.to_pylist() if row["error"] is not None]
    assert [row["error"].split(" ")[0] for row in dead] == ["the", "not", "cannot", "larger", "not"]
    assert all(row["bytes"] is None and row["format"] is None for row in dead)
    assert rows.num_rows == 17
    assert total(manifest, "dead_rows") == 5
    assert total(manifest, "work_units") == 12


def test_real_photographs_are_all_readable(store: Store, shared_data: Path) -> None:
    frozen = frozen_order(shared_data / "photos", cutting=Cutting())
    manifest = cut(store, frozen)
    assert (total(manifest, "rows"), total(manifest, "dead_rows")) == (126, 0)
    sizes = [path.stat().st_size for path in (shared_data / "photos").iterdir()]
    assert sum(sizes) < total(manifest, "size_bytes") < 1.01 * sum(sizes)


def test_memory_does_not_grow_with_the_number_of_pictures(store: Store, tmp_path: Path) -> None:
    def peak(pictures: int) -> int:
        folder = tmp_path / f"{pictures}"
        folder.mkdir()
        for number in range(pictures):
            (folder / f"{number:05}.bmp").write_bytes(picture("BMP", mode="L", size=(64, 64), shade=number % 256))
        frozen = frozen_order(folder, cutting=Cutting(shard_rows=10, row_group_rows=5))
        tracemalloc.start()
        cut(store, replace(frozen, key=replace(KEY, generation=pictures)))
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    assert peak(200) < 1.5 * peak(20) + (1 << 17)
