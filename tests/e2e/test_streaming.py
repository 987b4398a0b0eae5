"""Streams pass at once and as they are; what breaks is told, and never looks whole."""

from __future__ import annotations

import json
import signal
import threading
import time

import pytest

from support.daemon import Daemon, service
from support.http import Client, call, chat, encode
from support.upstream import Close, Gate, Reset, ScriptedUpstream, Send, Stall
from support.wire import DONE, LAST_CHUNK, answer, chat_answer, chunk, delta, event, stream_head

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def router(upstream: ScriptedUpstream, start_module_daemon) -> Daemon:
    return start_module_daemon(
        {
            "server": {"idle_timeout_s": 2, "request_timeout_s": 20},
            "services": [service("engine", upstream.url, "tiny")],
            "ejection": {"consecutive_failures": 1000},
        }
    )


def stream_body(path: str) -> dict:
    more = {"max_tokens": 9} if path.endswith("messages") else {}
    return {**chat(stream=True), **more, "input": "Hi", "prompt": "Hi"}


def told_error(last: bytes, path: str) -> dict:
    """The error that the last event of a stream tells, in the form of its path."""
    lines = last.strip().split(b"\n")
    content = json.loads(lines[-1].removeprefix(b"data: "))
    if path in PATHS[:2]:
        assert len(lines) == 1, last
        assert set(content) == {"error"}
        return content["error"]
    assert lines[0] == b"event: error"
    assert content["type"] == "error"
    return content["error"] if path == "/v1/messages" else content


# -- at once, and untouched ------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_an_event_reaches_the_client_before_the_next_has_left_the_upstream(router, upstream, path):
    events = [delta(f"word {number}") for number in range(8)] + [DONE]
    gates = [Gate() for _ in events]
    steps = [Send(stream_head())]
    for one, gate in zip(events, gates, strict=True):
        steps += [Send(chunk(one)), gate]
    upstream.script = lambda _: [*steps, Send(LAST_CHUNK)]
    with Client(router.port) as client:
        client.send(encode("POST", path, stream_body(path)))
        response = None
        for number, gate in enumerate(gates):
            response = response or client.response()
            sent = b"".join(events[: number + 1])
            response.read_until(sent)
            assert response.body == sent
            gate.open()
        assert response.read().whole
    assert response.header("content-type") == "text/event-stream; charset=utf-8"


def test_half_a_character_passes_without_waiting_for_its_other_half(router, upstream):
    text = delta("Grüße, 世界 🌍")
    cuts = [
        text.index("ü".encode()) + 1,
        text.index("界".encode()) + 2,
        text.index("🌍".encode()) + 3,
    ]
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    gates = [Gate() for _ in pieces]
    steps = [Send(stream_head())]
    for piece, gate in zip(pieces, gates, strict=True):
        steps += [Send(chunk(piece)), gate]
    upstream.script = lambda _: [*steps, Send(LAST_CHUNK)]
    with Client(router.port) as client:
        client.send(encode("POST", PATHS[0], chat(stream=True)))
        response = client.response()
        for number, gate in enumerate(gates):
            response.read_until(b"".join(pieces[: number + 1]))
            gate.open()
        assert response.read().whole
    assert response.body == text


def test_half_a_chunk_passes_without_waiting_for_its_other_half(router, upstream):
    gate, text = Gate(), delta("in two packets")
    framed = chunk(text)
    upstream.script = lambda _: [
        Send(stream_head() + framed[:30]), gate, Send(framed[30:] + LAST_CHUNK)
    ]  # fmt: skip
    with Client(router.port) as client:
        client.send(encode("POST", PATHS[0], chat(stream=True)))
        response = client.response()
        response.read_until(text[:20])
        gate.open()
        assert response.read().whole
    assert response.body == text


def test_events_merged_in_one_packet_arrive_together_and_unchanged(router, upstream):
    gate, merged = Gate(), b"".join(delta(f"{n}") for n in range(5))
    upstream.script = lambda _: [
        Send(stream_head() + chunk(merged)), gate, Send(chunk(DONE) + LAST_CHUNK)
    ]  # fmt: skip
    with Client(router.port) as client:
        client.send(encode("POST", PATHS[0], chat(stream=True)))
        response = client.response()
        response.read_until(merged)
        gate.open()
        assert response.read().body == merged + DONE


def test_a_stream_cut_into_single_bytes_comes_out_whole(router, upstream):
    body = delta("é") + b": keep-alive\n\n" + delta("") + DONE
    wire = stream_head(("x-engine", "yes")) + chunk(body[:50]) + chunk(body[50:]) + LAST_CHUNK
    upstream.script = lambda _: [Send(wire[i : i + 1]) for i in range(len(wire))]
    response = call(router.port, "POST", PATHS[0], chat(stream=True))
    assert (response.status, response.body, response.whole) == (200, body, True)
    assert response.header("x-engine") == "yes"


