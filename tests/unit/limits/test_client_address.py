"""Whose request it is: what a header may and may not make the router believe."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.limits.address import client_address, parse, within

PROXIES = [ip_network("172.16.0.0/12"), ip_network("fd00::/8")]
PROXY, OTHER_PROXY = "172.16.0.9", "172.20.0.1"


def told(peer: str, header: str | None, trusted=PROXIES) -> str | None:
    address = client_address(peer, header, trusted)
    return None if address is None else str(address)


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (None, PROXY),
        ("", PROXY),
        ("203.0.113.7", "203.0.113.7"),
        (" 203.0.113.7 ", "203.0.113.7"),
        (f"203.0.113.7, {OTHER_PROXY}", "203.0.113.7"),
        (f"203.0.113.7,{OTHER_PROXY},{PROXY}", "203.0.113.7"),
        ("127.0.0.1, 203.0.113.7", "203.0.113.7"),
        (f"127.0.0.1, 203.0.113.7, {OTHER_PROXY}", "203.0.113.7"),
        (OTHER_PROXY, OTHER_PROXY),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        (f"203.0.113.7, ::ffff:{OTHER_PROXY}", "203.0.113.7"),
        ("203.0.113.7, fd00::1", "203.0.113.7"),
    ],
)
def test_behind_a_trusted_proxy_it_is_the_right_most_untrusted_address(header, address):
    assert told(PROXY, header) == address


@pytest.mark.parametrize(
    "garbage",
    ["unknown", "_hidden", "203.0.113.7:4711", "[2001:db8::1]:80", "203.0.113", "0x7f.1", "-", "1"],
)
def test_what_stands_left_of_garbage_is_not_believed(garbage):
    assert told(PROXY, f"127.0.0.1, {garbage}") == PROXY
    assert told(PROXY, f"127.0.0.1, {garbage}, {OTHER_PROXY}") == OTHER_PROXY


@pytest.mark.parametrize("peer", ["203.0.113.7", "127.0.0.1", "2001:db8::1", "172.32.0.1"])
def test_nobody_elses_header_is_believed(peer):
    assert told(peer, "10.0.0.1, 172.16.0.1") == str(ip_address(peer))


def test_without_trusted_proxies_no_header_is_believed():
    assert told(PROXY, "127.0.0.1", trusted=[]) == PROXY


def test_a_mapped_peer_is_the_ipv4_proxy_it_is():
    assert told(f"::ffff:{PROXY}", "203.0.113.7") == "203.0.113.7"


@pytest.mark.parametrize("peer", ["", "unix:", "/run/router.sock"])
def test_a_peer_without_an_address_has_none(peer):
    assert told(peer, "127.0.0.1") is None


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_header_of_an_untrusted_peer_changes_anything(header):
    assert told("203.0.113.7", header) == "203.0.113.7"


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_header_of_a_trusted_peer_breaks_anything(header):
    assert client_address(PROXY, header, PROXIES) is not None


@settings(deadline=None)
@given(st.text("0123456789., abc:", max_size=40), st.ip_addresses())
def test_what_a_client_writes_itself_is_left_of_what_its_proxy_adds(spoofed, real):
    """A proxy appends the address it saw; whatever stood there before buys nothing."""
    seen = parse(str(real))
    if within(seen, PROXIES):
        return
    assert client_address(PROXY, f"{spoofed}, {real}", PROXIES) == seen


@settings(deadline=None)
@given(st.ip_addresses())
def test_every_address_is_read_as_itself(address):
    mapped = getattr(address, "ipv4_mapped", None)
    assert parse(str(address)) == (mapped or address)


@pytest.mark.parametrize(
    "text", ["", " ", "localhost", "1.2.3.4.5", "1.2.3.04", "::1::", "256.1.1.1"]
)
def test_what_is_no_address_is_none(text):
    assert parse(text) is None


def test_a_network_holds_only_addresses_of_its_version():
    assert not within(ip_address("::1"), [ip_network("0.0.0.0/0")])
    assert not within(ip_address("127.0.0.1"), [ip_network("::/0")])
    assert within(ip_address("127.9.9.9"), [ip_network("127.0.0.0/8")])
