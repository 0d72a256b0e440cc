"""Who is calling. Pure: assertions signed by a car's ES256 key buy short tokens under a keyed hash."""

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hmac import compare_digest
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from fleetbatch.gateway.dials import Dials
from fleetbatch.protocol import PartRequest, part_claim
from fleetbatch.units import CarId, CellName

ALGORITHMS: Final = ["ES256"]
"""The whole list; what a token says of itself is never believed."""
GRANT_TYPE: Final = "client_credentials"
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_BODY: Final = struct.Struct(">QI?")
_MAC_BYTES: Final = 16
_BODY_BYTES: Final = _BODY.size
_TOKEN_BYTES: Final = _BODY_BYTES + _MAC_BYTES
_HALF_SIGNATURE: Final = 32
_HASHED: Final = ec.ECDSA(Prehashed(hashes.SHA256()))
_KEYS_MAX: Final = 50_000
"""How many keys stay opened; the ledger is asked again and again for a key that never changes."""
_CLAIMS_MAX: Final = 1 << 15
"""Of tokens, some 300 bytes each; all are forgotten when there are more."""
_JTI: Final = re.compile("[!-~]{1,128}")
"""The ledger keeps it, together with those of others."""
_INSTANT_MAX: Final = 1 << 53
"""Seconds since 1970, before and after; larger whole numbers have no float, and no calendar has their dates."""
_CAR_NAME: Final = re.compile("[0-7][0-9a-f]{15}")

Caller = Literal["car", "owner"]
_NOBODY: Final[Mapping[int, float]] = MappingProxyType({})


class Bearer(NamedTuple):
    """Who a token stands for, and whether its owner lets vehicle signals be kept."""

    who: int
    telemetry: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """Makes and reads the tokens of one kind of caller in one cell; those of another cell or kind are forgeries."""

    key: bytes
    _keyed: "hashlib.blake2b" = field(init=False, repr=False, compare=False)
    """The hash that has taken in the key, and waits for a body."""
    _claims: dict[bytes, tuple[Bearer, int]] = field(init=False, repr=False, compare=False, default_factory=dict)
    """Whom tokens stand for whose hash was right, and when they expire: a car says the same one again and again."""

    def __post_init__(self) -> None:
        """Take in the key once."""
        object.__setattr__(self, "_keyed", hashlib.blake2b(key=self.key, digest_size=_MAC_BYTES))

    def token(self, who: int, *, expires_at: datetime, telemetry: bool = False) -> str:
        """Return a bearer token; `expires_at` counts whole seconds."""
        body = _BODY.pack(who, int(expires_at.timestamp()), telemetry)
        return (body + self._mac(body)).hex()

    def bearer(self, token: bytes, *, now: datetime, void_until: Mapping[int, float] = _NOBODY) -> Bearer | None:
        """Return who the token stands for, or None when it is forged, expired, or void.

        A token of somebody in `void_until` (seconds since 1970) is void when it expires by then.
        """
        claim = self._claims.get(token) or self._checked(token)
        if claim is None:
            return None
        bearer, expires = claim
        lives = now.timestamp() < expires and void_until.get(bearer.who, 0.0) < expires
        return bearer if lives else None

    def _checked(self, token: bytes) -> tuple[Bearer, int] | None:
        """Return what a token says when its hash is right, and remember it: what is forged is checked each time."""
        try:
            raw = binascii.unhexlify(token)
        except binascii.Error:
            return None
        body = raw[:_BODY_BYTES]
        if len(raw) != _TOKEN_BYTES or not compare_digest(raw[_BODY_BYTES:], self._mac(body)):
            return None
        who, expires, telemetry = _BODY.unpack(body)
        if len(self._claims) >= _CLAIMS_MAX:
            self._claims.clear()
        claim = self._claims[token] = Bearer(who, telemetry), expires
        return claim

    def _mac(self, body: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(body)
        return keyed.digest()


def token_key(deployment_key: bytes, cell: CellName, caller: Caller) -> TokenKey:
    """Derive a key that makes tokens and nothing else."""
    text = f"{caller} {cell}".encode()
    return TokenKey(key=hashlib.blake2b(text, key=deployment_key, person=b"fleetbatch-tok-1", digest_size=32).digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """A checked private_key_jwt: usable once, until `until`."""

    car_id: CarId
    jti: str
    until: datetime


def claimed_car(assertion: str) -> CarId | None:
    """Return the car that an assertion says it comes from, before anything about it is believed."""
    try:
        claims = jwt.decode(assertion, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return None
    name = claims.get("iss")
    if not isinstance(name, str) or name != claims.get("sub") or not _CAR_NAME.fullmatch(name):
        return None
    return CarId(int(name, 16))


def checked_assertion(
    assertion: str, key: ec.EllipticCurvePublicKey, *, audience: str, now: datetime, dials: Dials
) -> Assertion | str:
    """Return the assertion, or what is wrong with it (RFC 7523, section 3)."""
    try:
        claims = jwt.decode(
            assertion,
            key,
            algorithms=ALGORITHMS,
            audience=audience,
            # Times are checked below, against `now` and with bounds that the library does not know.
            options={
                "require": ["iss", "sub", "aud", "exp", "jti"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except (jwt.InvalidTokenError, jwt.InvalidKeyError) as error:
        return f"the assertion is refused: {error}"
    wrong = _wrong_times(claims, now=now, dials=dials)
    if wrong:
        return wrong
    if not _JTI.fullmatch(claims["jti"]):
        return "`jti` must have 1 to 128 printable ASCII characters, and no space"
    until = datetime.fromtimestamp(float(claims["exp"]), tz=UTC) + dials.clock_skew
    return Assertion(car_id=CarId(int(claims["iss"], 16)), jti=claims["jti"], until=until)


def _wrong_times(claims: Mapping[str, Any], *, now: datetime, dials: Dials) -> str:
    skew, at = dials.clock_skew.total_seconds(), now.timestamp()
    times = {name: claims[name] for name in ("exp", "iat", "nbf") if name in claims}
    if not all(map(_is_instant, times.values())):
        return "`exp`, `iat` and `nbf` must be numbers of seconds"
    if times["exp"] <= at - skew:
        return "the assertion has expired; is the car's clock right?"
    if times["exp"] > at + dials.assertion_for.total_seconds() + skew:
        return f"the assertion lives too long; at most {dials.assertion_for.total_seconds():.0f} s"
    if max(times.get("iat", at), times.get("nbf", at)) > at + skew:
        return "the assertion is from the future; is the car's clock right?"
    return ""


def _is_instant(seconds: object) -> bool:
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    return number and -_INSTANT_MAX <= seconds <= _INSTANT_MAX  # type: ignore[operator] # a number, or not compared


@lru_cache(maxsize=_KEYS_MAX)
def es256_key(pem: str) -> ec.EllipticCurvePublicKey | None:
    """Return an enrolled key, or None when it is no ES256 key."""
    try:
        key = load_pem_public_key(pem.encode())
    except ValueError:
        return None
    return key if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1) else None


def signed_by(key: ec.EllipticCurvePublicKey, request: PartRequest) -> bool:
    """Tell whether this car's key signed the part's claim (raw r||s, base64url)."""
    try:
        raw = base64.urlsafe_b64decode(request.signature + "==")
        r, s = (int.from_bytes(half, "big") for half in (raw[:_HALF_SIGNATURE], raw[_HALF_SIGNATURE:]))
        key.verify(encode_dss_signature(r, s), hashlib.sha256(part_claim(request)).digest(), _HASHED)
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return len(raw) == 2 * _HALF_SIGNATURE
