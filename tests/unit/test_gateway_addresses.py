"""Where calls come from: counted apart, in bounded memory."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from ledger_nights import EVENING

from fleetbatch.gateway.addresses import NOWHERE, Address, address_of
from fleetbatch.gateway.dials import Dials
from fleetbatch.gateway.pacing import Failures


def at(host: str) -> Address:
    return address_of({"client": (host, 1)})


def test_an_address_is_a_host_or_a_subscribers_whole_network() -> None:
    assert at("192.0.2.1") != at("192.0.2.2")
    assert at("2001:db8:0:1::1") == at("2001:db8:0:1:ffff::2") != at("2001:db8:0:2::1")
    assert at("::ffff:192.0.2.1") == at("192.0.2.1")


@given(host=st.text())
def test_what_is_no_address_is_nowhere_or_itself(host: str) -> None:
    assert at(host) in {NOWHERE, host} or ":" in host
    assert address_of({"client": None}) == address_of({}) == NOWHERE


def test_addresses_beyond_those_that_are_kept_share_one_count() -> None:
    dials = Dials(failures_per_window=2, failing_addresses_max=10)
    failures = Failures(dials, now=EVENING)

    def left_s(address: str) -> float:
        return failures.left_s(Address(address), now=EVENING, chance=0.5)

    for n in range(10):
        failures.count(Address(f"192.0.2.{n}"))
    assert left_s("198.51.100.1") == 0
    for n in range(1000):
        failures.count(Address(f"198.51.{n // 256}.{n % 256}"))
    assert left_s("203.0.113.1") == 10, "whoever is not counted apart is counted with the rest"
    assert left_s("192.0.2.1") == 0
    assert failures.left_s(Address("203.0.113.1"), now=EVENING + timedelta(seconds=10), chance=0.5) == 0
