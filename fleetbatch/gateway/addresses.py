"""Where a call comes from, as far as it is counted. Pure."""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, NewType

Address = NewType("Address", str)
"""An IPv4 address, or the network of an IPv6 address: one subscriber has all of it."""

NOWHERE: Final = Address("")
_SUBSCRIBER_BITS: Final = 64
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
"""IPv4 addresses, as a socket of IPv6 that serves both sees them (RFC 4291, section 2.5.5.2)."""


def address_of(scope: Mapping[str, Any]) -> Address:
    """Return where an ASGI scope's caller is, NOWHERE when nobody knows; trusted proxies have said it of theirs."""
    host = (scope.get("client") or ("", 0))[0]
    try:
        known = ip_address(host)
    except ValueError:  # a socket file, or what a proxy took from its caller
        return NOWHERE
    if isinstance(known, IPv6Address):
        mapped = known.ipv4_mapped
        return Address(str(mapped or IPv6Network((int(known), _SUBSCRIBER_BITS), strict=False)))
    return Address(host)


def as_seen(proxy: str) -> list[str]:
    """Return a proxy's address or network in each form in which a socket may name it."""
    network = ip_network(proxy)
    if not isinstance(network, IPv4Network):
        return [proxy]
    return [proxy, f"{_MAPPED[int(network.network_address)]}/{_MAPPED.prefixlen + network.prefixlen}"]
