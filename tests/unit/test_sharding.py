"""A source is cut into sealed shards that hold every item once."""

import hashlib
import io
import os
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fleetbatch import layout
from fleetbatch.engine import open_engine
from fleetbatch.errors import RejectedError
from fleetbatch.nouns import Auditing, Cutting, FrozenOrder, Order, OrderKey
from fleetbatch.sealing import KEY_BYTES, shard_key, unseal
from fleetbatch.sharding import Progress, cut_order, list_input, open_input
from fleetbatch.sharding.sources import open_source, path_of
from fleetbatch.store import Store, open_store
from fleetbatch.units import CellName, Night, OrderName, Sha256, ShardId

SECRET = bytes(range(KEY_BYTES))
KEY = OrderKey(night=Night("2026-11-22"), order=OrderName("overnight"), generation=1)
SMALL = Cutting(shard_rows=5, shard_bytes=4000, row_group_rows=2, row_group_bytes=2000)
ONE_CELL = {CellName("eu-1"): 1.0}


def frozen_order(source: Path | str, *, cutting: Cutting = SMALL) -> FrozenOrder:
    order = Order(
        name=KEY.order,
        workload="image",
        source=str(source),
        model="model.zip",
        region="any",
        priority=1,
        deadline_hours=10,
        data_class="open",
        schedule="",
        timezone="UTC",
        cutting=cutting,
        auditing=Auditing(),
    )
    evening = datetime(2026, 11, 22, 20, tzinfo=UTC)
    return FrozenOrder(
        key=KEY,
        order=order,
        model_sha256=Sha256("0" * 64),
        frozen_at=evening,
        deadline_at=evening.replace(hour=23),
        secret_wrapped=b"",
    )


def picture(kind: str = "PNG", *, mode: str = "RGB", size: tuple[int, int] = (9, 7), shade: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, shade).save(file, kind)
    return file.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path / 'store'}", deployment_key=SECRET)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for number in range(12):
        path = root / f"{number % 3}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(mode="L", shade=number))
    return root


def cut(store: Store, frozen: FrozenOrder) -> pa.Table:
    return cut_order(store, frozen, secret=SECRET, shares=ONE_CELL)


def shard_rows(store: Store, frozen: FrozenOrder, shard: ShardId) -> pa.Table:
    sealed = pa.BufferReader(store.read(layout.shard(frozen.key, shard)))
    with pq.ParquetFile(sealed, decryption_properties=unseal(shard_key(SECRET, shard))) as file:
        return file.read()


def shard_ids(manifest: pa.Table) -> list[ShardId]:
    return [ShardId(row["shard_id"]) for row in manifest.to_pylist()]


def total(manifest: pa.Table, column: str) -> float:
    return sum(float(row[column]) for row in manifest.to_pylist())


def metadata(store: Store, frozen: FrozenOrder, shard: ShardId) -> dict[bytes, bytes]:
    sealed = pa.BufferReader(store.read(layout.shard(frozen.key, shard)))
    return pq.ParquetFile(sealed, decryption_properties=unseal(shard_key(SECRET, shard))).metadata.metadata or {}


def all_rows(store: Store, frozen: FrozenOrder, manifest: pa.Table) -> pa.Table:
    return pa.concat_tables(shard_rows(store, frozen, shard) for shard in shard_ids(manifest))


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


def test_links_that_lead_to_folders_or_in_a_circle_are_named_and_not_followed(tmp_path: Path) -> None:
    for name, target in (("there", "back"), ("back", "there"), ("up", "..")):
        (tmp_path / name).symlink_to(target)
    told = {path_of(entry.uri).name: entry.error or "" for entry in open_source(str(tmp_path)).entries()}
    assert told.keys() == {"there", "back", "up"}
    assert "symbolic links" in told["back"]
    assert "not followed" in told["up"]


def test_names_that_are_not_utf8_or_need_quoting_are_read(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "odd names #1 %20"
    folder.mkdir()
    for name in (b"caf\xe9.png", "größe?.png".encode()):
        (folder / os.fsdecode(name)).write_bytes(picture())
    manifest = cut(store, frozen_order(folder))
    assert (total(manifest, "rows"), total(manifest, "dead_rows")) == (2, 0)


def test_a_list_of_files_is_a_source_too(store: Store, folder: Path) -> None:
    listing = folder.parent / "list.txt"
    listing.write_text(
        "# the best ones\n\npictures/1/01.png\npictures/0/00.png\npictures/1/01.png\npictures/gone.png\n"
    )
    frozen = frozen_order(listing)
    rows = all_rows(store, frozen, cut(store, frozen))
    one, zero = picture(mode="L", shade=1), picture(mode="L", shade=0)
    assert rows["bytes"].to_pylist() == [one, zero, one, None]


def test_a_picture_given_as_the_list_of_files_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "me.bmp").write_bytes(b"BM\x00\xff\n" + picture())
    with pytest.raises(RejectedError, match=r"me\.bmp"):
        cut(store, frozen_order(tmp_path / "me.bmp"))


