"""A thousand requests at once against a quota for some three hundred: never overspent, exact.

How it is exact to the token in spite of aborts: a stream that will be aborted stops at the engine
after so many events and stands still until its client has gone, and the client goes only when it
has read all of them. So at that moment nothing is on its way, what the engine has reported is what
the router has read, and the two sets of books must agree without any tolerance. A unary request
that will be aborted stands still before its answer: nothing was reported, nothing is charged.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from e2e.quota.books import BookkeepingEngine
from e2e.quota.organization import ACME_KEY, organization, until_settled, used, windows
from e2e.quota.streams import REQUEST_HEAD
from support.daemon import service

REQUESTS = 1000
QUOTA_FOR = 300
MEAN_COST = 60
TRIES = 8
SEEDS = range(int(os.environ.get("QUOTA_SEEDS", "3")))
PATHS = ("/v1/chat/completions", "/v1/completions")


@dataclass(frozen=True, slots=True)
class Job:
    """One client: where it asks, what, and after how many events it leaves (None: never)."""

    path: str
    body: dict[str, Any]
    abort: int | None

    @property
    def name(self) -> str:
        return str(self.body["plan"]["name"])


def job(number: int, dice: random.Random) -> Job:
    """A third leaves early, a tenth fails before its first byte; all lengths are random."""
    path = dice.choice(PATHS)
    length = dice.randint(1, 60)
    plan: dict[str, Any] = {"name": str(number), "length": length, "pace_s": dice.random() / 200}
    plan["think_s"] = dice.random() / 4
    text = " ".join("word" for _ in range(dice.randint(1, 40)))
    body: dict[str, Any] = {"model": "tiny", "plan": plan, "stream": dice.random() < 0.7}
    body |= {"prompt": text} if "chat" not in path else {
        "messages": [{"role": "user", "content": text}]
    }  # fmt: skip
    body |= dice.choice(({}, {"max_tokens": length * 2}, {"max_tokens": length}))
    body |= dice.choice(({}, {}, {"n": 2}))
    if body["stream"]:
        options = ({}, {"stream_options": {"include_usage": True}}, {"stream_options": None})
        body |= dice.choice(options)
    fate = dice.random()
    abort = None
    if fate < 1 / 3:
        abort = dice.randint(1, 10) if body["stream"] else 1
        plan["abort"] = abort
    elif fate < 1 / 3 + 1 / 10:
        plan["fail"] = dice.choice((400, 429, 500, 503, "reset"))
    return Job(path, body, abort)


class Load:
    """All clients of one run.

    Attributes:
        served: statuses of final answers; "left" for clients that went away.
        seen: tokens that unary answers told their clients.
    """

    def __init__(self, port: int, engines: list[BookkeepingEngine], dice: random.Random) -> None:
        self._port = port
        self._engines = engines
        self._dice = dice
        self._go = asyncio.Event()
        self._connected = 0
        self.served: Counter[int | str] = Counter()
        self.seen = 0

    async def run(self, jobs: list[Job]) -> None:
        """Connect all, then let all ask at once."""
        clients = [asyncio.create_task(self._client(each)) for each in jobs]
        while self._connected < len(jobs):
            await asyncio.sleep(0.01)
        self._go.set()
        await asyncio.gather(*clients)

    async def _client(self, task: Job) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._connected += 1
        await self._go.wait()
        payload = json.dumps(task.body).encode()
        head = REQUEST_HEAD.format(path=task.path, key=ACME_KEY, length=len(payload))
        request = head.encode() + payload
        for attempt in range(TRIES):
            writer.write(request)
            outcome = await self._answer(reader, task)
            if outcome != 429 or "fail" in task.body["plan"]:
                break
            # What running requests hold comes back: only then is the quota really spent.
            await asyncio.sleep(self._dice.random() * 0.1 * (attempt + 1))
        self.served[outcome] += 1
        if outcome == "left" and self._dice.random() < 0.5:
            writer.transport.abort()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, task: Job) -> int | str:
        """Read one answer, or leave in its midst: the status, or "left"."""
        head = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        if task.abort is not None and not task.body["stream"]:
            stands = [asyncio.create_task(e.reached(task.name).wait()) for e in self._engines]
            await asyncio.wait([head, *stands], return_when=asyncio.FIRST_COMPLETED)
            for each in stands:
                each.cancel()
            if not head.done():
                head.cancel()
                return "left"
        lines = (await head).lower()
        status = int(lines.split(b" ", 2)[1])
        if b"transfer-encoding: chunked" in lines:
            return await self._events(reader, task, status)
        length = int(lines.partition(b"content-length:")[2].split(b"\r\n")[0])
        content = await reader.readexactly(length)
        if status == 200:
            self.seen += json.loads(content)["usage"]["total_tokens"]
        return status

    async def _events(self, reader: asyncio.StreamReader, task: Job, status: int) -> int | str:
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            if task.abort is not None and data.count(b'"choices":[{') >= task.abort:
                return "left"
            more = await reader.read(65536)
            assert more, f"{task.name}: broken off after {data[-200:]!r}"
            data += more
        return status


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_thousand_at_once_never_overspend_and_the_books_agree_to_the_token(
    start_daemon, finding, seed
):
    dice = random.Random(seed)
    quota = QUOTA_FOR * MEAN_COST
    async with BookkeepingEngine(seed) as one, BookkeepingEngine(seed + 1000) as two:
        engines = [one, two]
        config = {
            "organizations": [organization(daily_tokens=quota)],
            "services": [service(f"engine-{n}", e.url, "tiny") for n, e in enumerate(engines)],
            # A tenth of all requests fails by plan; that is no reason to leave an engine out.
            "ejection": {"consecutive_failures": 1000},
        }
        router = await asyncio.to_thread(start_daemon, config)
        load = Load(router.port, engines, dice)
        await load.run([job(number, dice) for number in range(REQUESTS)])
        await asyncio.to_thread(until_settled, router)
        reported = sum(engine.reported for engine in engines)
        charged = await asyncio.to_thread(used, router)
        requests = (await asyncio.to_thread(windows, router))["requests", "day"]["used"]
        overruns = await asyncio.to_thread(router.metric, "router_ledger_overruns")
    endings = Counter(entry.ending for engine in engines for entry in engine.books)
    finding(
        f"quota, seed {seed}: {reported} tokens of {quota} ({reported / quota:.1%}), charged"
        f" {charged}; {endings['whole']} whole, {endings['aborted']} aborted, refused"
        f" {load.served[429]}, /tokenize {one.tokenized + two.tokenized}"
    )
    assert charged == reported
    assert reported <= quota
    assert load.seen <= reported
    assert overruns == 0
    assert endings["running"] == endings["cut"] == 0
    charged_requests = [e for engine in engines for e in engine.books if e.reported]
    assert requests == len(charged_requests)
    assert len(charged_requests) > QUOTA_FOR / 2
