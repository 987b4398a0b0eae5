"""Routers that are services of one another."""

from __future__ import annotations

import signal

import pytest

from support.daemon import Daemon, service
from support.http import call, chat
from support.upstream import ScriptedUpstream

PATH = "/v1/chat/completions"
INSTANCE = "x-router-instance"


@pytest.fixture
def engine():
    with ScriptedUpstream() as upstream:
        yield upstream


def test_a_request_does_not_go_round(tmp_path, engine):
    other_model = service("engine", engine.url, "other")
    with (
        Daemon(tmp_path / "a", {"services": [other_model]}) as a,
        Daemon(tmp_path / "b", {"services": [other_model, service("ring", a.url, "tiny")]}) as b,
    ):
        a.write({"services": [other_model, service("ring", b.url, "tiny")]})
        a.signal(signal.SIGHUP)
        a.until(lambda: a.healthy_count() == 2, "the ring is closed")
        refused = call(a.port, "POST", PATH, body=chat())
        assert refused.status == 502
        assert refused.json["error"]["code"] == "bad_gateway"
        assert "came back to this router" in refused.json["error"]["message"]
        assert a.in_flight() == b.in_flight() == 0


def test_the_marks_of_other_routers_go_on_with_a_request(tmp_path, engine):
    with Daemon(tmp_path, {"services": [service("engine", engine.url, "tiny")]}) as router:
        headers = (("x-router-via", "other"), ("content-type", "application/json"))
        assert call(router.port, "POST", PATH, body=chat(), headers=headers).status == 200
        own = call(router.port, "GET", "/health").header(INSTANCE)
    (request,) = engine.requests
    sent = [value for name, value in request.headers if name.lower() == "x-router-via"]
    assert sorted(sent) == sorted(["other", own])
