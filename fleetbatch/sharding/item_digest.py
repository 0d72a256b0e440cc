"""What stands for an item in its shard's id: a sum under the order's secret, made by the processor's AES instructions.

GMAC (NIST SP 800-38D) is a seventh of SHA-256's work. Who does not know the key cannot find two items with one sum, but
by a chance of their length in blocks to 2**128; the sums leave the process only as the 63 bits of an id.
"""

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KEY_BYTES: Final = 32
_ITEM: Final = b"item".ljust(12)
_DEAD: Final = b"dead letter ".ljust(12)
"""Nonces: they keep items and reasons apart. They repeat, which would tell the key to whoever sees the sums."""


class ItemDigests:
    """The sums of one order's items: the same item, the same sum."""

    def __init__(self, secret: bytes) -> None:
        """Derive a key of our own from the order's secret (HKDF-SHA256, RFC 5869)."""
        key = HKDF(algorithm=hashes.SHA256(), length=_KEY_BYTES, salt=None, info=b"fleetbatch-items-1").derive(secret)
        self._gcm = AESGCM(key)

    def of(self, content: bytes | memoryview | None, error: str | None) -> bytes:
        """Return 16 bytes that stand for one item: what it holds, or why it could not be read."""
        if content is None:
            return self._gcm.encrypt(_DEAD, b"", (error or "").encode())
        return self._gcm.encrypt(_ITEM, b"", content)