def test_the_head_waits_for_the_first_byte_of_the_body(router, upstream):
    """Until then the call may still move, so the client must not have been told anything."""
    gate = Gate()
    upstream.script = lambda _: [Send(stream_head()), gate, Send(chunk(DONE) + LAST_CHUNK)]
    with Client(router.port) as client:
        client.send(encode("POST", PATHS[0], chat(stream=True)))
        assert gate.reached.wait(10)
        assert client.hears_nothing(0.3)
        gate.open()
        assert client.response().read().body == DONE


def test_two_hundred_streams_at_once_do_not_mix(router, upstream):
    gates = {f"stream-{n}": Gate() for n in range(200)}

    def script(request):
        name = request.json["user"]
        return [Send(stream_head() + chunk(delta(name))), gates[name],
                Send(chunk(delta("end " + name) + DONE) + LAST_CHUNK)]  # fmt: skip

    upstream.script = script
    clients = {name: Client(router.port) for name in gates}
    try:
        for name, client in clients.items():
            client.send(encode("POST", PATHS[0], chat(stream=True, user=name)))
        answers = {name: client.response() for name, client in clients.items()}
        for name, response in answers.items():
            response.read_until(delta(name))
        for name in reversed(gates):
            gates[name].open()
            assert answers[name].read().body == delta(name) + delta("end " + name) + DONE
    finally:
        for client in clients.values():
            client.close()
    router.until_idle()


# -- what breaks -----------------------------------------------------------------------------------