def test_drawn_road_signs_are_a_source_with_broken_rows_if_asked(store: Store) -> None:
    frozen = frozen_order("generator:road-signs?count=10&seed=4&broken=4", cutting=Cutting(row_group_rows=3))
    manifest = cut(store, frozen)
    assert (manifest["rows"].to_pylist(), manifest["dead_rows"].to_pylist()) == ([10], [3])


def test_an_unknown_generator_or_dial_is_refused() -> None:
    with pytest.raises(RejectedError, match="no generator 'unicorns'"):
        open_source("generator:unicorns?count=1", {})
    with pytest.raises(RejectedError) as refused:
        open_source("generator:road-signs?count=many&speed=3", {"seed": "-1", "top_k": "3"})
    assert len(refused.value.problems) == 3


@pytest.mark.parametrize("files", [{}, {"notes.txt": b"no picture", "empty.jpg": b""}])
def test_a_folder_without_a_picture_is_refused_by_name_and_leaves_nothing(
    store: Store, tmp_path: Path, files: dict[str, bytes]
) -> None:
    folder = tmp_path / "holiday"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(RejectedError, match="holiday"):
        cut(store, frozen_order(folder))
    assert list(store.keys("")) == []


def test_a_listing_counts_items_and_bytes(folder: Path) -> None:
    listing = list_input(open_input("image", str(folder), {}))
    assert (listing.items, listing.size_bytes) == (12, sum(p.stat().st_size for p in folder.rglob("*.png")))


def test_cutting_twice_is_cutting_once(store: Store, folder: Path) -> None:
    frozen = frozen_order(folder)
    first = cut(store, frozen)
    files = {key: store.read(key) for key in store.keys("")}
    (folder / "later.png").write_bytes(picture())
    assert cut(store, frozen).equals(first)
    assert {key: store.read(key) for key in store.keys("")} == files


def test_an_interrupted_cut_keeps_the_files_it_made_and_describes_what_is_stored(store: Store, folder: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop_after_two(progress: Progress) -> None:
        if progress.shards == 2:
            raise StoppedError

    frozen = frozen_order(folder)
    with pytest.raises(StoppedError):
        cut_order(store, frozen, secret=SECRET, shares=ONE_CELL, progress=stop_after_two)
    assert store.size(layout.manifest(frozen.key)) is None
    kept = {key: store.read(key) for key in store.keys("")}
    assert len(kept) == 2
    manifest = cut(store, frozen)
    assert manifest.num_rows == 3
    assert {key: store.read(key) for key in kept} == kept
    for row in manifest.to_pylist():
        assert hashlib.sha256(store.read(row["key"])).hexdigest() == row["sha256"]


def test_sources_of_an_interrupted_cut_are_replaced_when_the_input_changed(store: Store, folder: Path) -> None:
    frozen = frozen_order(folder)
    cut(store, frozen)
    store.delete(layout.manifest(frozen.key))
    (folder / "0" / "000.png").write_bytes(picture(mode="L", shade=99))
    manifest = cut(store, frozen)
    sources = pq.read_table(pa.BufferReader(store.read(layout.sources(frozen.key))))
    assert sources["item_id"].to_pylist() == all_rows(store, frozen, manifest)["item_id"].to_pylist()


def test_the_processes_of_an_engine_cut_the_same_shards(store: Store, folder: Path, tmp_path: Path) -> None:
    frozen = frozen_order(folder)
    other = open_store(f"file://{tmp_path / 'other'}", deployment_key=SECRET)
    seen: list[Progress] = []
    with open_engine("local") as engine:
        ours = cut_order(other, frozen, secret=SECRET, shares=ONE_CELL, engine=engine, progress=seen.append)
    assert ours["shard_id"].equals(cut(store, frozen)["shard_id"])
    assert (seen[-1].shards, seen[-1].rows) == (3, 12)


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
