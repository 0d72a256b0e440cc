"""What is remembered of a head holds for every request that differs in its token only, and for no other."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetbatch.gateway.admission import ROUTES
from fleetbatch.gateway.heads import Heads

BEAT = ROUTES["/v1/beat"]
BODY = b'{"lease_id":"a"}'


def head(token: bytes, *, length: int = len(BODY), before: bytes = b"", name: bytes = b"Authorization") -> bytes:
    lines = (b"POST /v1/beat HTTP/1.1", b"host: here", b"%bcontent-length: %d" % (before, length))
    return b"\r\n".join((*lines, b"%b: Bearer %b" % (name, token), b"accept: */*", b"", b""))


def learnt(data: bytes, body: bytes = BODY, token: bytes = b"c0ffee") -> Heads:
    heads = Heads()
    heads.learn(data, (BEAT, b"Bearer " + token, body))
    return heads


@given(token=st.from_regex("[0-9A-Za-z]{1,80}", fullmatch=True), body=st.binary(min_size=16, max_size=16))
@example(token="Bearer", body=b"\r\n\r\nBearer \r\n\r\n" + b"a")
def test_another_token_and_body_are_read_as_the_parser_would(token: str, body: bytes) -> None:
    heads = learnt(head(b"c0ffee"))
    assert heads.read(head(token.encode()) + body) is None, "nothing was learnt of a head without its body"
    heads = learnt(head(b"c0ffee") + BODY)
    said = head(token.encode()) + body
    assert heads.read(said) == (BEAT, b"Bearer " + token.encode(), body)


GOOD = head(b"c0ffee") + BODY


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\r\n\r\n",
        GOOD[:-1],
        GOOD + b"P",
        GOOD + GOOD,
        head(b"c0ffee"),
        head(b"c0ffee", length=17) + BODY + b" ",
        head(b"c0ffee", before=b"connection: close\r\n") + BODY,
        head(b"c0ffee", before=b"authorization: Bearer c0ffee\r\n") + BODY,
        head(b"") + BODY,
        head(b"c0 ffee") + BODY,
        head(b"c0ffee\r\nconnection: close") + BODY,
        head(b"c0\nffee") + BODY,
        head(b"c0ffee").replace(b"POST", b"GET ") + BODY,
        head(b"c0ffee").replace(b"here", b"hero") + BODY,
        head(b"c0ffee").replace(b"\r\n\r\n", b"\r\n\n") + BODY,
        GOOD.replace(b"Bearer", b"bearer"),
    ],
)
def test_whatever_else_differs_is_left_to_the_parser(said: bytes) -> None:
    assert learnt(GOOD).read(said) is None


@given(place=st.integers(0, len(GOOD) - 1), instead=st.binary(min_size=1, max_size=4))
@example(place=GOOD.index(b"c0ffee"), instead=b"\r\n")
@example(place=GOOD.index(b"\r\n\r\n") - 1, instead=b"\r\n\r\n")
def test_bytes_as_long_as_a_request_before_are_read_as_by_who_never_saw_that(place: int, instead: bytes) -> None:
    said = (GOOD[:place] + instead + GOOD[place + len(instead) :])[: len(GOOD)]
    again = learnt(GOOD)
    assert again.read(GOOD) == again.read(GOOD) == (BEAT, b"Bearer c0ffee", BODY)
    assert again.read(said) == learnt(GOOD).read(said)


def test_callers_of_different_kinds_whose_requests_are_equally_long_are_told_apart() -> None:
    kinds = [(BEAT, b"here"), (ROUTES["/v1/poll"], b"hero")]
    heads, said = Heads(), {}
    for route, name in kinds:
        said[name] = GOOD.replace(b"here", name)
        heads.learn(said[name], (route, b"Bearer c0ffee", BODY))
    for route, name in kinds * 3:
        assert heads.read(said[name]) == (route, b"Bearer c0ffee", BODY)


def test_bytes_without_the_end_of_a_head_are_no_request_whatever_length_they_claim() -> None:
    for length in range(120, 160):
        whole = head(b"c0ffee", length=length)
        heads = learnt(whole + b"b" * length, b"b" * length)
        assert heads.read(whole + b"b" * length) is not None
        assert heads.read(whole[:-4] + b"x") is None


@pytest.mark.parametrize(
    ("data", "token"),
    [
        (head(b"c0ffee", name=b"x") + BODY, b"c0ffee"),
        (head(b"c0ffee", name=b"x-authorization") + BODY, b"c0ffee"),
        (GOOD, b"another"),
        (head(b"c0ffee", before=b"x: Bearer c0ffee\r\n") + BODY, b"c0ffee"),
        (head(b"c0ffee", before=b"x: " + b"y" * 4096 + b"\r\n") + BODY, b"c0ffee"),
        (b"GET / HTTP/1.1\r\n\r\n" + GOOD, b"c0ffee"),
    ],
)
def test_nothing_is_learnt_where_the_token_is_not_the_plain_one_of_the_only_request(data: bytes, token: bytes) -> None:
    assert len(learnt(data, token=token)) == 0


def test_heads_are_bounded() -> None:
    heads = Heads()
    for number in range(10_000):
        heads.learn(head(b"c0ffee", before=b"x: %d\r\n" % number) + BODY, (BEAT, b"Bearer c0ffee", BODY))
    assert 0 < len(heads) <= 4096
    for length in range(1, 10_000):
        assert heads.read(head(b"f" * length, before=b"x: 9999\r\n") + BODY) is not None
    assert len(heads._by_length) <= 4096  # what is only a shortcut shows nowhere else
