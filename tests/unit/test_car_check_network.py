"""Whatever answers in a gateway's place is told from one."""

import gzip
from http import HTTPStatus

import httpx
import pytest
from builders import HARDWARE
from impostors import impostor

from fleetbatch.car.identity import make_key, open_identity
from fleetbatch.runner.check.findings import Finding
from fleetbatch.runner.check.network import check_network
from fleetbatch.runner.client import open_http
from fleetbatch.runner.transport import ANSWER_BYTES, BoundedTransport


def test_a_website_that_answers_everything_is_not_taken_for_a_busy_gateway() -> None:
    with impostor(HTTPStatus.OK, b"hello") as website, open_http() as http:
        found = list(check_network(website, open_identity(make_key()), HARDWARE, http))
    [poll] = [one for one in found if one.check == "poll"]
    assert poll.outcome == "failed"
    assert poll.advice.startswith("something else than a gateway answers there")


@pytest.mark.parametrize(
    ("body", "packed", "why"),
    [
        (bytes(ANSWER_BYTES + 1), "", "the answer is larger than 1048576 bytes"),
        (gzip.compress(bytes(10 * ANSWER_BYTES)), "gzip", "the answer is packed (gzip), which nobody asked for"),
        (b"not packed at all", "gzip", "the answer is packed (gzip), which nobody asked for"),
    ],
    ids=["large", "packed", "broken"],
)
def test_an_answer_beyond_what_a_gateway_says_is_no_gateways_and_takes_no_memory(
    body: bytes, packed: str, why: str
) -> None:
    with impostor(HTTPStatus.OK, body, packed=packed) as portal, open_http() as http:
        assert why in checked(portal, http).found


def test_an_answer_that_does_not_come_to_its_end_in_time_is_given_up() -> None:
    hasty = BoundedTransport(limits=httpx.Limits(), answer_s=-1.0)
    with impostor(HTTPStatus.OK, b"hello") as slow, httpx.Client(transport=hasty) as http:
        found = checked(slow, http)
    assert "ReadTimeout the answer is not whole after -1 s" in found.found
    assert found.advice.startswith("nothing answers in time")


def checked(url: str, http: httpx.Client) -> Finding:
    """Return the only finding: the gateway is not reached."""
    [found] = check_network(url, open_identity(make_key()), HARDWARE, http)
    assert (found.check, found.outcome) == ("gateway reached", "failed")
    return found
