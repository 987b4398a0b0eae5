"""Too many, too slow: what the router does not take, it says at once; what does not move is cut."""

from __future__ import annotations

import time

import pytest

from support.daemon import service
from support.http import Client, call, chat, encode
from support.upstream import Send, Stall
from support.wire import DONE, LAST_CHUNK, chat_answer, chunk, delta, stream_head

PATH = "/v1/chat/completions"
LIMIT = 40
SHORT = {"header_timeout_s": 0.5, "body_timeout_s": 0.5, "idle_timeout_s": 1}


def rows(upstream) -> list[dict]:
    return [service("a", upstream.url, "tiny")]


def test_past_max_connections_it_answers_503_at_once(start_daemon, start_upstream, finding):
    upstream = start_upstream(lambda _: [Stall()])
    router = start_daemon({"services": rows(upstream), "server": {"max_connections": LIMIT}})
    before = router.open_files
    held = [Client(router.port) for _ in range(LIMIT)]
    for client in held[:20]:
        client.send(encode("POST", PATH, chat()))
    upstream.wait_requests(20)
    slowest = 0.0
    for number in range(100):
        began = time.monotonic()
        with Client(router.port) as client:
            client.send(encode("POST", PATH, chat()))
            response = client.response()
            assert response is not None, f"refused without a word at {number}"
            response.read()
        slowest = max(slowest, time.monotonic() - began)
        assert (response.status, response.error["code"]) == (503, "overloaded")
        assert int(response.header("retry-after")) >= 1
    finding(f"past max_connections: 100 times 503, the slowest after {slowest * 1e3:.1f} ms")
    assert slowest < 2
    assert router.open_files <= before + LIMIT + 20 + 10
    for client in held:
        client.close()
    router.until(lambda: call(router.port, "GET", "/health/live").status == 200, "room again")
    upstream.script = lambda _: [Send(chat_answer())]
    assert call(router.port, "POST", PATH, chat()).status == 200


def test_a_client_that_does_not_read_is_cut_and_its_engine_freed(
    start_daemon, start_upstream, finding
):
    piece = Send(chunk(delta("x" * 60_000)))
    upstream = start_upstream(lambda _: [Send(stream_head()), *[piece] * 400, Send(LAST_CHUNK)])
    router = start_daemon({"services": rows(upstream), "server": SHORT})
    files, before = router.open_files, router.rss
    clients = [Client(router.port, receive_buffer=8192) for _ in range(20)]
    for client in clients:
        client.send(encode("POST", PATH, chat(stream=True)))
    began = time.monotonic()
    upstream.wait_requests(20)
    grown = router.rss - before
    router.until(lambda: upstream.open_count <= 2, "engines freed", 20)
    router.until_idle()
    cut_s, grown = time.monotonic() - began, max(grown, router.rss - before)
    finding(f"20 clients that do not read (idle_timeout_s 1): cut after {cut_s:.1f} s, memory "
            f"+{grown / 1e6:.1f} MB")  # fmt: skip
    router.until(lambda: router.open_files <= files + 4, "descriptors back", 20)
    assert router.rss - before < 20 * 2_000_000
    for client in clients:
        client.close()


def test_a_client_that_reads_slowly_but_reads_gets_it_all(start_daemon, start_upstream):
    piece = Send(chunk(delta("x" * 10_000)))
    upstream = start_upstream(lambda _: [Send(stream_head()), *[piece] * 100,
                                         Send(chunk(DONE) + LAST_CHUNK)])  # fmt: skip
    router = start_daemon({"services": rows(upstream), "server": SHORT})
    with Client(router.port, receive_buffer=8192) as client:
        client.send(encode("POST", PATH, chat(stream=True)))
        response = client.response()
        while response.more():
            time.sleep(0.005)
    assert response.whole
    assert response.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("cut", [10, -5], ids=["head", "body"])
def test_a_client_that_does_not_finish_its_request_is_cut(start_daemon, start_upstream, cut):
    upstream = start_upstream()
    router = start_daemon({"services": rows(upstream), "server": SHORT})
    files = router.open_files
    clients = [Client(router.port) for _ in range(20)]
    for client in clients:
        client.send(encode("POST", PATH, chat())[:cut])
    for client in clients:
        response = client.response().read()
        assert (response.status, response.error["code"]) == (408, "request_timeout")
        assert client.receive() == b""
        client.close()
    router.until(lambda: router.open_files <= files + 2, "descriptors back")
    assert upstream.requests == []


def test_a_client_that_sends_a_byte_now_and_then_is_cut_all_the_same(start_daemon, start_upstream):
    """The limit is on the whole head, not on the pause between two bytes."""
    router = start_daemon({"services": rows(start_upstream()), "server": SHORT})
    began = time.monotonic()
    with Client(router.port) as client:
        for byte in encode("POST", PATH, chat()):
            try:
                client.send(bytes([byte]))
            except OSError:
                break
            if not client.hears_nothing(0.05):
                break
        assert client.response().status == 408
    assert time.monotonic() - began < 3


def test_an_engine_that_is_cut_off_mid_stream_by_silence_is_told_as_timeout(
    start_daemon, start_upstream
):
    upstream = start_upstream(lambda _: [Send(stream_head() + chunk(delta("x"))), Stall()])
    router = start_daemon({"services": rows(upstream), "server": SHORT})
    response = call(router.port, "POST", PATH, chat(stream=True))
    assert b'"upstream_timeout"' in response.body
    assert b"[DONE]" not in response.body
