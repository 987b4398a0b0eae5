"""One of three services is lost under load: who notices, how long it is asked, when it is back."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from e2e.resilience.conftest import HUNG_AFTER_S, INTERVAL_S
from e2e.resilience.crowd import Crowd, until
from support.daemon import service
from support.http import chat
from support.upstream import Pause, Send
from support.wire import DONE, LAST_CHUNK, answer, chunk, delta, stream_head

STREAMS = 200
SLACK_S = 1.0
"""For a loaded machine: probes, polls and 200 clients share it."""
BODY = chat(stream=True, max_tokens=24)


def fleet_of(urls: list[str], quick: dict) -> dict:
    rows = [service(name, url, "tiny") for name, url in zip("abc", urls, strict=True)]
    return {**quick, "services": rows}


def is_out(router, name: str) -> bool:
    return not router.services()[name]["healthy"]


async def lose(router, crowd: Crowd, lost, heal, name: str = "a"):
    """Lose a service, wait until it is out, heal it: (lost at, out after, back after), seconds."""
    await asyncio.sleep(2.5)  # every client is somewhere inside its first streams
    lost_at = time.monotonic()
    await asyncio.to_thread(lost)
    out_at = await until(lambda: is_out(router, name))
    await asyncio.sleep(2)
    healed_at = await asyncio.to_thread(heal)
    back_at = await until(lambda: not is_out(router, name))
    await asyncio.sleep(1)
    return lost_at, out_at - lost_at, back_at - healed_at


def noticed(told, name: str, lost_at: float) -> int:
    """Clients that got no whole answer; each was in the middle of an answer of the lost one."""
    hurt = [each for each in told if not each.is_whole]
    for each in hurt:
        assert (each.status, each.service) == (200, name), each
        assert each.first_at < lost_at + HUNG_AFTER_S + SLACK_S, each
        assert each.code in {"upstream_disconnected", "upstream_timeout"}, each
        assert b"[DONE]" not in each.body
    return len(hurt)


@pytest.mark.timeout(180)
async def test_a_service_that_is_killed_is_noticed_by_nobody_else(
    start_daemon, start_engine, quick, finding
):
    engines = [await asyncio.to_thread(start_engine) for _ in "abc"]
    router = await asyncio.to_thread(start_daemon, fleet_of([e.url for e in engines], quick))
    crowd = Crowd(router.port, STREAMS, BODY)
    doomed = engines[0]

    def kill() -> None:
        doomed.signal(signal.SIGKILL)
        doomed.wait()

    def heal() -> float:
        doomed.restart()
        doomed.until(doomed.answers, "engine back")
        return time.monotonic()

    lost_at, out_s, back_s = await lose(router, crowd, kill, heal)
    told = await crowd.stop()
    hurt = noticed(told, "a", lost_at)
    finding(f"SIGKILL of one of three under {STREAMS} streams: {hurt} of {len(told)} broken off,"
            f" its own; out after {out_s:.2f} s; back {back_s:.2f} s after it healed")  # fmt: skip
    assert 0 < hurt <= STREAMS / 2
    assert out_s <= 1 + SLACK_S
    assert back_s <= 2 * INTERVAL_S + SLACK_S
    assert {each.service for each in told if each.sent_at > lost_at + out_s + 5} <= {"a", "b", "c"}
    await asyncio.to_thread(router.until_idle)


@pytest.mark.timeout(180)
async def test_a_service_that_is_stopped_is_left_within_the_time_for_hung_ones(
    start_daemon, start_engine, quick, finding
):
    engines = [await asyncio.to_thread(start_engine) for _ in "abc"]
    router = await asyncio.to_thread(start_daemon, fleet_of([e.url for e in engines], quick))
    crowd = Crowd(router.port, STREAMS, BODY)

    def heal() -> float:
        engines[0].thaw()
        return time.monotonic()

    lost_at, out_s, back_s = await lose(router, crowd, engines[0].freeze, heal)
    told = await crowd.stop()
    hurt = noticed(told, "a", lost_at)
    finding(f"SIGSTOP of one of three under {STREAMS} streams: {hurt} of {len(told)} broken off,"
            f" all its own; out after {out_s:.2f} s (hung_after_s {HUNG_AFTER_S:g});"
            f" back {back_s:.2f} s after SIGCONT")  # fmt: skip
    assert hurt <= STREAMS / 2
    assert out_s <= HUNG_AFTER_S + SLACK_S
    assert back_s <= 2 * INTERVAL_S + SLACK_S
    await asyncio.to_thread(router.until_idle)


@pytest.mark.timeout(180)
async def test_a_service_that_answers_500_is_noticed_by_nobody(
    start_daemon, start_upstream, quick, finding
):
    text = [Send(stream_head()), Pause(0.5), Send(chunk(delta("x"))), Pause(0.5)]
    good = [*text, Send(chunk(DONE) + LAST_CHUNK)]
    upstreams = [start_upstream(lambda _: good) for _ in "abc"]
    sick = upstreams[0]
    router = await asyncio.to_thread(start_daemon, fleet_of([u.url for u in upstreams], quick))
    crowd = Crowd(router.port, STREAMS, BODY)

    def fail() -> None:
        sick.script = lambda _: [Send(answer({"error": "broken"}, 500))]

    def heal() -> float:
        sick.script = lambda _: good
        return time.monotonic()

    lost_at, out_s, back_s = await lose(router, crowd, fail, heal)
    told = await crowd.stop()
    asked = sum(lost_at < request.at < lost_at + 2 + out_s for request in sick.requests)
    finding(f"one of three answers 500 under {STREAMS} streams: {noticed(told, 'a', lost_at)} of"
            f" {len(told)} noticed; it was asked {asked} times in {2 + out_s:.1f} s; out after"
            f" {out_s:.2f} s; back {back_s:.2f} s after it healed")  # fmt: skip
    assert [each for each in told if not each.is_whole] == []
    assert out_s <= 1 + SLACK_S
    assert back_s <= 2 * INTERVAL_S + SLACK_S
