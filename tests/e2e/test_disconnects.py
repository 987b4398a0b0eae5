"""A client that goes away stops the engine's work at once, and leaves nothing behind."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from support.daemon import Daemon, service
from support.http import Client, call, chat, encode
from support.upstream import Gate, Pause, ScriptedUpstream, Send, Stall
from support.wire import DONE, LAST_CHUNK, chat_answer, chunk, delta, stream_head

PATH = "/v1/chat/completions"
LIVENESS_S = 1.0


@pytest.fixture(scope="module")
def router(upstream: ScriptedUpstream, start_module_daemon) -> Daemon:
    return start_module_daemon({"services": [service("engine", upstream.url, "tiny")]})


@pytest.fixture(scope="module")
def delays(finding: Callable[[str], None]) -> Iterator[list[float]]:
    """Seconds from a client's end to the upstream's; the longest is printed at the end."""
    measured: list[float] = []
    yield measured
    finding(
        f"upstream closed after the client had gone: at most {max(measured, default=0) * 1000:.1f} "
        f"ms in {len(measured)} cases"
    )


def leave(client: Client, how: str) -> float:
    """End the client's connection; the moment it was done."""
    at = time.monotonic()
    (client.close if how == "fin" else client.reset)()
    return at


def closing_delay(upstream: ScriptedUpstream, gone_at: float) -> float:
    """Seconds from the client's end to the end of the upstream's connection."""
    connection = upstream.wait_closed(upstream.requests[-1])
    return connection.closed_at - gone_at


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
@pytest.mark.parametrize("moment", ["before-the-head", "inside-the-head", "mid-body"])
def test_the_upstream_is_closed_when_the_client_goes(router, upstream, delays, how, stream, moment):
    """Silent all the while: nothing but the client's end can tell the router."""
    head = stream_head() if stream else chat_answer("x" * 500)[:-400]
    first = head + (chunk(delta("a")) if stream else b"")
    sent = {"before-the-head": b"", "inside-the-head": first[:60], "mid-body": first}[moment]
    gate = Gate()
    upstream.script = lambda _: [Send(sent), gate, Stall()]
    upstream.forget()
    aborts = router.metric("router_client_aborts_total")
    client = Client(router.port)
    client.send(encode("POST", PATH, chat(stream=stream)))
    assert gate.reached.wait(10)
    if moment == "mid-body":
        client.response()
    delay = closing_delay(upstream, leave(client, how))
    delays.append(delay)
    assert delay < LIVENESS_S
    router.until_idle()
    assert router.metric("router_client_aborts_total") == aborts + 1


def test_a_client_that_ends_its_sending_side_alone_has_gone(router, upstream):
    gate = Gate()
    upstream.script = lambda _: [gate, Stall()]
    with Client(router.port) as client:
        client.send(encode("POST", PATH, chat()))
        assert gate.reached.wait(10)
        gate.open()
        client.end_sending()
        upstream.wait_closed(upstream.requests[-1])
        assert client.receive() == b""


def test_a_client_that_goes_while_the_stream_flows_ends_it(router, upstream):
    events = [step for n in range(2000) for step in (Send(chunk(delta(f"{n}"))), Pause(0.002))]
    upstream.script = lambda _: [Send(stream_head()), *events, Send(LAST_CHUNK)]
    upstream.forget()
    client = Client(router.port)
    client.send(encode("POST", PATH, chat(stream=True)))
    client.response().read_until(delta("5"))
    assert closing_delay(upstream, leave(client, "fin")) < LIVENESS_S
    router.until_idle()


