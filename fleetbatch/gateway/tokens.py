"""POST /v1/token: an assertion signed by the car's key buys a short token (RFC 7523).

A car that has proven who it is has an allowance of its own. What proves nothing is counted by address (`Failures`),
never by the car that it names.
"""

from datetime import datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl

from fleetbatch.errors import TransientError
from fleetbatch.gateway.addresses import Address
from fleetbatch.gateway.gate import Gate, KnownCar
from fleetbatch.gateway.identity import ASSERTION_TYPE, GRANT_TYPE, Assertion, checked_assertion, claimed_car
from fleetbatch.gateway.problems import Kind, ProblemError
from fleetbatch.protocol import TokenReply

TOKEN_PATH: Final = "/v1/token"  # noqa: S105 # a path
_FIELDS_MAX: Final = 16


async def token(gate: Gate, address: Address, form: bytes) -> TokenReply:
    """Check an assertion and return a bearer token for the car."""
    now = gate.clock()
    over_s = gate.failures.left_s(address, now=now, chance=gate.chance())
    if over_s:
        detail = "too many assertions from this address prove nothing; those of honest cars beside it are heard later"
        raise ProblemError(Kind.TOO_MANY_REQUESTS, detail, retry_after_s=over_s)
    try:
        return await _sold(gate, form, now)
    except Exception as error:  # whatever an assertion sets off; only a ledger that is away is not its doing
        own = isinstance(error, ProblemError) and error.kind is Kind.TOO_MANY_REQUESTS
        if not own and not isinstance(error, TransientError):
            gate.failures.count(address)
        raise


async def _sold(gate: Gate, form: bytes, now: datetime) -> TokenReply:
    """Sell a token that lives from `now`, before its car was looked at: what is withdrawn after the look voids it."""
    known, assertion = await _proven(gate, form)
    over_s = gate.token_allowance.left_s(known.car_id, now=now)
    if over_s:
        raise ProblemError(Kind.TOO_MANY_REQUESTS, "this car buys too many tokens", retry_after_s=over_s)
    if not await gate.first_uses.ask(assertion):
        gate.token_allowance.give_back(known.car_id)  # whoever replays it may be somebody else
        raise ProblemError(Kind.INVALID_CLIENT, "the assertion was used before; sign a new one with another `jti`")
    life = gate.dials.token_for
    expires_at = now + life
    if known.tokens_void_at is not None:  # this one knows of the withdrawal, and outlives those before it
        expires_at = max(expires_at, gate.tokens_end(known.tokens_void_at) + timedelta(seconds=1))
    return TokenReply(
        access_token=gate.car_tokens.token(known.car_id, expires_at=expires_at, telemetry=known.telemetry),
        token_type="Bearer",  # noqa: S106 # the type's name, not a secret
        expires_in=int(life.total_seconds()),
    )


async def _proven(gate: Gate, form: bytes) -> tuple[KnownCar, Assertion]:
    """Return the car whose key signed a form's assertion; raise a ProblemError when none did."""
    fields = _fields(form)
    wanted = {"grant_type": GRANT_TYPE, "client_assertion_type": ASSERTION_TYPE}
    for name, value in wanted.items():
        if fields.get(name) != value:
            raise ProblemError(Kind.INVALID_CLIENT, f"`{name}` must be {value!r}")
    assertion = fields.get("client_assertion", "")
    claimed = claimed_car(assertion)
    known = None if claimed is None else await gate.car(claimed, afresh=True)
    if known is None:
        raise ProblemError(
            Kind.INVALID_CLIENT, "the assertion names no car that is enrolled in this cell and not revoked"
        )
    audience = gate.cell.gateway_url.rstrip("/") + TOKEN_PATH
    checked = checked_assertion(assertion, known.key, audience=audience, now=gate.clock(), dials=gate.dials)
    if isinstance(checked, str):
        raise ProblemError(Kind.INVALID_CLIENT, checked)
    return known, checked


def _fields(form: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(form.decode("ascii"), strict_parsing=True, max_num_fields=_FIELDS_MAX))
    except (UnicodeDecodeError, ValueError) as error:
        detail = "the body is not a form (application/x-www-form-urlencoded)"
        raise ProblemError(Kind.INVALID_MESSAGE, detail) from error
