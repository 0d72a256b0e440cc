"""Does the gateway answer this car: reachable, trusted, on time, and with something to say?"""

import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import httpx

from fleetbatch.car.identity import Identity
from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.protocol import PROTOCOL, Hardware, PollRequest
from fleetbatch.runner.check.findings import Finding, bad, fine, odd, skipped
from fleetbatch.runner.client import SKEW_MAX, GatewayClient, clock_skew
from fleetbatch.runner.unreachable import ClockError

SLOW: Final = timedelta(seconds=1)
RETRY_LONGEST_S: Final = 3600.0
_NO_GATEWAY: Final = "something else than a gateway answers there: look at the URL, and for a proxy on the way"
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def _wall() -> datetime:
    return datetime.now(UTC)


def check_network(
    url: str, identity: Identity, hardware: Hardware, http: httpx.Client, *, clock: Callable[[], datetime] = _wall
) -> Iterator[Finding]:
    """Yield what is found of the gateway; after the first failure nothing behind it is asked."""
    try:
        before = clock()
        response = http.get(f"{url.rstrip('/')}/healthz")
        took = clock() - before
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
        yield _unreachable(url, error)
        return
    yield _reached(url, response, took)
    yield _transport(url)
    yield _clock(response, before + took / 2)
    if response.status_code == HTTPStatus.OK:
        yield from _enrolled(GatewayClient(url, identity, http, clock=clock), identity, hardware)


def _unreachable(url: str, error: Exception) -> Finding:
    text = f"{url}: {type(error).__name__} {error}"
    if "CERTIFICATE" in str(error).upper():
        advice = "the gateway's certificate is not trusted here: install its issuer's root, or renew the certificate"
    elif isinstance(error, httpx.TimeoutException):
        advice = "nothing answers in time: look at the car's link, its firewall and the gateway's address"
    else:
        advice = "look at the URL, at the name's resolution, and at the car's network and firewall"
    return bad("gateway reached", text, advice)


def _reached(url: str, response: httpx.Response, took: timedelta) -> Finding:
    found = f"{url} answered {response.status_code} in {took.total_seconds() * 1000:.0f} ms"
    if response.status_code != HTTPStatus.OK:
        return bad("gateway reached", found, _NO_GATEWAY)
    if took > SLOW:
        return odd("gateway reached", found, "the link is slow: parts will be, too")
    return fine("gateway reached", found)


def _transport(url: str) -> Finding:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return fine("transport", "TLS with a certificate that this car trusts")
    if parts.hostname in _LOOPBACK:
        return fine("transport", "plain HTTP inside this machine")
    return bad("transport", "plain HTTP", "shard keys travel in leases: give the gateway a certificate, use https")


def _clock(response: httpx.Response, here: datetime) -> Finding:
    if (skew := clock_skew(response, here)) is None:
        return skipped("clock", "the gateway does not say what time it is", "compare the car's clock yourself")
    found = f"{skew.total_seconds():.1f} s from the gateway's"
    if skew > SKEW_MAX:
        return bad("clock", found, f"set the car's clock (NTP or GNSS): at most {SKEW_MAX.seconds} s are borne")
    return fine("clock", found)


def _enrolled(client: GatewayClient, identity: Identity, hardware: Hardware) -> Iterator[Finding]:
    """Ask as a car that does not want work just now: what it is told is the same, and nothing is taken."""
    request = PollRequest(signals={}, hardware=hardware, willing=False, unwilling_reason="a check of the car")
    try:
        reply = client.poll(request)
    except RejectedError as error:
        yield _refused(str(error), identity)
        return
    except ClockError as error:
        yield skipped("identity", str(error), "first the clock")
        return
    except TransientError as error:
        patience = "the gateway asks for patience, or its ledger is away: try again in a minute"
        yield bad("poll", str(error), _NO_GATEWAY if "answered what is not" in str(error) else patience)
        return
    yield fine("identity", f"the gateway knows car {identity.name} and sold it a token")
    yield fine("protocol", f"version {PROTOCOL} is served")
    if not 0 < reply.retry_after_s <= RETRY_LONGEST_S:
        yield odd("poll", f"come back in {reply.retry_after_s} s", "the gateway's poll interval is unusual")
    else:
        yield fine("poll", f"answered; come back in {reply.retry_after_s:.0f} s")


def _refused(text: str, identity: Identity) -> Finding:
    if "does not know the key" in text:
        advice = f"enrol the car's public key as {identity.name}, or give the key that was enrolled (--key)"
        return bad("identity", text, advice)
    if "protocol" in text:
        return bad("protocol", text, "bring runner and gateway within one version of each other")
    return bad("poll", text, "the gateway does not take this runner's message: its log says why")
