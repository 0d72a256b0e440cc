"""A car is its ES256 key: the id follows from it, tokens are bought with it, parts are signed by it."""

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from fleetbatch.errors import RejectedError
from fleetbatch.units import ID_BITS, CarId

ASSERTION_LIFE: Final = timedelta(minutes=4)
"""Gateways take five; a clock may be off by the rest."""
_COORDINATE_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A car's key, opened."""

    key: ec.EllipticCurvePrivateKey
    car_id: CarId

    @property
    def name(self) -> str:
        """Return the 16 hex digits under which the gateway knows the car."""
        return f"{self.car_id:016x}"


def make_key() -> bytes:
    """Return a new ES256 private key as PEM (PKCS 8); whoever holds it is the car."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def open_identity(pem: bytes) -> Identity:
    """Return the identity of a private key's PEM; raise RejectedError when it is not an ES256 key."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        summary = "the car's key is not a private key in PEM without a password; make one and enrol the car again"
        raise RejectedError(summary) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        summary = "the car's key is not an ES256 key (curve P-256); make one and enrol the car again"
        raise RejectedError(summary)
    return Identity(key=key, car_id=_id_of(key.public_key()))


def public_pem(pem: bytes) -> str:
    """Return the public half, as it is enrolled, of a private or public key's PEM."""
    return (
        _public(pem).public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    )


def car_id_of(pem: bytes) -> CarId:
    """Return the car that a private or public key's PEM belongs to: 63 bits of its RFC 7638 thumbprint, never zero."""
    return _id_of(_public(pem))


def token_assertion(identity: Identity, *, audience: str, now: datetime) -> str:
    """Return a signed, one-time RFC 7523 assertion that buys a token at `audience`."""
    claims = {
        "iss": identity.name,
        "sub": identity.name,
        "aud": audience,
        "jti": secrets.token_urlsafe(16),
        "iat": int(now.timestamp()),
        "exp": int((now + ASSERTION_LIFE).timestamp()),
    }
    return jwt.encode(claims, identity.key, algorithm="ES256")


def sign(identity: Identity, message: bytes) -> str:
    """Return the ES256 signature (raw r||s, base64url without padding) that proves where a part came from."""
    r, s = decode_dss_signature(identity.key.sign(message, ec.ECDSA(hashes.SHA256())))
    return _base64url(r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big"))


def _public(pem: bytes) -> ec.EllipticCurvePublicKey:
    if b"PRIVATE KEY" in pem:
        return open_identity(pem).key.public_key()
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError) as error:
        summary = "not a public key in PEM"
        raise RejectedError(summary) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        summary = "not an ES256 key (curve P-256)"
        raise RejectedError(summary)
    return key


def _id_of(key: ec.EllipticCurvePublicKey) -> CarId:
    numbers = key.public_numbers()
    jwk = {
        "crv": "P-256",
        "kty": "EC",
        "x": _base64url(numbers.x.to_bytes(_COORDINATE_BYTES, "big")),
        "y": _base64url(numbers.y.to_bytes(_COORDINATE_BYTES, "big")),
    }
    canonical = json.dumps(jwk, separators=(",", ":"), sort_keys=True).encode()  # RFC 7638, section 3
    digest = hashlib.sha256(canonical).digest()
    return CarId(int.from_bytes(digest[:8], "big") >> (64 - ID_BITS) or 1)  # zero is the cloud lane


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
