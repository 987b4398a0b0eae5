"""A metering without a network: a ledger in memory, a fleet of one, an engine that counts."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import msgspec

from router.ledger import Kind, Limits, MemoryLedger, Period
from router.model import Usage
from router.openai.body import read_fields
from router.openai.multipart import FormModel
from router.openai.paths import BY_UPSTREAM, INFERENCE_PATHS
from router.proxy import prompt_counts
from router.proxy.admit import Wanted
from router.proxy.meter import Meter, Metering
from unit.fleet.fleet_fakes import HEALTHY, build, card, named, spec

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]
NOON = 1_800_000_000.0
CONTEXT = 1000


class House:
    """A metering over a memory ledger and a fleet of one.

    `counts` is what its engine counts: a number, an error, the answer itself, None for 404, or a
    list of these, one for each time that it is asked.
    """

    def __init__(self, monkeypatch, left: int | None, context: int | None = CONTEXT) -> None:
        limits = {} if left is None else {"acme": Limits(daily_tokens=left)}
        self.ledger = MemoryLedger(limits)
        self.fleet = build(spec("a", max_concurrency=1))
        self.fleet.set_health(named(self.fleet, "a"), HEALTHY, [card("m", max_model_len=context)])
        self.now = NOON
        self.counts: Any = None
        self.asked: list[bytes] = []
        pool = SimpleNamespace(start_of=lambda path, _key: path.encode())
        self.metering = Metering(
            self.ledger, self.fleet, SimpleNamespace(pool=lambda _url: pool), lambda: self.now
        )
        self.answer_count: Callable[[], Awaitable[tuple[int, bytes]]] | None = None
        monkeypatch.setattr(prompt_counts, "ask", self.ask)

    async def ask(self, _pool, head: bytes, body: bytes) -> tuple[int, bytes]:
        if self.answer_count is not None:
            return await self.answer_count()
        assert head.startswith(b"/tokenize")
        self.asked.append(body)
        counts = self.counts.pop(0) if isinstance(self.counts, list) else self.counts
        if isinstance(counts, Exception):
            raise counts
        if isinstance(counts, bytes):
            return 200, counts
        return (404, b"{}") if counts is None else (200, b'{"count":%d}' % counts)

    async def open(self, path: str = CHAT, **fields: Any) -> Meter:
        body = json.dumps({"model": "m", **fields}).encode()
        wanted = Wanted(INFERENCE_PATHS[path], "m", body, read_fields(body))
        return await self.admit(wanted)

    async def admit(self, wanted: Wanted) -> Meter:
        """As the pipeline does it: the engine is asked where it alone can tell."""
        meter = self.metering.open("acme", wanted)
        return await self.metering.open_counted("acme", wanted) if meter is None else meter

    async def chat(self, **fields: Any) -> Meter:
        return await self.open(CHAT, messages=HELLO, **fields)

    async def audio(self, size: int) -> Meter:
        row = BY_UPSTREAM["/v1/audio/transcriptions"]
        wanted = Wanted(row, "m", b"x" * size, form=FormModel("m", 0, 1, b"--b"))
        return await self.admit(wanted)

    @property
    def day(self):
        (day,) = (
            each
            for each in self.ledger.windows("acme", NOON)
            if (each.kind, each.period) == (Kind.TOKENS, Period.DAY)
        )
        return day


class Answered:
    """An answer as it ended: its usage, if told, its events, and whether it is whole."""

    def __init__(self, usage=None, *, events=1, status=200, whole=True) -> None:
        self.usage = usage or Usage()
        self.events = events
        self.status = status
        self.is_whole = whole
        self.service = SimpleNamespace(name="a")


async def stream_of(house: House, **fields: Any) -> tuple[Meter, Any]:
    """A chat that streams, and the options that are sent for it."""
    meter = await house.chat(max_tokens=7, stream=True, **fields)
    options = meter.changes.get("stream_options")
    return meter, msgspec.json.decode(msgspec.json.encode(options))
