"""SIGTERM: whoever was let in before it gets an answer."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial

import pytest

from support.daemon import Daemon, service
from support.http import Client, chat, encode
from support.upstream import Gate, ScriptedUpstream, Send, Stall
from support.wire import chat_answer, chunk, delta, stream_head

PATH = "/v1/chat/completions"
REQUEST = encode("POST", PATH, chat())
STREAM = encode("POST", PATH, chat(stream=True))
BEGUN = [Send(stream_head() + chunk(delta("x"))), Stall()]


@pytest.fixture
def start(start_daemon, start_upstream) -> Callable[..., tuple[Daemon, ScriptedUpstream]]:
    """Start a router that drains for so long, before an engine of one slot."""

    def start_pair(script, drain_timeout_s: int) -> tuple[Daemon, ScriptedUpstream]:
        upstream = start_upstream(script)
        config = {
            "server": {"drain_timeout_s": drain_timeout_s},
            "services": [service("engine", upstream.url, "tiny", max_concurrency=1)],
        }
        return start_daemon(config), upstream

    return start_pair


def begin(router: Daemon, client: Client, sent: bytes) -> None:
    """Send the head and some of the body, and wait until they are taken."""
    client.send(sent)
    router.until(partial(holds_a_body, router), "taken in")


def holds_a_body(router: Daemon) -> bool:
    return router.metric("router_request_body_bytes") > 0


def test_a_body_that_comes_after_the_signal_is_answered(start):
    router, _ = start(lambda _: [Send(chat_answer())], 20)
    with Client(router.port) as client:
        begin(router, client, REQUEST[:-10])
        router.drain()
        client.send(REQUEST[-10:])
        assert client.response().read().json["object"] == "chat.completion"
    assert router.wait() == 0


def test_a_body_that_does_not_come_before_the_end_is_refused(start):
    router, upstream = start(lambda _: [Send(chat_answer())], 1)
    with Client(router.port) as client:
        begin(router, client, REQUEST[:-10])
        router.signal(signal.SIGTERM)
        refused = client.response().read()
        assert (refused.status, refused.error["code"]) == (503, "draining")
    assert router.wait() == 0
    assert upstream.requests == []


def test_a_request_that_was_sent_ahead_before_the_signal_is_answered(start):
    gate = Gate()
    router, _ = start(lambda _: [gate, Send(chat_answer())], 20)
    with Client(router.port) as client:
        client.send(REQUEST * 2)
        assert gate.reached.wait(10)
        router.drain()
        gate.open()
        assert [client.response().read().status for _ in range(2)] == [200, 200]
    assert router.wait() == 0


def test_whoever_still_waits_for_a_slot_at_the_end_is_refused_and_no_engine_is_asked(start):
    router, upstream = start(lambda _: BEGUN, 1)
    with Client(router.port) as first, Client(router.port) as second:
        first.send(STREAM)
        first.response().read_until(delta("x"))
        second.send(REQUEST)
        router.until(lambda: router.metric("router_queue_length") == 1, "in line")
        router.signal(signal.SIGTERM)
        refused = second.response().read()
        assert (refused.status, refused.error["code"]) == (503, "draining")
    assert router.wait() == 0
    assert len(upstream.requests) == 1
