"""A fake vLLM that costs next to nothing, so that what is measured is the proxy in front of it.

A unary chat is answered at once with 1 KiB. A streamed chat gets its first event at once and then
one event every 10 ms, `max_tokens` in all; `flood_bytes` in a streamed chat's body asks for so many
bytes as fast as the connection takes them. One timer paces all streams: they are spread over ten
phases of 1 ms, so that a proxy meets them as it would meet independent streams.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from typing import cast

import httptools
import uvloop

from bench import wire

PERIOD_S = 0.010
PHASES = 10
FLOOD_EVENT = b"data: " + b"x" * 16_376 + b"\n\n"


def _head(content_type: str, framing: str) -> bytes:
    return (
        "HTTP/1.1 200 OK\r\ndate: Fri, 20 Nov 2026 10:11:46 GMT\r\nserver: uvicorn\r\n"
        f"content-type: {content_type}\r\n{framing}\r\n\r\n"
    ).encode()


def _json_answer(body: bytes) -> bytes:
    return _head("application/json", f"content-length: {len(body)}") + body


STREAM_HEAD = _head("text/event-stream; charset=utf-8", "transfer-encoding: chunked")
STREAM_END = wire.chunk(wire.FINISH_EVENT) + wire.chunk(wire.DONE_EVENT) + b"0\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
CARD = {"id": wire.MODEL, "object": "model", "owned_by": "vllm", "max_model_len": 8192}
MODELS = {"object": "list", "data": [CARD]}
CHAT = wire.CHAT_PATH.encode()
UNARY_ANSWER = _json_answer(wire.unary_answer())
PAGES = {
    b"/health": _json_answer(b""),
    b"/v1/models": _json_answer(json.dumps(MODELS).encode()),
}


class Stream:
    """One paced answer: counts down its events."""

    __slots__ = ("_left", "_transport")

    def __init__(self, transport: asyncio.Transport, events: int) -> None:
        self._transport = transport
        self._left = events
        transport.write(STREAM_HEAD)
        self.send()

    def send(self) -> bool:
        """Write one event, and the end after the last one. False: this stream is over."""
        if self._transport.is_closing():
            return False
        self._left -= 1
        self._transport.write(wire.event_chunk(time.monotonic_ns()))
        if self._left:
            return True
        self._transport.write(STREAM_END)
        return False


class Pacer:
    """Owns every paced stream and the one timer that drives them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, phases: int) -> None:
        self._loop = loop
        self._tick_s = PERIOD_S / phases
        self._phases: list[list[Stream]] = [[] for _ in range(phases)]
        self._ticks = 0
        self._started = loop.time()

    def add(self, stream: Stream) -> None:
        min(self._phases, key=len).append(stream)

    def tick(self) -> None:
        """Serve every phase that is due; a late timer catches up, so no event is ever lost."""
        due = int((self._loop.time() - self._started) / self._tick_s)
        while self._ticks < due:
            self._ticks += 1
            phase = self._ticks % len(self._phases)
            self._phases[phase] = [stream for stream in self._phases[phase] if stream.send()]
        self._loop.call_later(self._tick_s, self.tick)


class Flood:
    """An answer that is sent as fast as the connection takes it."""

    def __init__(self, transport: asyncio.Transport, size: int) -> None:
        self._transport = transport
        self._chunk = wire.chunk(FLOOD_EVENT)
        self._left = size // len(FLOOD_EVENT)
        self._ended = self._paused = False
        transport.write(STREAM_HEAD)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        while self._left and not self._paused:
            self._left -= 1
            self._transport.write(self._chunk)
        if not self._left and not self._ended:
            self._ended = True
            self._transport.write(STREAM_END)


class Connection(asyncio.Protocol):
    """One client connection; the parser calls the `on_` methods."""

    def __init__(self, add: Callable[[Stream], None]) -> None:
        self._add = add
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._flood: Flood | None = None
        self._url = b""
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def pause_writing(self) -> None:
        if self._flood:
            self._flood.pause()

    def resume_writing(self) -> None:
        if self._flood and not self._transport.is_closing():
            self._flood.resume()

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._url != CHAT:
            self._transport.write(PAGES.get(self._url, NOT_FOUND))
        elif b'"stream":true' in self._body:
            self._start_stream(json.loads(self._body))
        else:
            self._transport.write(UNARY_ANSWER)

    def _start_stream(self, request: dict[str, int]) -> None:
        if "flood_bytes" in request:
            self._flood = Flood(self._transport, request["flood_bytes"])
            self._flood.resume()
            return
        events = request["max_tokens"]
        stream = Stream(self._transport, events)
        if events > 1:
            self._add(stream)


async def serve(port: int, phases: int) -> None:
    loop = asyncio.get_running_loop()
    pacer = Pacer(loop, phases)
    pacer.tick()
    server = await loop.create_server(
        lambda: Connection(pacer.add), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--phases", type=int, default=PHASES, help="1: all streams tick at once")
    args = parser.parse_args()
    uvloop.run(serve(args.port, args.phases))


if __name__ == "__main__":
    main()
