"""One suite that every store passes: a folder, S3 as moto serves it, and S3 as Ceph's radosgw does."""

import base64
import hashlib
import mmap
import os
import pickle
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from ledger_nights import frozen_order
from s3_servers import S3Server, moto, radosgw
from surroundings import environment

from fleetbatch.errors import RejectedError
from fleetbatch.gateway.arrivals import Upload, look_at_all
from fleetbatch.settings import Settings
from fleetbatch.steps.opening import order_step
from fleetbatch.store import MissingObject, Store, open_store, probe
from fleetbatch.units import Night, Sha256

KEY = bytes(range(32))
NOW = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)
SHA = Sha256(hashlib.sha256(b"answers").hexdigest())
FIVE_MINUTES = timedelta(minutes=5)


@pytest.fixture(scope="module")
def moto_server() -> Iterator[S3Server]:
    with moto() as server:
        yield server


@pytest.fixture(scope="module")
def radosgw_server() -> Iterator[S3Server]:
    with radosgw() as server:
        yield server


@contextmanager
def fresh_bucket(server: S3Server) -> Iterator[Store]:
    with environment(server.environment()):
        yield open_store(server.bucket_url(), deployment_key=KEY)


@pytest.fixture(params=["folder", "moto", "radosgw"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "folder":
        yield open_store(f"file://{tmp_path}/store", deployment_key=KEY, base_url="http://gateway")
        return
    with fresh_bucket(request.getfixturevalue(f"{request.param}_server")) as bucket:
        yield bucket


@pytest.fixture(params=["moto", "radosgw"])
def s3(request: pytest.FixtureRequest) -> Iterator[Store]:
    with fresh_bucket(request.getfixturevalue(f"{request.param}_server")) as bucket:
        yield bucket


@pytest.fixture
def real_s3(radosgw_server: S3Server) -> Iterator[Store]:
    with fresh_bucket(radosgw_server) as bucket:
        yield bucket


def test_what_was_written_is_read_whole_and_in_ranges(store: Store) -> None:
    store.write("a/b", b"0123456789")
    assert store.read("a/b") == b"0123456789"
    assert store.read_range("a/b", 2, 5) == b"234"
    assert store.size("a/b") == 10


def test_a_store_goes_to_another_process_as_the_place_that_it_is(store: Store) -> None:
    store.write("a/b", b"x")
    sent = pickle.dumps(store)
    assert b"fleetbatch-on-this-machine-only" not in sent  # the server's secret
    assert pickle.loads(sent).read("a/b") == b"x"


def test_a_missing_object_says_so(store: Store, tmp_path: Path) -> None:
    for read in (store.read, lambda key: store.read_range(key, 0, 1), lambda key: store.fetch(key, tmp_path / "f")):
        with pytest.raises(MissingObject, match="a/b"):
            read("a/b")
    assert store.size("a/b") is None
    store.delete("a/b")


def test_a_folder_of_objects_is_not_an_object(store: Store) -> None:
    store.write("a/b", b"x")
    assert store.size("a") is None
    with pytest.raises(MissingObject):
        store.read("a")


def test_a_key_is_created_once(store: Store) -> None:
    assert store.create("k", b"first")
    assert not store.create("k", b"second")
    assert store.read("k") == b"first"


@pytest.mark.parametrize("size_bytes", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_001])
@pytest.mark.parametrize("start", [0, 1, 512])
def test_what_is_created_is_stored_to_the_byte_wherever_it_lies_in_memory(
    store: Store, size_bytes: int, start: int
) -> None:
    pages = mmap.mmap(-1, start + size_bytes + 1)  # only from whole pages on may a disk read memory by itself
    pages[start : start + size_bytes] = random.Random(size_bytes).randbytes(size_bytes)
    data = memoryview(pages)[start : start + size_bytes]
    assert store.create("a", data)
    assert store.read("a") == data


PIECES = {
    "none": [],
    "nothing": [0],
    "small": [5],
    "blocks": [4 << 20, 4 << 20, 4096],
    "odd ones, and blocks behind them": [(1 << 20) + 1, 2 << 20, 3],
}


@pytest.mark.parametrize("sizes", PIECES.values(), ids=PIECES)
def test_what_arrives_in_the_same_memory_piece_by_piece_is_seen_whole_and_by_nobody_before(
    store: Store, sizes: list[int]
) -> None:
    arrival = store.arrival("a/b")
    sizes = [sum(sizes)] if arrival.piece_bytes is None else sizes
    content = random.Random(len(sizes)).randbytes(sum(sizes))
    pages, start = memoryview(mmap.mmap(-1, max([1, *sizes]))), 0
    for size in sizes:
        pages[:size] = content[start : start + size]
        arrival.add(pages[:size])
        start += size
    assert store.size("a/b") is None
    assert list(store.keys("")) == []
    assert arrival.keep()
    arrival.drop()
    assert store.read("a/b") == content


def test_what_was_dropped_before_it_was_kept_never_was(store: Store, tmp_path: Path) -> None:
    arrival = store.arrival("a/b")
    arrival.add(b"half")
    arrival.drop()
    assert store.size("a/b") is None
    assert not list(tmp_path.rglob("*/.arriving/*"))


def test_what_arrives_second_changes_nothing(store: Store) -> None:
    first, second = store.arrival("k"), store.arrival("k")
    for arrival, content in ((first, b"first"), (second, b"second")):
        arrival.add(content)
    assert (first.keep(), second.keep()) == (True, False)
    first.drop()
    second.drop()
    assert store.read("k") == b"first"


def test_of_sixteen_creators_one_wins_and_its_bytes_stay(store: Store, request: pytest.FixtureRequest) -> None:
    one_by_one = "moto" in request.node.name  # it looks, then puts: two that come at one time may both win
    with ThreadPoolExecutor(1 if one_by_one else 16) as pool:
        won = list(pool.map(lambda n: store.create("k", b"%d" % n), range(16)))
    assert won.count(True) == 1
    assert store.read("k") == b"%d" % won.index(True)


def test_a_file_goes_in_once_and_comes_out_equal(store: Store, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(os.urandom(3 << 20))
    assert store.create_file("f", tmp_path / "in")
    assert not store.create_file("f", tmp_path / "in")
    store.fetch("f", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


def test_a_write_replaces_and_a_copy_does_not(store: Store) -> None:
    store.write("a", b"old")
    assert store.copy("a", "b/c")
    store.write("a", b"new")
    assert not store.copy("a", "b/c")
    assert (store.read("a"), store.read("b/c")) == (b"new", b"old")


def test_keys_are_listed_sorted_by_text_prefix(store: Store) -> None:
    for key in ("n/2", "n/10", "n/1/x", "m/1", "nn"):
        store.write(key, b"")
    assert list(store.keys("n/")) == ["n/1/x", "n/10", "n/2"]
    assert list(store.keys("n/1")) == ["n/1/x", "n/10"]
    assert list(store.keys("")) == ["m/1", "n/1/x", "n/10", "n/2", "nn"]
    assert list(store.keys("nowhere/")) == []


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a//b", "a/../b", "..", "a/.", "a/", "a\nb"])
def test_a_key_that_could_mean_another_place_is_refused(store: Store, key: str) -> None:
    with pytest.raises(RejectedError, match="not an object key"):
        store.create(key, b"x")


def test_the_probe_leaves_nothing_behind(store: Store, request: pytest.FixtureRequest) -> None:
    lacks = probe(store)
    if "moto" not in request.node.name:
        assert lacks == []
    else:  # moto accepts forged signatures and does not lock: the probe must notice the first at least
        assert any("forged" in lack for lack in lacks)
        assert not any("create-only" in lack or "range" in lack or "honest" in lack for lack in lacks)
    assert list(store.keys("")) == []


def test_a_signed_put_names_length_and_create_only(store: Store) -> None:
    put = store.sign_put("a/b", size=7, sha256=SHA, now=NOW, expires=FIVE_MINUTES)
    assert put.headers["Content-Length"] == "7"
    assert put.headers["If-None-Match"] == "*"


def test_s3_takes_a_signed_put_once_and_gives_a_signed_get(s3: Store) -> None:
    put = s3.sign_put("a/b c", size=7, sha256=SHA, now=NOW, expires=FIVE_MINUTES)
    assert httpx.put(put.url, content=b"answers", headers=put.headers).status_code == httpx.codes.OK
    assert httpx.put(put.url, content=b"answers", headers=put.headers).status_code == httpx.codes.PRECONDITION_FAILED
    get = httpx.get(s3.sign_get("a/b c", now=NOW, expires=FIVE_MINUTES), headers={"Range": "bytes=0-2"})
    assert (get.status_code, get.content) == (httpx.codes.PARTIAL_CONTENT, b"ans")
    assert s3.read("a/b c") == b"answers"


def test_s3_is_told_length_checksum_and_create_only_under_the_signature(s3: Store) -> None:
    """Which a server that checks signatures enforces; what moto enforces of it is the create alone."""
    put = s3.sign_put("a/b", size=7, sha256=SHA, now=NOW, expires=FIVE_MINUTES)
    query = httpx.URL(put.url).params
    signed = set(query["X-Amz-SignedHeaders"].split(";"))
    assert signed == {"host", "content-length", "if-none-match", "x-amz-checksum-sha256"}
    assert {name.lower(): value for name, value in put.headers.items()} == {
        "content-length": "7",
        "if-none-match": "*",
        "x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(b"answers").digest()).decode(),
    }
    assert query["X-Amz-Expires"] == "300"


@pytest.mark.parametrize(
    ("content", "changes"),
    [
        (b"answers!", {"Content-Length": "8"}),
        (b"answer", {"Content-Length": "6"}),
        (b"forgery", {"x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(b"forgery").digest()).decode()}),
        (b"forgery", {"x-amz-checksum-sha256": None}),
        (b"answers", {"If-None-Match": None}),
    ],
    ids=["longer", "shorter", "another checksum", "no checksum", "not create-only"],
)
def test_a_real_s3_takes_nothing_but_what_a_put_was_signed_for(
    real_s3: Store, content: bytes, changes: dict[str, str | None]
) -> None:
    put = real_s3.sign_put("a/b", size=7, sha256=SHA, now=NOW, expires=FIVE_MINUTES)
    headers = {name: value for name, value in {**put.headers, **changes}.items() if value is not None}
    assert httpx.put(put.url, content=content, headers=headers).status_code == httpx.codes.FORBIDDEN
    assert list(real_s3.keys("")) == []


def test_a_real_s3_takes_a_signed_put_for_no_other_key_and_for_no_taken_one(real_s3: Store) -> None:
    put = real_s3.sign_put("a/b", size=7, sha256=SHA, now=NOW, expires=FIVE_MINUTES)
    other = put.url.replace("/a/b?", "/a/c?")
    assert other != put.url
    assert httpx.put(other, content=b"answers", headers=put.headers).status_code == httpx.codes.FORBIDDEN
    assert list(real_s3.keys("")) == []
    real_s3.write("a/b", b"another")
    assert httpx.put(put.url, content=b"answers", headers=put.headers).status_code == httpx.codes.PRECONDITION_FAILED
    assert real_s3.read("a/b") == b"another"


def test_bytes_of_the_right_length_that_are_not_the_claimed_ones_are_found_out_by_us(s3: Store) -> None:
    put = s3.sign_put("a/b", size=7, sha256=SHA, now=NOW, expires=FIVE_MINUTES)
    httpx.put(put.url, content=b"forgery", headers=put.headers)  # a store may take them: most ignore the signed hash
    claims = [Upload(key=key, size=7, sha256=SHA) for key in ("a/b", "a/c")]
    assert look_at_all(s3, 1 << 20, claims) in (["damaged", "absent"], ["absent", "absent"])
    s3.write("a/b", b"forgery")
    assert look_at_all(s3, 1 << 20, claims) == ["damaged", "absent"]
    s3.write("a/b", b"answers")
    assert look_at_all(s3, 1 << 20, claims) == ["whole", "absent"]


def test_a_url_of_a_real_s3_ends(real_s3: Store) -> None:
    real_s3.write("k", b"x")
    url = real_s3.sign_get("k", now=NOW, expires=timedelta(seconds=1))
    time.sleep(3)
    assert httpx.get(url).status_code == httpx.codes.FORBIDDEN


def test_no_night_begins_on_a_store_on_which_it_could_not_be_published(moto_server: S3Server) -> None:
    settings = Settings(store=moto_server.bucket_url(), deployment_key=KEY, cells=())
    ended = pytest.raises((RejectedError, pa.ArrowInvalid))  # the latter of an order of no data, were it looked at
    with environment(moto_server.environment()), ended as end:
        order_step(settings, frozen_order().order, night=Night("2026-11-22"), force=False, now=NOW)
    assert "a forged signature was accepted" in str(end.value)
