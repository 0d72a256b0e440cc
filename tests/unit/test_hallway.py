import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from fleetbatch.errors import RejectedError
from fleetbatch.nouns import OrderKey
from fleetbatch.sealing import seal, shard_key, unseal, unwrap_secret, wrap_secret
from fleetbatch.settings import cell_named, load_settings
from fleetbatch.units import Night, OrderName, ShardId, id_of, shard_hex

SECRET = bytes(range(32))
SETTINGS = """
store = "file:///tmp/store"
deployment_key_file = "key"
[[cells]]
name = "eu-1"
region = "eu"
ledger_url = "postgresql://a"
gateway_ledger_url = "postgresql://b"
gateway_url = "http://127.0.0.1:1"
"""


@given(st.integers(1, 10**6))
def test_a_key_survives_its_text_form(generation: int) -> None:
    key = OrderKey(night=Night("2026-11-22"), order=OrderName("overnight"), generation=generation)
    assert OrderKey.parse(str(key)) == key


@pytest.mark.parametrize("text", ["", "a/b", "a/b/c", "a/b/g", "a/b/g1/d"])
def test_a_text_that_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(RejectedError, match="NIGHT/ORDER/gN"):
        OrderKey.parse(text)


def test_a_refusal_survives_a_trip_through_another_process() -> None:
    error = RejectedError("no", ["first", "second"])
    back = pickle.loads(pickle.dumps(error))
    assert str(back) == str(error) == "no\n  - first\n  - second"


def test_the_settings_name_every_mistake_at_once(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('deployment_key_file = "absent"\n[[cells]]\nname = "eu-1"\n')
    with pytest.raises(RejectedError) as caught:
        load_settings(path)
    text = str(caught.value)
    for word in ("`store` is missing", "`region` is missing", "`gateway_url` is missing", "absent"):
        assert word in text


@pytest.mark.parametrize(("key", "complaint"), [("zz", "not hexadecimal"), ("00" * 16, "16 bytes; expected 32")])
def test_a_bad_deployment_key_is_named(tmp_path: Path, key: str, complaint: str) -> None:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    (tmp_path / "key").write_text(key)
    with pytest.raises(RejectedError, match=complaint):
        load_settings(tmp_path / "settings.toml")


def test_an_unknown_cell_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    (tmp_path / "key").write_text("00" * 32)
    settings = load_settings(tmp_path / "settings.toml")
    assert cell_named(settings, "eu-1").region == "eu"
    with pytest.raises(RejectedError, match="eu-1"):
        cell_named(settings, "mars-1")


def test_a_secret_opens_with_the_deployments_key_only() -> None:
    wrapped = wrap_secret(SECRET, b"k" * 32)
    assert unwrap_secret(wrapped, b"k" * 32) == SECRET
    with pytest.raises(RejectedError, match="deployment key"):
        unwrap_secret(wrapped, b"x" * 32)


def test_every_shard_has_a_key_of_its_own_and_always_the_same() -> None:
    keys = {shard_key(SECRET, ShardId(number)) for number in range(100)}
    assert len(keys) == 100
    assert shard_key(SECRET, ShardId(7)) in keys


@given(secret=st.binary(min_size=1, max_size=100), shard=st.integers(0, (1 << 63) - 1))
def test_a_shards_key_is_what_hkdf_derives(secret: bytes, shard: int) -> None:
    info = f"fleetbatch-shard-1 {shard_hex(ShardId(shard))}".encode()
    derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)
    assert shard_key(secret, ShardId(shard)) == derived


def test_a_sealed_file_is_refused_with_another_key_and_when_any_single_bit_changed(tmp_path: Path) -> None:
    path = tmp_path / "sealed.parquet"
    table = pa.table({"item_id": ["a", "b"], "bytes": [b"x" * 500, b"y" * 500]})
    key = shard_key(SECRET, ShardId(1))
    pq.write_table(table, path, encryption_properties=seal(key))
    assert pq.read_table(path, decryption_properties=unseal(key)).equals(table)
    assert b"xxxxx" not in path.read_bytes()
    with pytest.raises(OSError, match="decrypt"):
        pq.read_table(path, decryption_properties=unseal(shard_key(SECRET, ShardId(2))))
    whole = path.read_bytes()
    for place in range(8, len(whole) - 8, 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(OSError):  # noqa: PT011 # which words pyarrow finds depends on the place
            pq.ParquetFile(path, decryption_properties=unseal(key)).read()


def test_a_shard_is_shown_as_sixteen_hex_digits() -> None:
    assert shard_hex(ShardId(255)) == "00000000000000ff"


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        (b"\xff\xfe\x00", "is not TOML"),
        (b"cells = 3\n", "`[[cells]]` is missing"),
        (b'cells = ["eu-1"]\n', "`[[cells]]` is missing"),
        (b"cells = []\n", "`[[cells]]` is missing"),
        (b"store = 5\n", "`store` is 5; expected text"),
        (b"deployment_key_file = 5\n", "`deployment_key_file` is 5; expected text"),
        (b"[[cells]]\nname = 5\n", "cell 1: `name` is 5; expected text"),
        (b'[[cells]]\ngateway_url = "http://[::1"\n', "expected a URL such as https://gateway.example"),
        (b'[[cells]]\ngateway_url = "gateway.example"\n', "expected a URL such as https://gateway.example"),
    ],
)
def test_settings_of_another_type_are_refused_by_name(tmp_path: Path, written: bytes, complaint: str) -> None:
    (tmp_path / "settings.toml").write_bytes(written)
    with pytest.raises(RejectedError) as caught:
        load_settings(tmp_path / "settings.toml")
    assert complaint in str(caught.value)


@pytest.mark.parametrize("text", ["", "zz", "-1", "1_0", " 10", "0x10", "8000000000000000", "12345678901234567"])
def test_what_no_car_or_shard_can_be_called_has_no_id(text: str) -> None:
    assert id_of(text) is None


def test_an_id_is_read_as_people_meet_it() -> None:
    assert (id_of("00000000000000ff"), id_of("FF"), id_of("7fffffffffffffff")) == (255, 255, (1 << 63) - 1)


def test_a_small_table_is_read_without_leaving_a_thread_behind() -> None:
    """Arrow's threads abort a process that ends before them, after its right answer."""
    reading = """
import io, psutil, pyarrow as pa, pyarrow.parquet as pq
from fleetbatch.contracts import parquet_table
sink = io.BytesIO()
pq.write_table(pa.table({"a": range(3), "b": ["x", "y", "z"]}), sink)
before = psutil.Process().num_threads()
assert parquet_table(sink.getvalue(), ["b"]).to_pydict() == {"b": ["x", "y", "z"]}
assert psutil.Process().num_threads() == before
"""
    subprocess.run([sys.executable, "-c", reading], check=True, timeout=60)
