"""Who may see the status pages."""

from __future__ import annotations

import hashlib

import pytest

from router.api.access import StatusGuard
from router.config.settings import ServerSettings
from router.errors import AuthenticationError, InvalidApiKey, MissingApiKey
from unit.api.asking import asking

KEY = "admin-key"
SHA = hashlib.sha256(KEY.encode()).hexdigest()
PROXY = "172.16.0.9"


def server(**settings) -> ServerSettings:
    return ServerSettings(
        **{"admin_key_sha256": SHA, "trusted_proxies": ["172.16.0.0/12"]} | settings
    )


def guard(**settings) -> StatusGuard:
    return StatusGuard(lambda: server(**settings))


def asked(peer: str, *headers: tuple[bytes, bytes]):
    """A request from `peer`."""
    return asking("/metrics", *headers, peer=peer, settings=server())


def authorization(value: str) -> tuple[bytes, bytes]:
    return b"authorization", value.encode("utf-8", "surrogateescape")


def forwarded(*addresses: str) -> tuple[bytes, bytes]:
    return b"x-forwarded-for", ", ".join(addresses).encode()


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_loopback_passes(peer):
    guard().check(asked(peer))


@pytest.mark.parametrize("peer", ["203.0.113.7", "10.0.0.1", "2001:db8::1", ""])
def test_others_do_not_pass_without_the_key(peer):
    with pytest.raises(MissingApiKey):
        guard().check(asked(peer))


def test_an_allowed_network_passes():
    guard(status_allow=["10.0.0.0/8"]).check(asked("10.0.0.1"))


@pytest.mark.parametrize("headers", [(), (authorization(f"Bearer {KEY}"),)])
def test_who_is_not_allowed_is_told_where_there_is_no_admin_key(headers):
    """To ask for one that cannot exist would send people searching."""
    with pytest.raises(MissingApiKey, match=r"there is none: set server\.admin_key_sha256"):
        guard(admin_key_sha256=None).check(asked("203.0.113.7", *headers))


def test_loopback_does_not_pass_where_it_is_not_allowed():
    with pytest.raises(MissingApiKey):
        guard(status_allow=["10.0.0.0/8"]).check(asked("127.0.0.1"))


@pytest.mark.parametrize("value", [f"Bearer {KEY}", f"bearer {KEY}", f"Bearer  {KEY} "])
def test_the_admin_key_passes_from_anywhere(value):
    guard().check(asked("203.0.113.7", authorization(value)))


@pytest.mark.parametrize(
    "value", ["Bearer wrong", "Bearer ", f"Basic {KEY}", KEY, f"Bearer {SHA}", f"Bearer {KEY} x"]
)
def test_another_key_does_not_pass(value):
    with pytest.raises(InvalidApiKey):
        guard().check(asked("203.0.113.7", authorization(value)))


def test_without_an_admin_key_nobody_is_admin():
    refusing = guard(admin_key_sha256=None)
    assert not refusing.is_admin(asked("127.0.0.1", authorization("Bearer ")))
    with pytest.raises(MissingApiKey):
        refusing.check(asked("203.0.113.7", authorization(f"Bearer {KEY}")))


def test_a_key_of_any_bytes_is_only_a_wrong_key():
    with pytest.raises(AuthenticationError):
        guard().check(asked("203.0.113.7", authorization("Bearer \udcff")))


def test_behind_a_trusted_proxy_the_clients_address_counts():
    guard(status_allow=["10.0.0.0/8"]).check(asked(PROXY, forwarded("10.0.0.1")))
    with pytest.raises(MissingApiKey):
        guard(status_allow=["10.0.0.0/8"]).check(asked(PROXY, forwarded("203.0.113.7")))


def test_a_spoofed_address_behind_a_trusted_proxy_buys_nothing():
    with pytest.raises(MissingApiKey):
        guard().check(asked(PROXY, forwarded("127.0.0.1", "203.0.113.7")))


def test_nobody_elses_header_is_believed():
    with pytest.raises(MissingApiKey):
        guard().check(asked("203.0.113.7", forwarded("127.0.0.1")))


def test_a_spoofed_line_before_the_proxys_own_buys_nothing():
    with pytest.raises(MissingApiKey):
        guard().check(asked(PROXY, forwarded("127.0.0.1"), forwarded("203.0.113.7")))


def test_a_reload_counts_at_once():
    settings = [ServerSettings(admin_key_sha256=SHA)]
    reloading = StatusGuard(lambda: settings[0])
    assert reloading.is_admin(asked("203.0.113.7", authorization(f"Bearer {KEY}")))
    settings[0] = ServerSettings()
    assert not reloading.is_admin(asked("203.0.113.7", authorization(f"Bearer {KEY}")))
