"""Many clients at once: streams on raw connections, and how each of them ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from e2e.chaos.clients import Client, Got, connect
from support.http import chat, encode

PATH = "/v1/chat/completions"
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Told:
    """What one client was told.

    Attributes:
        status: of its answer.
        service: that answered; empty where the router did.
        is_whole: a stream up to its `[DONE]`, or a unary answer.
        code: of the error, in the answer or in the stream.
        sent_at, first_at, ended_at: monotonic seconds.
    """

    status: int
    service: str
    is_whole: bool
    code: str
    retry_after: str
    body: bytes
    sent_at: float
    first_at: float
    ended_at: float


async def ask(port: int, body: Mapping[str, Any] | None = None, *headers: tuple[str, str]) -> Told:
    """One request on a connection of its own, read to its end."""
    content = chat(stream=True) if body is None else body
    client = await connect(port)
    try:
        got, future = client.expect()
        sent_at = time.monotonic()
        client.transport.write(encode("POST", PATH, content, headers))
        async with asyncio.timeout(PATIENCE_S):
            await client.body_bytes(got, 1)
            first_at = time.monotonic()
            await future
        return _told(got, sent_at, first_at)
    finally:
        client.transport.abort()


async def many(count: int, make: Callable[[int], Any]) -> list[Any]:
    """So many at once; `make` gives the coroutine of a number."""
    return list(await asyncio.gather(*(make(number) for number in range(count))))


async def first_byte(
    port: int, body: Mapping[str, Any]
) -> tuple[Client, Got, asyncio.Future[None]]:
    """Open a stream and wait until it has begun; its end is left to the caller."""
    client = await connect(port)
    got, future = client.expect()
    client.transport.write(encode("POST", PATH, body))
    async with asyncio.timeout(PATIENCE_S):
        await client.body_bytes(got, 1)
    return client, got, future


class Crowd:
    """Clients that open one stream after the other until they are told to stop."""

    def __init__(self, port: int, count: int, body: Mapping[str, Any]) -> None:
        self._port = port
        self._body = body
        self._stopping = False
        self.told: list[Told] = []
        self._workers = [asyncio.create_task(self._work()) for _ in range(count)]

    async def stop(self) -> list[Told]:
        """Let what runs end; what everybody was told."""
        self._stopping = True
        await asyncio.gather(*self._workers)
        return self.told

    async def _work(self) -> None:
        while not self._stopping:
            self.told.append(await ask(self._port, self._body))


async def until(what: Callable[[], Any], timeout: float = 30) -> float:
    """Ask a blocking question again and again until it is answered yes; when, monotonic."""
    deadline = time.monotonic() + timeout
    while not await asyncio.to_thread(what):
        assert time.monotonic() < deadline, f"not within {timeout} s"
        await asyncio.sleep(0.01)
    return time.monotonic()


def _told(got: Got, sent_at: float, first_at: float) -> Told:
    body = bytes(got.body)
    whole = got.whole and got.status == 200
    if got.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
        whole = whole and body.endswith(b"data: [DONE]\n\n") and b'"error"' not in body
    return Told(
        got.status,
        got.headers.get(b"x-router-service", b"").decode(),
        whole,
        "" if whole else _code(body),
        got.headers.get(b"retry-after", b"").decode(),
        body,
        sent_at,
        first_at,
        got.at,
    )


def _code(body: bytes) -> str:
    last = body.strip().rpartition(b"\n")[2].removeprefix(b"data: ")
    try:
        return str(json.loads(last)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""
