"""Whose request it is: the client's address, as far as it can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def parse(text: str) -> Address | None:
    """An address without zone or port; IPv4 mapped into IPv6 counts as IPv4. None: not one."""
    try:
        address = ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def within(address: Address, networks: Sequence[Network]) -> bool:
    """Whether `address` is in one of `networks`."""
    return any(address.version == network.version and address in network for network in networks)


def client_address(
    peer: str, forwarded_for: str | None, trusted: Sequence[Network]
) -> Address | None:
    """The peer, or the right-most untrusted address of `X-Forwarded-For` behind a trusted peer.

    What stands left of an address that cannot be read is not believed. None where the peer has no
    address (a Unix socket).
    """
    address = parse(peer)
    if address is None or not forwarded_for or not within(address, trusted):
        return address
    for text in reversed(forwarded_for.split(",")):
        told = parse(text)
        if told is None:
            return address
        address = told
        if not within(address, trusted):
            return address
    return address
