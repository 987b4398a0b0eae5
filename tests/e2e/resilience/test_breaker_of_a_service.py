"""What real requests tell of a service: what ejects it, what does not, and how it comes back."""

from __future__ import annotations

import threading
import time

import pytest

from support.daemon import Daemon, service
from support.http import Client, call, chat, encode
from support.upstream import Gate, Reset, ScriptedUpstream, Send
from support.wire import LAST_CHUNK, answer, chat_answer, chunk, delta, stream_head

PATH = "/v1/chat/completions"
SLOW_PROBES = {"interval_s": 300, "timeout_s": 5}
WELL = [Send(chat_answer())]
BROKEN = [Send(answer({"error": "broken"}, 500))]


def ask(router: Daemon) -> int:
    return call(router.port, "POST", PATH, chat()).status


@pytest.fixture
def one(start_daemon, start_upstream):
    """One service and the daemon before it; `base_s` is how long a first ejection lasts."""

    def start(base_s: float = 30, threshold: int = 3) -> tuple[Daemon, ScriptedUpstream]:
        upstream = start_upstream()
        ejection = {"consecutive_failures": threshold, "base_s": base_s, "max_s": max(base_s, 60)}
        rows = [service("a", upstream.url, "tiny")]
        return start_daemon(
            {"services": rows, "ejection": ejection, "health": SLOW_PROBES}
        ), upstream

    return start


@pytest.fixture
def two(start_daemon, start_upstream):
    """Two services."""

    def start(base_s: float = 30, threshold: int = 3):
        upstreams = start_upstream(), start_upstream()
        ejection = {"consecutive_failures": threshold, "base_s": base_s, "max_s": max(base_s, 60)}
        rows = [service(n, u.url, "tiny") for n, u in zip("ab", upstreams, strict=True)]
        config = {"services": rows, "ejection": ejection, "health": SLOW_PROBES}
        return start_daemon(config), *upstreams

    return start


def state(router: Daemon, name: str = "a") -> str:
    return str(router.services()[name]["state"])


@pytest.mark.parametrize("failure", [BROKEN, [Reset()]], ids=["500", "reset"])
def test_failures_in_a_row_eject_and_the_page_says_why_and_since_when(two, failure):
    router, sick, _ = two()
    sick.script = lambda _: failure
    for _ in range(12):
        assert ask(router) == 200
    row = router.services()["a"]
    assert (row["state"], row["healthy"]) == ("ejected", False)
    assert row["last_error"]
    assert row["since"]
    asked = len(sick.requests)
    assert [ask(router) for _ in range(20)] == [200] * 20
    assert len(sick.requests) == asked


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429])
def test_a_4xx_opens_nothing(one, status):
    router, upstream = one()
    upstream.script = lambda _: [Send(answer({"error": {"message": "no"}}, status))]
    assert [ask(router) for _ in range(10)] == [status] * 10
    assert state(router) == "healthy"


def test_clients_that_leave_open_nothing(one):
    router, upstream = one()
    for moment in ("before", "after") * 5:
        gate = Gate()
        begun = [Send(stream_head() + chunk(delta("x")))] if moment == "after" else []
        upstream.script = lambda _, begun=begun, gate=gate: [*begun, gate, Send(LAST_CHUNK)]
        client = Client(router.port)
        client.send(encode("POST", PATH, chat(stream=True)))
        assert gate.reached.wait(10)
        client.reset()
        router.until_idle()
        gate.open()
    assert state(router) == "healthy"


def test_a_4xx_between_failures_does_not_start_the_count_anew(two):
    """It counts neither way: two failures, a 4xx, a third failure: ejected."""
    router, sick, other = two()
    other.script = lambda _: [Send(answer({"error": "no"}, 422))]
    rounds = iter([BROKEN, BROKEN, [Send(answer({"error": "no"}, 422))], BROKEN])
    sick.script = lambda _: next(rounds)
    while len(sick.requests) < 4:
        ask(router)
    assert state(router) == "ejected"


def test_a_success_between_failures_starts_the_count_anew(two):
    router, sick, _ = two()
    rounds = iter([BROKEN, BROKEN, WELL, BROKEN, BROKEN, WELL])
    sick.script = lambda _: next(rounds)
    while len(sick.requests) < 6:
        assert ask(router) == 200
    assert state(router) == "healthy"


def test_the_only_service_is_never_ejected_without_trying_it(one):
    router, upstream = one()
    upstream.script = lambda _: BROKEN
    assert [ask(router) for _ in range(8)] == [500] * 8
    assert len(upstream.requests) == 8
    upstream.script = lambda _: WELL
    assert ask(router) == 200
    assert state(router) == "healthy"


def test_one_trial_at_a_time_is_let_through_and_its_success_brings_the_service_back(two):
    router, sick, _ = two(base_s=0.3)
    sick.script = lambda _: BROKEN
    router.until(lambda: ask(router) == 200 and state(router) == "ejected", "ejected")
    router.until(lambda: state(router) != "ejected", "the ejection is over")
    gate = Gate()
    sick.script = lambda _: [gate, *WELL]
    sick.forget()
    statuses: list[int] = []
    trial = threading.Thread(target=lambda: statuses.append(ask(router)))
    while not sick.requests:
        trial = threading.Thread(target=lambda: statuses.append(ask(router)))
        trial.start()
        if not gate.reached.wait(0.2):
            trial.join()
    assert [ask(router) for _ in range(10)] == [200] * 10
    assert len(sick.requests) == 1
    gate.open()
    trial.join()
    assert set(statuses) == {200}
    asked = len(sick.requests)
    assert [ask(router) for _ in range(10)] == [200] * 10
    assert len(sick.requests) > asked
    assert state(router) == "healthy"


def test_a_trial_that_fails_ejects_again_for_longer(two):
    router, sick, _ = two(base_s=0.4)
    sick.script = lambda _: BROKEN
    lengths = []
    for _ in range(3):
        router.until(lambda: ask(router) == 200 and state(router) == "ejected", "ejected")
        began = time.monotonic()
        router.until(lambda: state(router) != "ejected", "the ejection is over")
        lengths.append(time.monotonic() - began)
    assert lengths[2] > lengths[0]


def test_an_engines_retry_after_on_503_is_kept_to(two):
    router, busy, _ = two(threshold=100)
    busy.script = lambda _: [Send(answer({"error": "busy"}, 503, headers=(("retry-after", "2"),)))]
    while not busy.requests:
        assert ask(router) == 200
    told_at = busy.requests[0].at
    asked = len(busy.requests)
    busy.script = lambda _: WELL
    while len(busy.requests) == asked:
        assert ask(router) == 200
        assert time.monotonic() - told_at < 20
        time.sleep(0.02)
    assert busy.requests[-1].at - told_at >= 1.7
    assert asked == 1


def test_an_outage_is_not_answered_by_a_storm(two):
    """Both fail: moves are bounded, so the engines see little more than what the clients sent."""
    router, *upstreams = two(threshold=1000)
    for upstream in upstreams:
        upstream.script = lambda _: BROKEN
    assert {ask(router) for _ in range(100)} == {500}
    assert sum(len(upstream.requests) for upstream in upstreams) <= 100 + 20 + 1