BREAKS = {
    "fin": [Close()],
    "rst": [Reset()],
    "garbage": [Send(b"this is no chunk\r\n"), Stall()],
    "inside-a-chunk": [Send(b"40\r\ndata: {"), Close()],
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_stream_ends_with_one_error_event(router, upstream, path, how):
    first = delta("so far")
    gate = Gate()
    upstream.script = lambda _: [Send(stream_head() + chunk(first)), gate, *BREAKS[how]]
    truncated = router.metric("router_streams_truncated_total")
    with Client(router.port) as client:
        client.send(encode("POST", path, stream_body(path)))
        response = client.response()
        response.read_until(first)
        gate.open()
        response.read()
    assert response.status == 200
    assert response.body.startswith(first)
    assert b"[DONE]" not in response.body
    assert b"finish_reason" not in response.body
    assert response.body.count(b"upstream_disconnected") == 1
    assert told_error(response.events[-1], path)["code"] == "upstream_disconnected"
    assert router.metric("router_streams_truncated_total") == truncated + 1


def test_a_stream_that_breaks_inside_an_event_does_not_swallow_the_error(router, upstream):
    half = delta("never finished")[:25]
    gate = Gate()
    upstream.script = lambda _: [Send(stream_head() + chunk(delta("a") + half)), gate, Reset()]
    with Client(router.port) as client:
        client.send(encode("POST", PATHS[0], chat(stream=True)))
        response = client.response()
        response.read_until(half)
        gate.open()
        response.read()
    assert response.events[:2] == [delta("a").strip(), half]
    assert told_error(response.events[-1], PATHS[0])["code"] == "upstream_disconnected"


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_that_falls_silent_ends_with_a_timeout(router, upstream, path):
    upstream.script = lambda _: [Send(stream_head() + chunk(delta("a"))), Stall()]
    upstream.forget()
    response = call(router.port, "POST", path, stream_body(path))
    assert response.body.startswith(delta("a"))
    assert told_error(response.events[-1], path)["code"] == "upstream_timeout"
    assert b"[DONE]" not in response.body
    upstream.wait_closed(upstream.requests[0])
    router.until_idle()


def test_a_stream_that_goes_on_slowly_is_not_timed_out(router, upstream):
    """The idle time is between two chunks, not of the whole."""
    gates = [Gate() for _ in range(4)]
    steps = [Send(stream_head())]
    for gate in gates:
        steps += [Send(chunk(delta("tick"))), gate]
    upstream.script = lambda _: [*steps, Send(chunk(DONE) + LAST_CHUNK)]
    timers = [threading.Timer(0.7 * n, gate.open) for n, gate in enumerate(gates, 1)]
    for timer in timers:
        timer.start()
    response = call(router.port, "POST", PATHS[0], chat(stream=True))
    assert response.body == delta("tick") * 4 + DONE


@pytest.mark.parametrize("how", [Close(), Reset()], ids=["fin", "rst"])
def test_a_unary_answer_that_breaks_is_short_of_its_length(router, upstream, how):
    """A client that checks must see that it is not whole; nothing may be put in its place."""
    body = b'{"text": "' + b"x" * 5000 + b'"}'
    gate = Gate()
    upstream.script = lambda _: [Send(answer(body)[:-1000]), gate, how]
    with Client(router.port) as client:
        response = client.request("POST", PATHS[0], chat())
        while len(response.body) < len(body) - 1000:
            assert response.more()
        gate.open()
        response.read()
    assert response.status == 200
    assert not response.whole
    assert body.startswith(response.body)
    assert response.header("content-length") == str(len(body))


def test_an_unary_answer_that_falls_silent_is_cut_short_too(router, upstream):
    upstream.script = lambda _: [Send(answer({"text": "x" * 500})[:-100]), Stall()]
    response = call(router.port, "POST", PATHS[0], chat())
    assert (response.status, response.whole) == (200, False)
    router.until_idle()


# -- a client that does not read -------------------------------------------------------------------


def test_a_client_that_does_not_read_costs_no_memory(start_daemon, start_upstream, finding):
    """100 MB wait at the upstream, held by backpressure, and all of them arrive in the end."""
    payload = event({"text": "x" * 65_000})
    piece, count = chunk(payload), 100_000_000 // len(payload) + 1
    upstream = start_upstream(
        lambda _: [Send(stream_head()), *[Send(piece)] * count, Send(LAST_CHUNK)]
    )
    daemon = start_daemon({"services": [service("engine", upstream.url, "tiny")]})
    assert daemon.get("/metrics").status == 200  # what the first scrape costs is not the stream's
    before = peak = daemon.rss
    with Client(daemon.port, receive_buffer=16_384) as client:
        client.send(encode("POST", PATHS[0], chat(stream=True)))
        upstream.wait_requests(1)
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            peak = max(peak, daemon.rss)
            time.sleep(0.02)
        finding(f"100 MB to a client that does not read: the daemon grew by {peak - before:,} B")
        assert peak - before < 8 * MIB
        received, tail = 0, b""
        while not tail.endswith(b"\r\n0\r\n\r\n") and (data := client.receive()):
            received += len(data)
            tail = tail[-7:] + data
        assert received >= count * len(payload)
    assert max(peak, daemon.rss) - before < 8 * MIB
    daemon.until_idle()


# -- the end of the daemon -------------------------------------------------------------------------


def draining_router(start_daemon, upstream, drain_timeout_s):
    return start_daemon(
        {
            "server": {"drain_timeout_s": drain_timeout_s},
            "services": [service("engine", upstream.url, "tiny")],
        }
    )


def test_sigterm_lets_running_streams_end_and_refuses_new_ones(start_daemon, start_upstream):
    gate = Gate()
    upstream = start_upstream(
        lambda _: [Send(stream_head() + chunk(delta("a"))), gate,
                   Send(chunk(delta("b") + DONE) + LAST_CHUNK)]
    )  # fmt: skip
    daemon = draining_router(start_daemon, upstream, 20)
    with Client(daemon.port) as running, Client(daemon.port) as waiting:
        assert waiting.request("GET", "/health/live").read().status == 200
        running.send(encode("POST", PATHS[0], chat(stream=True)))
        response = running.response()
        response.read_until(delta("a"))
        daemon.signal(signal.SIGTERM)
        daemon.until(lambda: call(daemon.port, "GET", "/health/ready").status == 503, "draining")
        for refused in (
            call(daemon.port, "POST", PATHS[0], chat()),
            call(daemon.port, "GET", "/v1/models"),
            waiting.request("POST", PATHS[0], chat()).read(),
        ):
            assert (refused.status, refused.error["code"]) == (503, "draining")
            assert int(refused.header("retry-after")) >= 1
        assert len(upstream.requests) == 1
        gate.open()
        assert response.read().body == delta("a") + delta("b") + DONE
    assert daemon.wait() == 0


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_longer_than_the_drain_is_told_so(start_daemon, start_upstream, path):
    upstream = start_upstream(lambda _: [Send(stream_head() + chunk(delta("a"))), Stall()])
    daemon = draining_router(start_daemon, upstream, 1)
    with Client(daemon.port) as client:
        client.send(encode("POST", path, stream_body(path)))
        response = client.response()
        response.read_until(delta("a"))
        daemon.signal(signal.SIGTERM)
        response.read()
    assert told_error(response.events[-1], path)["code"] == "server_shutting_down"
    assert b"[DONE]" not in response.body
    assert daemon.wait() == 0


def test_a_call_without_a_byte_at_the_drains_end_is_an_error_answer(start_daemon, start_upstream):
    upstream = start_upstream(lambda _: [Stall()])
    daemon = draining_router(start_daemon, upstream, 1)
    with Client(daemon.port) as client:
        client.send(encode("POST", PATHS[0], chat()))
        upstream.wait_requests(1)
        daemon.signal(signal.SIGTERM)
        response = client.response()
        if response is not None:
            assert response.read().status == 503
    assert daemon.wait() == 0


def test_sigterm_with_nothing_to_do_ends_at_once_also_with_idle_clients(
    start_daemon, start_upstream
):
    upstream = start_upstream(lambda _: [Send(chat_answer())])
    daemon = draining_router(start_daemon, upstream, 15)
    with Client(daemon.port) as idle:
        assert idle.request("POST", PATHS[0], chat()).read().whole
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(10) == 0


def test_a_second_sigterm_ends_at_once_with_status_1(start_daemon, start_upstream):
    upstream = start_upstream(lambda _: [Send(stream_head() + chunk(delta("a"))), Stall()])
    daemon = draining_router(start_daemon, upstream, 60)
    with Client(daemon.port) as client:
        client.send(encode("POST", PATHS[0], chat(stream=True)))
        client.response().read_until(delta("a"))
        daemon.drain()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(10) == 1
