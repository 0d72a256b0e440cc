"""Where the items of a cut come from: folders, lists, generators; what none of them can use is refused by name."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cuts import all_rows, cut, frozen_order, picture, total

from fleetbatch.errors import RejectedError
from fleetbatch.nouns import Cutting
from fleetbatch.sharding import list_input, open_input
from fleetbatch.sharding.cut import Entry
from fleetbatch.sharding.group_items import GroupItems
from fleetbatch.sharding.openers import Files, Input, Reader
from fleetbatch.sharding.scratch import Scratch
from fleetbatch.sharding.shard_rows import Row
from fleetbatch.sharding.sources import Source, open_source, path_of
from fleetbatch.store import Store
from fleetbatch.workloads.bounds import REASON_BYTES_MAX


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


@pytest.mark.parametrize("now", [b"", b"less", b"as it was", b"more than it was", b"much more than it was" * 10_000])
def test_a_file_that_changed_since_it_was_listed_is_cut_as_it_was_read(tmp_path: Path, now: bytes) -> None:
    held = {"a": b"first", "b": b"as it was", "c": b"last"}
    for name, content in held.items():
        (tmp_path / name).write_bytes(content)
    given = Input(name="files", source=open_source(str(tmp_path)), opener=Files({}))
    entries = list(given.entries())
    (tmp_path / "b").write_bytes(now)
    assert read_items(given, entries, bytes_max=1 << 20) == [b"first", now, b"last"]


@dataclass(frozen=True)
class Texts(Files):
    """Somebody's own opener: it counts on UTF-8, and on every name to have an ending."""

    def entries(self, source: Source) -> Iterator[Entry]:
        return (entry for entry in source.entries() if entry.uri.rsplit(".", 1)[1])

    def row(self, source: Reader, entry: Entry) -> Row:
        text = source.read(entry.uri).decode()
        if text == "odd":
            raise ValueError("\ud800" * 4000)
        return Row(content=text.encode())


def test_one_item_that_an_opener_breaks_at_is_a_dead_row_and_a_list_that_it_breaks_at_is_refused(
    tmp_path: Path,
) -> None:
    for name, content in (("1.txt", b"fine"), ("2.txt", b"\xff"), ("3.txt", b"odd")):
        (tmp_path / name).write_bytes(content)
    given = Input(name="texts", source=open_source(str(tmp_path)), opener=Texts({}))
    errors = [given.row(entry, bytes_max=1000).error for entry in given.entries()]
    assert errors[0] is None
    assert (errors[1] or "").startswith("it cannot be opened: UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff")
    assert (errors[2] or "").startswith("it cannot be opened: ValueError: ???")
    assert len((errors[2] or "").encode()) <= REASON_BYTES_MAX
    (tmp_path / "README").write_bytes(b"no ending")
    with pytest.raises(RejectedError, match="source texts: the workload's opener cannot list it: IndexError"):
        list_input(given)


def test_an_item_that_turns_out_too_large_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * (1 + 9 * (name == "b")))
    given = Input(name="files", source=open_source(str(tmp_path)), opener=Files({}))
    assert read_items(given, given.entries(), bytes_max=5) == [b"a", None, b"c"]


def read_items(given: Input, entries: Iterable[Entry], *, bytes_max: int) -> list[bytes | None]:
    items = GroupItems(Scratch())
    for entry in entries:
        items.add(given.row(entry, bytes_max=bytes_max, items=items).content)
    return items.array().to_pylist()
