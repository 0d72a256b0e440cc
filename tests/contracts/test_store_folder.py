"""What only a folder as a store has: claims that we sign ourselves, rights, and files that a killed process left."""

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from fleetbatch.errors import RejectedError
from fleetbatch.store import open_store
from fleetbatch.store.local import ARRIVING
from fleetbatch.store.signing import UrlClaim, checked_url, url_key
from fleetbatch.units import Sha256

KEY = bytes(range(32))
NOW = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)
SHA = Sha256(hashlib.sha256(b"answers").hexdigest())
FIVE_MINUTES = timedelta(minutes=5)


def test_a_changed_word_in_a_signed_claim_is_a_forgery(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}", deployment_key=KEY, base_url="http://gateway")
    url = httpx.URL(store.sign_put("a/b", size=7, sha256=SHA, now=NOW, expires=FIVE_MINUTES).url)
    honest = dict(url.params)
    assert isinstance(checked_url(url_key(KEY), "PUT", "a/b", honest, now=NOW), UrlClaim)
    assert checked_url(url_key(KEY), "PUT", "a/b", honest, now=NOW + FIVE_MINUTES) == "expired"
    lies = [{"size": "8"}, {"sha256": "0" * 64}, {"expires": "9999999999"}, {"signature": "00"}, {"size": "x"}]
    for lie in lies:
        assert checked_url(url_key(KEY), "PUT", "a/b", honest | lie, now=NOW) == "forged"
    assert checked_url(url_key(KEY), "PUT", "a/c", honest, now=NOW) == "forged"
    assert checked_url(url_key(KEY), "GET", "a/b", honest, now=NOW) == "forged"
    assert checked_url(url_key(KEY[::-1]), "PUT", "a/b", honest, now=NOW) == "forged"
    assert checked_url(url_key(KEY), "PUT", "a/b", {}, now=NOW) == "forged"


def test_a_store_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RejectedError, match="not writable"):
        open_store(f"file://{tmp_path}/file/store", deployment_key=KEY)


@pytest.mark.parametrize("url", ["/tmp/x", "ftp://a/b", "file:relative", "s3://", "s3://b/p?colour=red"])
def test_an_unknown_store_is_refused_with_what_is_known(url: str) -> None:
    with pytest.raises(RejectedError, match="s3://"):
        open_store(url, deployment_key=KEY)


def test_what_a_killed_process_left_half_written_is_removed_and_what_still_arrives_is_not(tmp_path: Path) -> None:
    arriving = tmp_path / "store" / ARRIVING
    arriving.mkdir(parents=True)
    for name, age_s in (("left", 7200), ("arrives", 60)):
        (arriving / name).write_bytes(b"half")
        at_s = (arriving / name).stat().st_mtime - age_s
        os.utime(arriving / name, (at_s, at_s))
    open_store(f"file://{tmp_path}/store", deployment_key=KEY)
    assert [path.name for path in arriving.iterdir()] == ["arrives"]
