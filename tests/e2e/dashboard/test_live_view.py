"""The live view of the real daemon, seen by a WebSocket client: who gets it, and what it tells."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from support.daemon import Daemon, service
from support.http import Client, Response, call, chat

KEY = "the admin's key"
SHA = hashlib.sha256(KEY.encode()).hexdigest()
CLIENT_KEY = "sk-of-a-client"
ACME = {
    "id": "acme",
    "daily_requests": 1,
    "keys": [{"id": "acme-1", "sha256": hashlib.sha256(CLIENT_KEY.encode()).hexdigest()}],
}
QUICK = {"interval_s": 0.2, "timeout_s": 1, "unhealthy_after": 1}
SECONDS = 15


def log_in(router: Daemon, key: str = KEY) -> Response:
    return call(router.port, "POST", "/dashboard/login", {"key": key})


def cookie_of(answer: Response) -> str:
    return (answer.header("set-cookie") or "").partition(";")[0]


class View:
    """An open live view, and what it has told."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.messages: list[dict[str, Any]] = []

    def until(self, holds: Callable[[dict[str, Any]], object], seconds: float = SECONDS) -> dict:
        """The first message for which this holds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            message = json.loads(self.connection.recv(timeout=seconds))
            self.messages.append(message)
            if holds(message):
                return message
        raise AssertionError(f"never told: {self.messages[-3:]}")


@contextmanager
def looking(router: Daemon, cookie: str = "", origin: str | None = None) -> Iterator[View]:
    headers = {"Cookie": cookie} if cookie else {}
    url = f"ws://127.0.0.1:{router.port}/dashboard/live"
    with connect(url, origin=origin or router.url, additional_headers=headers) as connection:
        yield View(connection)


def state_in(message: dict[str, Any], name: str) -> str | None:
    return message.get("services", {}).get(name, {}).get("state")


@pytest.fixture
def router(start_daemon, start_upstream):
    """A daemon with an admin key, an organization, and one engine that the test may kill."""
    engine = start_upstream()
    daemon = start_daemon(
        {
            "server": {"admin_key_sha256": SHA},
            "health": QUICK,
            "organizations": [ACME],
            "services": [service("a", engine.url, "tiny", gpu="0")],
        }
    )
    return daemon, engine


# -- who gets it -----------------------------------------------------------------------------------


def test_it_takes_a_log_in(router):
    daemon, _ = router
    with pytest.raises(InvalidStatus) as caught, looking(daemon):
        pass
    assert caught.value.response.status_code == 401
    with looking(daemon, cookie_of(log_in(daemon))) as view:
        assert view.until(lambda m: m["type"] == "all")["services"]["a"]["gpu"] == "0"


def test_a_wrong_key_is_401_and_brings_no_cookie(router):
    daemon, _ = router
    answer = log_in(daemon, "wrong")
    assert (answer.status, answer.header("set-cookie")) == (401, None)


def test_the_page_of_another_site_gets_nothing_even_with_the_cookie(router):
    daemon, _ = router
    cookie = cookie_of(log_in(daemon))
    with pytest.raises(InvalidStatus) as caught, looking(daemon, cookie, "http://evil.test"):
        pass
    assert caught.value.response.status_code == 400


def test_a_log_out_ends_the_open_views_of_the_session(router):
    daemon, _ = router
    cookie = cookie_of(log_in(daemon))
    with looking(daemon, cookie) as view:
        call(daemon.port, "POST", "/dashboard/logout", {}, (("cookie", cookie),))
        with pytest.raises(ConnectionClosed) as caught:
            view.until(lambda _: False)
    assert caught.value.rcvd.code == 4401


def test_another_admin_key_by_reload_ends_the_sessions(router):
    daemon, engine = router
    cookie = cookie_of(log_in(daemon))
    with looking(daemon, cookie) as view:
        config = {
            "server": {"admin_key_sha256": "0" * 64},
            "health": QUICK,
            "organizations": [ACME],
            "services": [service("a", engine.url, "tiny")],
        }
        daemon.write(config)
        daemon.signal(signal.SIGHUP)
        with pytest.raises(ConnectionClosed) as caught:
            view.until(lambda _: False)
    assert caught.value.rcvd.code == 4401


def test_without_an_admin_key_loopback_looks_and_sees_no_organizations(
    start_daemon, start_upstream
):
    engine = start_upstream()
    rows = [service("a", engine.url, "tiny")]
    daemon = start_daemon({"organizations": [ACME], "services": rows})
    with looking(daemon) as view:
        message = view.until(lambda m: m["type"] == "all")
    assert "a" in message["services"]
    assert "organizations" not in message


# -- what it tells ---------------------------------------------------------------------------------


def test_a_service_that_dies_is_told_with_its_event(router):
    daemon, engine = router
    with looking(daemon, cookie_of(log_in(daemon))) as view:
        assert state_in(view.until(lambda m: m["type"] == "all"), "a") == "healthy"
        engine.die()
        view.until(lambda m: state_in(m, "a") == "unhealthy")
        told = [event for message in view.messages for event in message.get("events", [])]
        assert any(e["subject"] == "a" and e["text"].startswith("is down") for e in told)
        engine.revive()
        view.until(lambda m: state_in(m, "a") == "healthy")


def test_a_used_up_quota_is_told_once_with_the_organizations_windows(router):
    daemon, _ = router
    with looking(daemon, cookie_of(log_in(daemon))) as view:
        for _ in range(4):
            call(
                daemon.port, "POST", "/v1/chat/completions", chat(),
                (("authorization", f"Bearer {CLIENT_KEY}"),),
            )  # fmt: skip
        message = view.until(lambda m: any(e["kind"] == "quota" for e in m.get("events", [])))
        assert [e["subject"] for e in message["events"]].count("acme") == 1
        told = [m["organizations"] for m in view.messages if "organizations" in m]
        windows = told[-1]["acme"]
    assert {(w["kind"], w["used"]) for w in windows} >= {("requests", 1)}


def test_a_drain_is_told_and_does_not_wait_for_who_looks(router):
    daemon, _ = router
    with looking(daemon, cookie_of(log_in(daemon))) as view:
        view.until(lambda m: m["type"] == "all")
        daemon.signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as caught:
            view.until(lambda _: False)
    assert caught.value.rcvd.code == 1001
    assert daemon.wait() == 0


def test_a_view_that_is_never_read_is_cut_and_costs_bounded_memory(router):
    """The socket's buffers are small and never read; the daemon must give it up, not hoard."""
    daemon, _ = router
    cookie = cookie_of(log_in(daemon))
    with Client(daemon.port, receive_buffer=4096) as client:
        client.send(
            b"GET /dashboard/live HTTP/1.1\r\nhost: h\r\norigin: http://h\r\n"
            b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\ncookie: "
            + cookie.encode()
            + b"\r\n\r\n"
        )
        assert client.receive().startswith(b"HTTP/1.1 101 ")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            _ping_for_ever(client)
    assert daemon.get("/health/live").status == 200


def _ping_for_ever(client: Client) -> None:
    """Send pings, which the router answers, and read nothing; at most 1.6 GB."""
    ping = b"\x89\xfd\x00\x00\x00\x00" + b"p" * 125
    for _ in range(200_000):
        client.send(ping * 64)


# -- its files -------------------------------------------------------------------------------------


def test_the_page_is_open_and_holds_no_data(router):
    daemon, _ = router
    page = daemon.get("/dashboard")
    assert page.status == 200
    assert "script-src 'self'" in (page.header("content-security-policy") or "")
    assert b"127.0.0.1" not in page.body


def test_a_file_that_the_browser_has_is_304(router):
    daemon, _ = router
    tag = daemon.get("/dashboard/app.js").header("etag") or ""
    with Client(daemon.port) as client:
        again = client.request("GET", "/dashboard/app.js", headers=(("if-none-match", tag),))
        assert again.status == 304
        assert client.request("GET", "/health/live").read().status == 200


def test_a_get_of_the_live_view_is_no_page(router):
    daemon, _ = router
    assert daemon.get("/dashboard/live").status == 404
