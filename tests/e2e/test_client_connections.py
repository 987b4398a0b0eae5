"""What a client may do with its connection: keep it, pipeline on it, speak HTTP/1.0, share it."""

from __future__ import annotations

import pytest

from support.daemon import Daemon, service
from support.http import Client, chat, encode
from support.upstream import Gate, ScriptedUpstream, Send
from support.wire import DONE, LAST_CHUNK, answer, chat_answer, chunk, delta, stream_head

PATH = "/v1/chat/completions"
STREAM = [Send(stream_head() + chunk(delta("a") + DONE) + LAST_CHUNK)]


@pytest.fixture(scope="module")
def router(upstream: ScriptedUpstream, start_module_daemon) -> Daemon:
    return start_module_daemon({"services": [service("engine", upstream.url, "tiny")]})


def old(body: bytes, *lines: str) -> bytes:
    """A request of HTTP/1.0."""
    head = [f"POST {PATH} HTTP/1.0", "content-type: application/json", *lines]
    return "\r\n".join([*head, f"content-length: {len(body)}"]).encode() + b"\r\n\r\n" + body


def test_a_kept_connection_takes_streams_pages_and_unary_calls_in_turn(router, upstream):
    upstream.script = lambda r: STREAM if r.json.get("stream") else [Send(chat_answer())]
    with Client(router.port) as client:
        for _ in range(5):
            assert client.request("POST", PATH, chat(stream=True)).read().body == delta("a") + DONE
            assert client.request("GET", "/health/live").read().status == 200
            assert client.request("POST", PATH, chat()).read().json["object"] == "chat.completion"
            assert client.request("POST", "/v1/nope", chat()).read().status == 404


def test_pipelined_requests_are_answered_whole_and_in_order(router, upstream):
    gate = Gate()

    def script(request):
        name = request.json["user"]
        return [gate, *STREAM] if name == "0" else [Send(answer({"user": name}))]

    upstream.script = script
    bodies = [chat(user="0", stream=True), chat(user="1"), chat(user="2")]
    with Client(router.port) as client:
        client.send(b"".join(encode("POST", PATH, body) for body in bodies))
        assert gate.reached.wait(10)
        gate.open()
        assert client.response().read().body == delta("a") + DONE
        assert [client.response().read().json["user"] for _ in range(2)] == ["1", "2"]


def test_a_client_of_http_1_0_gets_a_stream_that_ends_with_the_connection(router, upstream):
    """It knows no chunks, so there must be none."""
    upstream.script = lambda _: STREAM
    with Client(router.port) as client:
        client.send(old(encode("POST", PATH, chat(stream=True)).partition(b"\r\n\r\n")[2]))
        response = client.response().read()
        assert response.header("transfer-encoding") is None
        assert (response.status, response.body) == (200, delta("a") + DONE)
        assert response.closed


@pytest.mark.parametrize("lines", [(), ("connection: keep-alive",)])
def test_a_client_of_http_1_0_gets_a_unary_answer(router, upstream, lines):
    upstream.script = lambda _: [Send(answer({"id": 1}))]
    with Client(router.port) as client:
        client.send(old(b'{"model": "tiny"}', *lines))
        response = client.response().read()
        assert (response.status, response.json, response.whole) == (200, {"id": 1}, True)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
def test_a_client_that_asks_for_close_is_closed_after_its_answer(router, upstream, stream):
    upstream.script = lambda _: STREAM if stream else [Send(answer({"id": 1}))]
    with Client(router.port) as client:
        response = client.request("POST", PATH, chat(stream=stream), (("connection", "close"),))
        assert response.read().whole
        assert client.receive() == b""


def test_an_empty_answer_of_an_engine_is_an_empty_answer(router, upstream):
    upstream.script = lambda _: [Send(answer(b"", content_type="text/plain"))]
    with Client(router.port) as client:
        for _ in range(2):
            response = client.request("POST", PATH, chat()).read()
            assert (response.status, response.body, response.whole) == (200, b"", True)


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_body_does_not_wait_for_one(router, upstream, status):
    upstream.script = lambda _: [Send(b"HTTP/1.1 %d None\r\nx-a: b\r\n\r\n" % status)]
    with Client(router.port) as client:
        client.send(encode("POST", PATH, chat()))
        assert client.response(no_body=True).status == status
        assert client.request("GET", "/health/live").read().status == 200


def test_a_stream_without_an_event_ends_without_one(router, upstream):
    upstream.script = lambda _: [Send(stream_head() + LAST_CHUNK)]
    with Client(router.port) as client:
        response = client.request("POST", PATH, chat(stream=True)).read()
        assert (response.status, response.body, response.whole) == (200, b"", True)
