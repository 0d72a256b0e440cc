"""What stands beside our gateway: uvicorn's bare answer, and FastAPI with pydantic, the usual way to write the poll."""

from collections.abc import Awaitable, Callable
from typing import Any

ANSWER = b'{"lease":null,"retry_after_s":29.123456789012345}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]


async def bare(
    scope: dict[str, Any],  # noqa: ARG001 # ASGI's signature
    receive: Callable[[], Awaitable[Any]],  # noqa: ARG001 # the same
    send: Callable[..., Awaitable[None]],
) -> None:
    """Answer every request with the same bytes."""
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


def __getattr__(name: str) -> Any:  # noqa: ANN401 # FastAPI is in the peer's environment only
    """Make FastAPI's application when it is asked for."""
    if name != "fastapi":
        raise AttributeError(name)
    return _fastapi()


def _caller() -> Any:  # noqa: ANN401 # no types in this environment
    """Return what finds the car of a bearer token, as FastAPI's documentation would write it."""
    from fastapi import Depends, HTTPException  # the peer's own environment
    from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer  # the same

    async def car(given: HTTPAuthorizationCredentials = Depends(HTTPBearer())) -> int:  # noqa: B008 # its plain way
        try:
            return int(given.credentials, 16)
        except ValueError as error:
            raise HTTPException(401) from error

    return Depends(car)


def _fastapi() -> Any:  # noqa: ANN401 # no types in this environment
    from fastapi import FastAPI  # the peer's own environment
    from pydantic import BaseModel  # the peer's own environment

    class Hardware(BaseModel):
        hardware_class: str
        provider: str
        threads: int
        memory_bytes: int
        runner_version: str
        power_w: float

    class Poll(BaseModel):
        protocol: int = 1
        signals: dict[str, float | bool | str | None]
        hardware: Hardware
        willing: bool
        unwilling_reason: str = ""
        cached_models: list[str] = []
        link_down_bytes_per_s: float = 0.0
        reserve_soc: float = 0.2
        departure_at: str | None = None

    class Answer(BaseModel):
        lease: None
        retry_after_s: float

    app, offers = FastAPI(), dict.fromkeys(range(1_000), 1)

    @app.post("/v1/poll")
    async def poll(poll: Poll, caller: int = _caller()) -> Answer:  # its plain way
        offers.get(-caller if poll.willing else 0)
        return Answer(lease=None, retry_after_s=29.123456789012345)

    return app
