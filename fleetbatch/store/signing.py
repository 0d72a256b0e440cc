"""Signed URLs of the local folder. Pure: an HMAC over method, key, expiry, maximal length and sha256."""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from fleetbatch.store.base import quoted_key
from fleetbatch.units import Sha256

PATH: Final = "/store/"
"""Where the gateway serves the local folder."""
_PERSON: Final = b"fleetbatch-url-1"

Method = Literal["GET", "PUT"]


class UrlClaim(NamedTuple):
    """The one right that a URL carries; `size` and `sha256` are of the object to be put, 0 and None for a GET."""

    method: Method
    key: str
    expires_at: datetime
    size: int = 0
    sha256: Sha256 | None = None


Refusal = Literal["forged", "expired"]


def url_key(deployment_key: bytes) -> bytes:
    """Derive the key that signs URLs, so that it opens nothing else."""
    return hashlib.blake2b(key=deployment_key, person=_PERSON, digest_size=32).digest()


def signed_url(key: bytes, claim: UrlClaim, *, base_url: str) -> str:
    """Return the URL under which a gateway at `base_url` honours the claim; expiry counts whole seconds."""
    expires = int(claim.expires_at.timestamp())
    query = f"expires={expires}&signature={_signature(key, claim, expires)}"  # digits and letters: nothing to escape
    if claim.method == "PUT":
        query += f"&size={claim.size}&sha256={claim.sha256 or ''}"
    return f"{base_url}{PATH}{quoted_key(claim.key)}?{query}"


def checked_url(
    key: bytes, method: Method, object_key: str, query: Mapping[str, str], *, now: datetime
) -> UrlClaim | Refusal:
    """Return the claim that a request makes, or why it is refused."""
    try:
        claim = UrlClaim(
            method=method,
            key=object_key,
            expires_at=datetime.fromtimestamp(int(query["expires"]), tz=UTC),
            size=int(query.get("size", "0")),
            sha256=Sha256(query["sha256"]) if method == "PUT" else None,
        )
        signature = bytes.fromhex(query["signature"])
    except (KeyError, ValueError, OverflowError, OSError):
        return "forged"
    if not hmac.compare_digest(signature, bytes.fromhex(_signature(key, claim, int(claim.expires_at.timestamp())))):
        return "forged"
    return claim if now < claim.expires_at else "expired"


def _signature(key: bytes, claim: UrlClaim, expires: int) -> str:
    text = f"{claim.method}\n{claim.key}\n{expires}\n{claim.size}\n{claim.sha256 or ''}"
    keyed = _keyed(key).copy()
    keyed.update(text.encode("utf-8", "surrogatepass"))
    return keyed.hexdigest()


@lru_cache(maxsize=4)
def _keyed(key: bytes) -> hmac.HMAC:
    """Return the HMAC that has taken in the key, and waits for a text."""
    return hmac.new(key, digestmod="sha256")
