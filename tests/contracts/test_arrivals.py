"""What lies in a store is compared with what is said of it, however large it is."""

import hashlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_servers import moto
from surroundings import environment

from fleetbatch.gateway.arrivals import Upload, look_at_all
from fleetbatch.store import Store, open_store
from fleetbatch.units import Sha256

KEY = bytes(range(32))
SMALL = Upload(key="small", size=7, sha256=Sha256(hashlib.sha256(b"answers").hexdigest()))


@pytest.fixture(scope="module", params=["folder", "moto"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    if request.param == "folder":
        yield open_store(f"file://{tmp_path_factory.mktemp('folder')}/store", deployment_key=KEY)
        return
    with moto() as server, environment(server.environment()):
        yield open_store(server.bucket_url(), deployment_key=KEY)


PEAK = """
import pickle, sys
from pathlib import Path
from fleetbatch.gateway.arrivals import look_at_all

def peak_bytes():
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10

store, size_max, small, large = pickle.load(sys.stdin.buffer)
assert look_at_all(store, size_max, [small]) == ["whole"]
before = peak_bytes()
print(look_at_all(store, size_max, [large])[0], peak_bytes() - before)
"""


def test_a_large_upload_is_compared_with_a_few_mebibytes_of_it_in_memory(store: Store, tmp_path: Path) -> None:
    size, file = 64 << 20, tmp_path / "large"
    with file.open("wb") as large:
        large.truncate(size)
    with file.open("rb") as large:
        sha256 = Sha256(hashlib.file_digest(large, "sha256").hexdigest())
    store.create(SMALL.key, b"answers")
    store.create_file("large", file)
    claims = SMALL, Upload(key="large", size=size, sha256=sha256)
    run = [sys.executable, "-c", PEAK]
    done = subprocess.run(run, input=pickle.dumps((store, size, *claims)), capture_output=True, check=True)
    found, grew_bytes = done.stdout.decode().split()
    assert found == "whole"
    assert int(grew_bytes) < size // 2


def test_a_large_upload_that_differs_in_its_last_byte_or_its_length_is_damaged(store: Store) -> None:
    content = bytes(9 << 20)
    store.create("a/b", content[:-1] + b"x")
    sha256 = [Sha256(hashlib.sha256(one).hexdigest()) for one in (content, content[:-1] + b"x")]
    claims = [Upload(key="a/b", size=len(content) + more, sha256=one) for more in (0, 1, -1) for one in sha256]
    assert look_at_all(store, 16 << 20, claims) == ["damaged", "whole", *["damaged"] * 4]
