"""Every endpoint in one table: the router and the OpenAPI document read the same rows."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from fleetbatch.gateway import owners, parts, polls, tokens
from fleetbatch.protocol import (
    BeatReply,
    BeatRequest,
    ConfirmReply,
    ConsentReply,
    ConsentRequest,
    PartReply,
    PartRequest,
    PollReply,
    PollRequest,
    ReleaseReply,
    ReleaseRequest,
    StatementReply,
    TokenReply,
)

POLL_PATH: Final = "/v1/poll"
"""The one call of a car without a lease, apart from its token."""
Caller = Literal["car", "owner", "anyone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path.

    `does` takes the gate; then who calls, or from where when anyone may; then the decoded message, or the raw body when
    `asks` is None, or the query (name to value) for a GET. What it returns is run by `drive`.
    """

    method: Literal["GET", "POST"]
    path: str
    caller: Caller
    asks: type[msgspec.Struct] | None
    answers: type[msgspec.Struct]
    does: Callable[..., Coroutine[Any, Any, msgspec.Struct]]
    sheds: bool = False
    """Refused first when the gateway is behind; a car that holds a lease is heard, and an owner's decision."""

    @property
    def summary(self) -> str:
        """Return what it does, in a sentence."""
        return (self.does.__doc__ or "").partition("\n")[0]


def _post(path: str, caller: Caller, asks: type[msgspec.Struct] | None, *answer: Any, sheds: bool = False) -> Endpoint:  # noqa: ANN401 # the pair (answers, does)
    answers, does = answer
    return Endpoint(method="POST", path=path, caller=caller, asks=asks, answers=answers, does=does, sheds=sheds)


ENDPOINTS: Final = (
    _post(tokens.TOKEN_PATH, "anyone", None, TokenReply, tokens.token, sheds=True),
    _post(POLL_PATH, "car", PollRequest, PollReply, polls.poll, sheds=True),
    _post("/v1/beat", "car", BeatRequest, BeatReply, polls.beat),
    _post("/v1/part", "car", PartRequest, PartReply, parts.part),
    _post("/v1/part/confirm", "car", PartRequest, ConfirmReply, parts.confirm),
    _post("/v1/release", "car", ReleaseRequest, ReleaseReply, parts.release),
    _post("/v1/consent", "owner", ConsentRequest, ConsentReply, owners.consent),
    Endpoint(
        method="GET",
        path="/v1/statement",
        caller="owner",
        asks=None,
        answers=StatementReply,
        does=owners.statement,
        sheds=True,
    ),
)
