"""Shards are sealed with Parquet modular encryption, one key per shard; a changed bit is refused.

The key of a shard follows from its order's secret, so nothing is lost when a cut is interrupted, and forgetting the one
wrapped secret makes every stray copy of the night unreadable.
"""

import hmac
from functools import lru_cache
from typing import Any, Final

import pyarrow.parquet.encryption
from cryptography.hazmat.primitives import keywrap

from fleetbatch.errors import RejectedError
from fleetbatch.units import ShardId, shard_hex

# pyarrow's types do not know the encryption module's newer functions.
_parquet: Any = pyarrow.parquet.encryption

KEY_BYTES: Final = 32
"""As many as the hash gives, so that one step expands a key."""
_NO_SALT: Final = bytes(KEY_BYTES)
_SECRETS: Final = 64
"""Orders that are worked on at one time."""


def wrap_secret(secret: bytes, deployment_key: bytes) -> bytes:
    """Wrap an order's secret for rest (AES key wrap, RFC 3394)."""
    return keywrap.aes_key_wrap(deployment_key, secret)


def unwrap_secret(wrapped: bytes, deployment_key: bytes) -> bytes:
    """Return an order's secret; raise RejectedError when this is not the deployment's key that wrapped it."""
    try:
        return keywrap.aes_key_unwrap(deployment_key, wrapped)
    except keywrap.InvalidUnwrap as error:
        summary = "the deployment key does not open this order's secret; was the key file replaced?"
        raise RejectedError(summary) from error


def shard_key(secret: bytes, shard_id: ShardId) -> bytes:
    """Derive the 32-byte key of one shard (HKDF-SHA256, RFC 5869)."""
    expanding = _extracted(secret).copy()
    expanding.update(f"fleetbatch-shard-1 {shard_hex(shard_id)}\x01".encode())
    return expanding.digest()


@lru_cache(maxsize=_SECRETS)
def _extracted(secret: bytes) -> hmac.HMAC:
    """Return what an order's keys are expanded by, and waits for a shard: a gateway derives thousands a second."""
    return hmac.new(hmac.digest(_NO_SALT, secret, "sha256"), digestmod="sha256")


def seal(key: bytes) -> Any:  # noqa: ANN401 # FileEncryptionProperties, which pyarrow exports nowhere
    """Return what `pq.ParquetWriter(encryption_properties=...)` needs: AES-GCM over footer and all columns.

    The key is used as it is, without a second data key inside the file: it belongs to this one file already.
    """
    return _parquet.create_encryption_properties(key)


def unseal(key: bytes) -> Any:  # noqa: ANN401 # FileDecryptionProperties, which pyarrow exports nowhere
    """Return what `pq.ParquetFile(decryption_properties=...)` needs."""
    return _parquet.create_decryption_properties(key)
