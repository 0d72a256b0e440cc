"""Whatever answers in a gateway's place is told from one."""

from http import HTTPStatus

from builders import HARDWARE
from impostors import impostor

from fleetbatch.car.identity import make_key, open_identity
from fleetbatch.runner.check.network import check_network
from fleetbatch.runner.client import open_http


def test_a_website_that_answers_everything_is_not_taken_for_a_busy_gateway() -> None:
    with impostor(HTTPStatus.OK, b"hello") as website, open_http() as http:
        found = list(check_network(website, open_identity(make_key()), HARDWARE, http))
    [poll] = [one for one in found if one.check == "poll"]
    assert poll.outcome == "failed"
    assert poll.advice.startswith("something else than a gateway answers there")
