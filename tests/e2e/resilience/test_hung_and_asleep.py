"""Engines with a healthy face: hung, busy and asleep."""

from __future__ import annotations

import threading
import time

import pytest

from e2e.resilience.conftest import HUNG_AFTER_S
from support.daemon import service
from support.http import Client, call, chat, encode
from support.upstream import Gate, Pause, Send, Stall
from support.wire import DONE, LAST_CHUNK, Request, answer, chat_answer, chunk, delta, stream_head

PATH = "/v1/chat/completions"
METRICS = """\
vllm:num_requests_running{{engine="0",model_name="tiny"}} {running}
vllm:num_requests_waiting{{engine="0",model_name="tiny"}} 0.0
vllm:generation_tokens_total{{engine="0",model_name="tiny"}} {tokens}
vllm:prompt_tokens_total{{engine="0",model_name="tiny"}} 7.0
"""


class Face:
    """What an engine tells probes: healthy, and these numbers."""

    def __init__(self, upstream, running: int = 0) -> None:
        self.running, self.tokens = running, 100
        self.moves = False
        self._healthy = upstream.probe
        upstream.probe = self._probe

    def _probe(self, request: Request):
        if request.path != "/metrics":
            return self._healthy(request)
        self.tokens += 5 * self.moves
        text = METRICS.format(running=float(self.running), tokens=float(self.tokens))
        return [Send(answer(text.encode(), content_type="text/plain"))]


@pytest.fixture
def pair(start_daemon, start_upstream, quick):
    """Two services, the first with a face that the test draws."""
    first, second = start_upstream(), start_upstream()
    face = Face(first)
    rows = [service(n, u.url, "tiny") for n, u in (("a", first), ("b", second))]
    quick["server"]["idle_timeout_s"] = 60
    return start_daemon({**quick, "services": rows}), first, second, face


def state(router, name: str = "a") -> str:
    return str(router.services()[name]["state"])


def test_a_hung_engine_leaves_and_the_calls_that_wait_for_it_move(pair, finding):
    router, hung, good, face = pair
    good.script = lambda _: [Send(chat_answer("good"))]
    hung.script = lambda _: [Stall()]
    answers: list = []
    clients = [
        threading.Thread(target=lambda: answers.append(call(router.port, "POST", PATH, chat())))
        for _ in range(10)
    ]
    began = time.monotonic()
    face.running = 5
    for client in clients:
        client.start()
    hung.wait_requests(1)
    router.until(lambda: state(router) == "unhealthy", "out")
    out_s = time.monotonic() - began
    for client in clients:
        client.join(20)
    finding(f"an engine that hangs with a healthy face: out after {out_s:.2f} s "
            f"(hung_after_s {HUNG_AFTER_S:g}), {len(hung.requests)} calls moved")  # fmt: skip
    assert [each.status for each in answers] == [200] * 10
    assert all(b"good" in each.body for each in answers)
    assert HUNG_AFTER_S * 0.9 <= out_s <= HUNG_AFTER_S + 2
    assert "hung" in router.services()["a"]["last_error"]
    assert router.get("/health").json["status"] == "degraded"
    hung.script = good.script
    face.running = 0
    router.until(lambda: state(router) == "healthy", "back")
    router.until_idle()


def test_a_busy_engine_that_makes_tokens_is_not_hung(pair):
    router, _, _, face = pair
    face.running, face.moves = 50, True
    deadline = time.monotonic() + 2 * HUNG_AFTER_S
    while time.monotonic() < deadline:
        assert state(router) == "healthy"
        time.sleep(0.1)


def test_a_late_probe_while_tokens_move_is_busy_and_not_dead(pair):
    """Every probe is late for many intervals; the stream goes on, and so does the service."""
    router, first, second, _ = pair
    second.script = lambda _: [Send(chat_answer())]
    flowing = [step for _ in range(150) for step in (Send(chunk(delta("x"))), Pause(0.02))]
    first.script = lambda _: [Send(stream_head()), *flowing, Send(chunk(DONE) + LAST_CHUNK)]
    client, response = Client(router.port), None
    while response is None:
        client = Client(router.port)
        client.send(encode("POST", PATH, chat(stream=True)))
        answered = client.response()
        if answered.header("x-router-service") == "a":
            response = answered
    calm = first.probe
    first.probe = lambda request: [Stall()] if request.path == "/health" else calm(request)
    response.read_until(b"data: [DONE]")
    assert state(router) == "healthy"
    client.close()
    router.until(lambda: state(router) == "unhealthy", "late, and silent: dead")


def test_an_engine_that_sleeps_is_asleep_and_comes_back(start_daemon, start_engine, quick, finding):
    engine, other = start_engine(), start_engine()
    rows = [service(n, e.url, "tiny") for n, e in (("a", engine), ("b", other))]
    router = start_daemon({**quick, "services": rows})
    assert engine.post("/sleep?level=1") == 200
    asleep_at = time.monotonic()
    router.until(lambda: state(router) == "sleeping", "sleeping")
    out_s = time.monotonic() - asleep_at
    assert router.services()["a"]["healthy"] is False
    for _ in range(5):
        response = call(router.port, "POST", PATH, chat(max_tokens=2))
        assert (response.status, response.header("x-router-service")) == (200, "b")
    assert engine.post("/wake_up") == 200
    awake_at = time.monotonic()
    router.until(lambda: state(router) == "healthy", "awake")
    back_s = time.monotonic() - awake_at
    finding(f"an engine that sleeps: out after {out_s:.2f} s; back {back_s:.2f} s after it woke")


def test_a_model_whose_only_engine_sleeps_is_503_with_retry_after(
    start_daemon, start_engine, quick
):
    engine = start_engine()
    router = start_daemon({**quick, "services": [service("a", engine.url, "tiny")]})
    assert engine.post("/sleep?level=1") == 200
    router.until(lambda: state(router) == "sleeping", "sleeping")
    response = call(router.port, "POST", PATH, chat())
    assert (response.status, response.error["code"]) == (503, "no_healthy_backend")
    assert int(response.header("retry-after")) >= 1


def test_calls_that_wait_for_an_engine_that_falls_asleep_move(pair):
    router, first, second, _ = pair
    second.script = lambda _: [Send(chat_answer("good"))]
    gate = Gate()
    first.script = lambda _: [gate, Stall()]
    answers: list = []
    asking = [
        threading.Thread(target=lambda: answers.append(call(router.port, "POST", PATH, chat())))
        for _ in range(4)
    ]
    for each in asking:
        each.start()
    assert gate.reached.wait(10)
    drawn = first.probe
    asleep = METRICS.format(running=0, tokens=1) + (
        'vllm:engine_sleep_state{engine="0",sleep_state="awake"} 0.0\n'
    )
    first.probe = lambda request: (
        [Send(answer(asleep.encode(), content_type="text/plain"))]
        if request.path == "/metrics"
        else drawn(request)
    )
    for each in asking:
        each.join(20)
    assert [each.status for each in answers] == [200] * 4
    assert state(router) == "sleeping"
