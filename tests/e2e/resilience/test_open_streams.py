"""Two hundred open streams, and everything an operator may do meanwhile: none is cut."""

from __future__ import annotations

import asyncio
import signal

import pytest

from e2e.chaos.clients import Client, Got
from e2e.resilience.crowd import ask, first_byte, many, until
from support.daemon import service
from support.http import chat
from support.upstream import Gate, Pause, ScriptedUpstream, Send
from support.wire import DONE, LAST_CHUNK, Request, chunk, delta, stream_head

STREAMS, RELOADS = 200, 50
BODY = chat(stream=True)
Open = tuple[Client, Got, "asyncio.Future[None]"]


class Endless:
    """Engines whose streams flow until the test lets them end."""

    def __init__(self) -> None:
        self.gate = Gate()

    def script(self, _: Request):
        yield Send(stream_head() + chunk(delta("begin")))
        while not self.gate.reached.is_set():
            yield Pause(0.2)
            yield Send(chunk(delta("x")))
        yield Send(chunk(DONE) + LAST_CHUNK)

    def end(self) -> None:
        self.gate.reached.set()


def whole(streams: list[Open]) -> int:
    """How many have come to their `[DONE]`, with nothing else said."""
    return sum(
        got.whole and got.body.endswith(b"data: [DONE]\n\n") and b"error" not in got.body
        for _, got, _ in streams
    )


def versions(urls: list[str], number: int) -> dict:
    """Configuration of a reload: settings, an alias, a weight, and c comes and goes."""
    rows = [service(n, u, "tiny", weight=1 + number % 3) for n, u in zip("ab", urls, strict=False)]
    if number % 2 == 0:
        rows.append(service("c", urls[2], "tiny"))
    return {
        "services": rows,
        "aliases": {f"alias-{number}": "tiny"},
        "server": {"idle_timeout_s": 30 + number, "drain_timeout_s": 30},
        "limits": {"max_queue": 100 + number,
                   "per_ip": {"requests_per_second": 1_000_000, "burst": 1_000_000}},
    }  # fmt: skip


@pytest.mark.timeout(180)
async def test_200_streams_outlive_50_reloads_removals_and_a_drain(
    start_daemon, start_upstream, finding
):
    endless = Endless()
    upstreams: list[ScriptedUpstream] = [start_upstream(endless.script) for _ in "abc"]
    urls = [upstream.url for upstream in upstreams]
    router = await asyncio.to_thread(start_daemon, versions(urls, 0))
    streams: list[Open] = await many(STREAMS, lambda _: first_byte(router.port, BODY))
    by_service = {n: row["in_flight"] for n, row in router.services().items()}
    assert all(by_service.values()), by_service
    for number in range(1, RELOADS + 1):
        await asyncio.to_thread(router.write, versions(urls, number))
        router.signal(signal.SIGHUP)
        await until(lambda n=number: generation(router) > n)
    assert "alias-50" in {row["id"] for row in router.get("/v1/models").json["data"]}
    assert router.in_flight() == STREAMS
    await asyncio.to_thread(
        router.write, {**versions(urls, 51), "services": [service("b", urls[1], "tiny")]}
    )
    await until(lambda: router.services()["a"]["state"] == "draining")
    assert router.services()["c"]["state"] == "draining"
    await asyncio.to_thread(router.drain)
    assert (await ask(router.port, BODY)).code == "draining"
    endless.end()
    async with asyncio.timeout(30):
        await asyncio.gather(*(future for _, _, future in streams))
    finding(
        f"{STREAMS} streams across {RELOADS} reloads, removals and a drain: {whole(streams)} whole"
    )
    assert whole(streams) == STREAMS
    for client, _, _ in streams:
        client.transport.abort()
    assert await asyncio.to_thread(router.wait) == 0


async def test_an_invalid_file_changes_nothing_and_is_told_with_line_and_key(
    start_daemon, start_upstream
):
    endless = Endless()
    upstream = start_upstream(endless.script)
    config = {"services": [service("a", upstream.url, "tiny")]}
    router = await asyncio.to_thread(start_daemon, config)
    stream = await first_byte(router.port, BODY)
    text = router.config_path.read_text()
    line = text.count("\n") + 2
    router.config_path.write_text(f"{text}routing:\n  policy: wishful_thinking\n")
    router.signal(signal.SIGHUP)
    await until(lambda: router.get("/health").json["last_reload_error"])
    told = router.get("/health").json
    assert told["generation"] == 1
    for place in (told["last_reload_error"], router.log):
        assert f"{line}" in place
        assert "routing.policy" in place
    again = await first_byte(router.port, BODY)
    endless.end()
    async with asyncio.timeout(30):
        await asyncio.gather(stream[2], again[2])
    assert whole([stream, again]) == 2
    for client, _, _ in (stream, again):
        client.transport.abort()


def generation(router) -> int:
    return int(router.get("/health").json["generation"])
