"""Where a call comes from, as far as it is counted. Pure."""

from collections.abc import Mapping
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any, Final, NewType

Address = NewType("Address", str)
"""An IPv4 address, or the network of an IPv6 address: one subscriber has all of it."""

NOWHERE: Final = Address("")
_SUBSCRIBER_BITS: Final = 64


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
