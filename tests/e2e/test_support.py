"""The test support itself: what it says of the wire is true."""

from __future__ import annotations

import pytest

from support.http import Client, Dechunker, call, chat
from support.upstream import Close, Gate, Pause, Reset, ScriptedUpstream, Send, Stall
from support.wire import LAST_CHUNK, answer, chat_answer, chunk, delta, stream_head


def test_a_request_is_recorded_verbatim_and_answered_by_the_script(start_upstream):
    upstream = start_upstream(lambda _: [Send(chat_answer("hi"))])
    response = call(upstream.port, "POST", "/v1/chat/completions", chat())
    assert response.whole
    assert response.json["choices"][0]["message"]["content"] == "hi"
    [request] = upstream.requests
    assert request.raw.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: router.test\r\n")
    assert request.json == chat()


def test_probes_are_answered_and_kept_apart(start_upstream):
    upstream = start_upstream(models=("a", "b/c"))
    assert call(upstream.port, "GET", "/health").status == 200
    rows = call(upstream.port, "GET", "/v1/models").json["data"]
    assert [row["id"] for row in rows] == ["a", "b/c"]
    assert (len(upstream.requests), len(upstream.seen.probes)) == (0, 2)


def test_a_gate_holds_the_script_until_the_test_has_seen_what_came_before(start_upstream):
    gate = Gate()
    first, second = chunk(delta("one")), chunk(delta("two"))
    upstream = start_upstream(
        lambda _: [Send(stream_head() + first), gate, Send(second + LAST_CHUNK)]
    )
    with Client(upstream.port) as client:
        response = client.request("POST", "/v1/chat/completions", chat(stream=True))
        response.read_until(b"one")
        assert b"two" not in response.body
        gate.open()
        assert response.read().whole
    assert response.body == delta("one") + delta("two")


@pytest.mark.parametrize("step", [Reset(), Close()])
def test_an_answer_that_is_cut_is_not_whole(start_upstream, step):
    upstream = start_upstream(lambda _: [Send(chat_answer()[:-5]), step])
    response = call(upstream.port, "POST", "/v1/chat/completions", chat())
    assert not response.whole
    assert upstream.connections[0].ending == "own"


@pytest.mark.parametrize(("leave", "ending"), [("close", "eof"), ("reset", "reset")])
def test_the_peers_end_is_seen_at_once_and_told_by_its_kind(start_upstream, leave, ending):
    upstream = start_upstream(lambda _: [Stall()])
    client = Client(upstream.port)
    client.send(b"POST / HTTP/1.1\r\n\r\n")
    [request] = upstream.wait_requests(1)
    getattr(client, leave)()
    assert upstream.wait_closed(request).ending == ending
    assert upstream.open_count == 0


def test_two_requests_on_one_connection_are_answered_in_order(start_upstream):
    upstream = start_upstream(lambda r: [Pause(0.01), Send(chat_answer(r.path))])
    with Client(upstream.port) as client:
        client.send(b"POST /1 HTTP/1.1\r\n\r\nPOST /2 HTTP/1.1\r\n\r\n")
        for path in ("/1", "/2"):
            assert client.response().read().json["choices"][0]["message"]["content"] == path
    assert [c.requests for c in upstream.connections] == [2]


def test_a_dead_upstream_breaks_what_runs_and_refuses_what_comes():
    with ScriptedUpstream(lambda _: [Stall()]) as upstream, Client(upstream.port) as client:
        client.send(b"POST / HTTP/1.1\r\n\r\n")
        upstream.wait_requests(1)
        upstream.die()
        assert client.receive() == b""
        with pytest.raises(ConnectionRefusedError):
            call(upstream.port, "GET", "/health")
        upstream.revive()
        assert call(upstream.port, "GET", "/health").status == 200


def test_chunks_cut_anywhere_come_out_the_same():
    payload = [b"a", b"bcd" * 20, b"\r\n", b"0"]
    wire = b"".join(chunk(p) for p in payload) + LAST_CHUNK
    for size in range(1, 9):
        dechunker = Dechunker()
        out = b"".join(dechunker.feed(wire[i : i + size]) for i in range(0, len(wire), size))
        assert (out, dechunker.ended) == (b"".join(payload), True)


def test_what_follows_a_chunked_body_is_the_next_answer(start_upstream):
    """Also where it comes with the end of that body."""
    both = stream_head() + chunk(b"a") + LAST_CHUNK + answer({"user": "1"})
    upstream = start_upstream(lambda _: [Send(both)])
    with Client(upstream.port) as client:
        client.send(b"POST / HTTP/1.1\r\n\r\n")
        assert client.response().read().body == b"a"
        assert client.response().read().json == {"user": "1"}
