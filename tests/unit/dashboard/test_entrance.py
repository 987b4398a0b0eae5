"""Who may look at the dashboard: the admin key once and a cookie from then on, or nobody's key."""

from __future__ import annotations

import hashlib
import json
from ipaddress import ip_network

import pytest

from router.config.settings import ServerSettings
from router.dashboard.entrance import Access, Entrance, is_same_origin, session_token
from router.errors import BadRequest, InvalidApiKey, InvalidJson, MissingApiKey, RateLimitExceeded
from unit.api.asking import asking

SECRET = "the admin's secret"
SHA = hashlib.sha256(SECRET.encode()).hexdigest()
JSON = (b"content-type", b"application/json")
HOST = (b"host", b"router.test:8000")


class House:
    """An entrance, and a browser that keeps its cookie."""

    def __init__(self, **settings) -> None:
        self.now = 0.0
        self.settings = ServerSettings(**settings)
        self.entrance = Entrance(lambda: self.settings, lambda: self.now)
        self.cookie: str | None = None

    def asking(self, *headers, peer="203.0.113.9", body=b""):
        sent = [HOST, *headers]
        if self.cookie:
            sent.append((b"cookie", self.cookie.encode()))
        request = asking("/dashboard", *sent, peer=peer, settings=self.settings)
        request.add(body)
        return request

    def log_in(self, key=SECRET, *headers, **more):
        body = json.dumps({"key": key}).encode()
        answer = self.entrance.log_in(self.asking(JSON, *headers, body=body, **more))
        self.cookie = dict(answer.headers)["set-cookie"].partition(";")[0]
        return answer

    def access(self, **more) -> Access:
        return self.entrance.access(self.asking(**more))


@pytest.fixture
def house() -> House:
    return House(admin_key_sha256=SHA)


def cookie_of(answer) -> str:
    return dict(answer.headers)["set-cookie"]


# -- log-in ----------------------------------------------------------------------------------------


def test_the_admin_key_opens(house):
    assert house.access() is Access.NONE
    house.log_in()
    assert house.access() is Access.ADMIN


def test_the_cookie_is_kept_from_scripts_and_from_other_sites(house):
    parts = cookie_of(house.log_in()).split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/dashboard"} < set(parts)
    assert "Secure" not in parts


def test_the_cookie_is_for_https_alone_where_a_trusted_proxy_says_that_it_came_so():
    house = House(admin_key_sha256=SHA, trusted_proxies=[ip_network("172.16.0.0/12")])
    https = (b"x-forwarded-proto", b"https")
    assert cookie_of(house.log_in(SECRET, https, peer="172.18.0.2")).endswith("; Secure")
    assert "Secure" not in cookie_of(house.log_in(SECRET, https, peer="203.0.113.9"))


def test_nothing_of_a_log_in_is_kept_by_caches(house):
    answer = house.log_in()
    assert dict(answer.headers)["cache-control"] == "no-store"
    assert SECRET.encode() not in answer.body


@pytest.mark.parametrize("key", ["", "wrong", SECRET + "x", "x" * 4000, SHA])
def test_no_other_key_opens(house, key):
    with pytest.raises(InvalidApiKey):
        house.log_in(key)
    assert house.access() is Access.NONE


def test_blanks_around_a_pasted_key_do_not_matter(house):
    house.log_in(f"  {SECRET}\n")
    assert house.access() is Access.ADMIN


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"key": 1}', b'{"key": "a", "x": 1}', b"\xff", b"key=a"]
)
def test_another_body_is_refused(house, body):
    with pytest.raises(InvalidJson):
        house.entrance.log_in(house.asking(JSON, body=body))


@pytest.mark.parametrize("kind", [b"text/plain", b"application/x-www-form-urlencoded", b""])
def test_what_a_form_of_another_site_can_send_is_refused(house, kind):
    body = json.dumps({"key": SECRET}).encode()
    with pytest.raises(BadRequest):
        house.entrance.log_in(house.asking((b"content-type", kind), body=body))


def test_the_page_of_another_site_cannot_log_in(house):
    with pytest.raises(BadRequest):
        house.log_in(SECRET, (b"origin", b"https://evil.test"))


def test_guessing_is_slowed_down_by_address_even_for_the_right_key(house):
    for _ in range(10):
        with pytest.raises(InvalidApiKey):
            house.log_in("wrong")
    with pytest.raises(RateLimitExceeded) as caught:
        house.log_in()
    assert caught.value.retry_after_s == pytest.approx(5, abs=0.1)
    house.now += 6
    house.log_in()
    assert house.access() is Access.ADMIN


# -- the end of a session --------------------------------------------------------------------------


def test_a_log_out_ends_the_session_and_takes_the_cookie_back(house):
    house.log_in()
    answer = house.entrance.log_out(house.asking())
    assert "Max-Age=0" in cookie_of(answer)
    assert house.access() is Access.NONE


def test_the_page_of_another_site_cannot_log_out(house):
    house.log_in()
    with pytest.raises(BadRequest):
        house.entrance.log_out(house.asking((b"origin", b"null")))
    assert house.access() is Access.ADMIN


def test_a_reload_with_another_admin_key_ends_the_session(house):
    house.log_in()
    house.settings = ServerSettings(admin_key_sha256="0" * 64)
    assert house.access() is Access.NONE


def test_a_session_lasts_half_a_day(house):
    house.log_in()
    house.now += 12 * 3600 - 1
    assert house.access() is Access.ADMIN
    house.now += 1
    assert house.access() is Access.NONE


# -- without an admin key --------------------------------------------------------------------------


def test_without_an_admin_key_it_is_shown_to_those_who_see_the_status_pages():
    house = House()
    assert house.access(peer="127.0.0.1") is Access.READER
    assert house.access(peer="203.0.113.9") is Access.NONE


def test_without_an_admin_key_others_are_told_what_to_configure():
    house = House()
    with pytest.raises(MissingApiKey, match=r"server\.admin_key_sha256"):
        house.entrance.check(house.asking())
    with pytest.raises(InvalidApiKey, match=r"server\.admin_key_sha256"):
        house.log_in("")


def test_with_an_admin_key_loopback_too_must_log_in(house):
    assert house.access(peer="127.0.0.1") is Access.NONE


def test_the_page_is_told_what_it_may_show(house):
    def told() -> dict:
        return json.loads(house.entrance.session(house.asking()).body)

    assert (told()["access"], told()["can_log_in"]) == ("none", True)
    house.log_in()
    assert told() == {"access": "admin", "can_log_in": True, "message": ""}


# -- small readings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookies", "token"),
    [
        (None, None), ("", None), ("router_session=", None), ("x=router_session", None),
        ("router_session=a", "a"), ("b=1; router_session=a; c=2", "a"), ("xrouter_session=a", None),
    ],
)  # fmt: skip
def test_the_session_is_found_among_the_cookies(cookies, token):
    assert session_token(cookies) == token


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://a:8000", "a:8000", True), ("https://a", "a", True), ("https://A", "a", True),
        ("http://a:8000", "a", False), ("http://b", "a", False), ("null", "a", False),
        ("http://a.evil", "a", False), ("file://a", "a", False), ("http://[", "a", False),
        (None, "a", False), ("http://a", None, False), ("", "", False),
    ],
)  # fmt: skip
def test_an_origin_is_the_same_where_it_is_the_host(origin, host, same):
    assert is_same_origin(origin, host) is same
