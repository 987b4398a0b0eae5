"""A small asyncio client of streams: reads as many events as it is told, and then goes away."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from e2e.quota.organization import ACME_KEY

REQUEST_HEAD = (
    "POST {path} HTTP/1.1\r\nhost: r\r\nauthorization: Bearer {key}\r\n"
    "content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
)


async def read_stream(port: int, path: str, body: dict[str, Any], leave_after: int | None) -> int:
    """Ask for a stream and read it to its end, or leave after so many events; events read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        payload = json.dumps(body).encode()
        head = REQUEST_HEAD.format(path=path, key=ACME_KEY, length=len(payload))
        writer.write(head.encode() + payload)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 "), answer + await reader.read(1000)
        return await _events(reader, leave_after)
    finally:
        writer.close()


async def _events(reader: asyncio.StreamReader, leave_after: int | None) -> int:
    events = 0
    tail = b""
    while leave_after is None or events < leave_after:
        data = await reader.read(65536)
        assert data, f"broken off after {tail!r}"
        events += (tail[-16:] + data).count(b'"choices":[{') - tail[-16:].count(b'"choices":[{')
        tail = (tail + data)[-200:]
        if tail.endswith(b"0\r\n\r\n"):
            return events
    return events
