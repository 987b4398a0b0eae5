"""Many clients at once that note what they saw: for the books and clocks of the router."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

CHAT = "/v1/chat/completions"
HEAD = (
    "POST {path} HTTP/1.1\r\nhost: r\r\nx-request-id: {id}\r\nauthorization: Bearer {key}\r\n"
    "content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
)


@dataclass
class Seen:
    """What a client saw: seconds between its request, the first piece of the body and the next."""

    first_s: float = -1.0
    gaps_s: list[float] = field(default_factory=list)


async def ask(
    port: int, request_id: str, key: str, body: Any, path: str = CHAT, leave_after: int = -1
) -> Seen:
    """Send one request on a connection of its own; leave after so many reads (-1: at the end)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    seen = Seen()
    try:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = HEAD.format(path=path, id=request_id, key=key, length=len(payload))
        latest = asked = monotonic()
        writer.write(head.encode() + payload)
        tail = b""
        reads = 0
        while reads != leave_after:
            data = await reader.read(1 << 20)
            now = monotonic()
            if not data:
                return seen
            if seen.first_s < 0:
                seen.first_s = now - asked
                framed = b"\r\ntransfer-encoding: chunked" in data.lower()
            elif data != b"0\r\n\r\n":
                seen.gaps_s.append(now - latest)
            latest = now
            reads += 1
            tail = (tail + data)[-8:]
            if tail.endswith(b"0\r\n\r\n") if framed else _is_whole(data):
                return seen
        return seen
    finally:
        writer.transport.abort()


def _is_whole(data: bytes) -> bool:
    """Unary answers here are small: one read brings head and body."""
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(lengths) and len(body) >= int(lengths[0].partition(b":")[2])


async def crowd(count: int, at_once: int, make: Callable[[int], Any]) -> list[Any]:
    """`make(number)` for so many numbers, so many of them at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one(number: int) -> Any:
        async with gate:
            return await make(number)

    return list(await asyncio.gather(*(one(number) for number in range(count))))


def dice(seed: int) -> random.Random:
    return random.Random(seed)
