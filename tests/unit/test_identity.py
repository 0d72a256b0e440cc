import base64
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from fleetbatch.car.identity import car_id_of, make_key, open_identity, public_pem, sign, token_assertion
from fleetbatch.errors import RejectedError

NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)


def test_a_car_is_its_key_whichever_half_is_looked_at() -> None:
    pem = make_key()
    car = car_id_of(pem)
    assert 0 < car < 1 << 63
    assert car_id_of(public_pem(pem).encode()) == car == open_identity(pem).car_id
    assert int(open_identity(pem).name, 16) == car
    assert "PRIVATE" not in public_pem(pem)
    assert car_id_of(make_key()) != car


def test_the_id_follows_rfc_7638() -> None:
    # the key of RFC 7515, appendix A.3; its thumbprint computed by hand with the RFC's recipe
    d = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"
    number = int.from_bytes(base64.urlsafe_b64decode(d + "="), "big")
    key = ec.derive_private_key(number, ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    thumbprint = base64.urlsafe_b64decode("oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U=")
    assert car_id_of(pem) == int.from_bytes(thumbprint[:8], "big") >> 1


def test_an_assertion_names_the_car_once_for_one_gateway_and_briefly() -> None:
    pem = make_key()
    identity = open_identity(pem)
    audience = "https://gateway.example/v1/token"
    first, second = (token_assertion(identity, audience=audience, now=NOW) for _ in range(2))
    read = [
        jwt.decode(
            text,
            public_pem(pem),
            algorithms=["ES256"],
            audience=audience,
            options={"verify_exp": False, "verify_iat": False},
        )
        for text in (first, second)
    ]
    assert read[0]["iss"] == read[0]["sub"] == identity.name
    assert read[0]["jti"] != read[1]["jti"]
    assert datetime.fromtimestamp(read[0]["exp"], UTC) - NOW <= timedelta(minutes=5)


def test_a_signature_is_raw_and_anyone_can_check_it() -> None:
    identity = open_identity(make_key())
    raw = base64.urlsafe_b64decode(sign(identity, b"claim") + "==")
    assert len(raw) == 64
    halves = (int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    identity.key.public_key().verify(encode_dss_signature(*halves), b"claim", ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"nonsense",
        ec.generate_private_key(ec.SECP384R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        ),
    ],
    ids=["empty", "nonsense", "P-384", "Ed25519", "with a password"],
)
def test_anything_but_an_es256_key_is_refused_with_what_to_do(pem: bytes) -> None:
    with pytest.raises(RejectedError, match="enrol the car again"):
        open_identity(pem)
    with pytest.raises(RejectedError):
        car_id_of(pem)