def test_a_client_that_goes_while_it_does_not_read_ends_the_stream(router, upstream):
    """With the upstream's read paused by backpressure, its end is seen all the same."""
    flood = Gate()
    piece = Send(chunk(delta("x" * 60_000)))
    upstream.script = lambda _: [Send(stream_head()), flood, *[piece] * 400, Send(LAST_CHUNK)]
    upstream.forget()
    client = Client(router.port, receive_buffer=16_384)
    client.send(encode("POST", PATH, chat(stream=True)))
    flood.open()
    client.response()
    time.sleep(0.3)  # nothing tells that every buffer on the way is full
    assert closing_delay(upstream, leave(client, "rst")) < LIVENESS_S
    router.until_idle()


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_that_goes_after_it_has_sent_too_much_ahead_is_noticed(router, upstream, how):
    """Nothing is read from it any more, so no read can tell."""
    gate = Gate()
    upstream.script = lambda _: [gate, Stall()]
    client = Client(router.port)
    client.send(encode("POST", PATH, chat()))
    assert gate.reached.wait(10)
    client.send(encode("POST", PATH, chat("tiny", user="x" * 100_000)))
    gate.open()
    time.sleep(0.3)  # nothing tells that the router has stopped to read
    assert closing_delay(upstream, leave(client, how)) < LIVENESS_S
    router.until_idle()


def test_a_client_that_goes_before_its_body_is_whole_reaches_no_upstream(router, upstream):
    upstream.forget()
    client = Client(router.port)
    client.send(encode("POST", PATH, chat())[:-10])
    client.close()
    assert call(router.port, "POST", "/v1/nope", chat()).status == 404
    router.until_idle()
    assert upstream.requests == []


# -- a thousand of them ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """How one client behaves, and how the engine answers it: from a seed alone."""

    seed: int

    @property
    def moment(self) -> str:
        return random.Random(self.seed).choice(
            ["mid-request", "at-once", "before-head", "silent", "flowing", "reused"]
        )

    @property
    def how(self) -> str:
        return random.Random(self.seed + 7_000).choice(["fin", "rst"])

    @property
    def delay(self) -> float:
        return random.Random(self.seed + 14_000).random() * 0.02

    @property
    def stream(self) -> bool:
        return self.moment in {"silent", "flowing"} or bool(self.seed % 2)

    def request(self) -> bytes:
        return encode("POST", PATH, chat(stream=self.stream, user=str(self.seed)))

    def steps(self):
        """What the upstream does for it."""
        match self.moment:
            case "silent":
                return [Send(stream_head() + chunk(delta("a"))), Stall()]
            case "flowing":
                tick = [Send(chunk(delta("tick"))), Pause(0.003)]
                return [Send(stream_head()), *tick * 200, Send(chunk(DONE) + LAST_CHUNK)]
            case _:
                return [Stall()]


def abort_one(port: int, plan: Plan) -> None:
    client = Client(port)
    try:
        if plan.moment == "mid-request":
            whole = plan.request()
            client.send(whole[: random.Random(plan.seed).randrange(1, len(whole))])
        else:
            if plan.moment == "reused":
                client.request("POST", PATH, chat(user="whole")).read()
            client.send(plan.request())
        if plan.moment in {"silent", "flowing"}:
            client.response()
        if plan.moment != "at-once":
            time.sleep(plan.delay)
    finally:
        leave(client, plan.how)


def test_a_thousand_clients_that_go_at_random_leave_nothing_behind(router, upstream, finding):
    def script(request):
        user = request.json["user"]
        return [Send(chat_answer())] if user == "whole" else Plan(int(user)).steps()

    upstream.script = script
    assert call(router.port, "POST", PATH, chat(user="whole")).status == 200
    router.until_idle()
    files, memory = router.open_files, router.rss
    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda seed: abort_one(router.port, Plan(seed)), range(1000)))
    router.until_idle()
    assert router.metric("router_requests_in_flight") == 0
    upstream.wait(lambda: upstream.open_count <= 17)
    router.until(lambda: router.open_files <= files + 17, "sockets closed", 10)
    response = call(router.port, "POST", PATH, chat(user="whole"))
    assert (response.status, response.whole) == (200, True)
    assert router.services()["engine"]["state"] == "healthy"
    finding(
        f"1000 random aborts in {time.monotonic() - began:.1f} s: {len(upstream.requests)} reached "
        f"the upstream, memory {router.rss - memory:+,} B, files {router.open_files - files:+}"
    )
