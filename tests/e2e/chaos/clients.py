"""Hostile clients on raw connections, and exactly what each of them got."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections import deque
from dataclasses import dataclass, field

import httptools

from e2e.chaos.visits import Visit, Wish, on_the_wire
from support.upstream import RESET_ON_CLOSE


@dataclass(slots=True)
class Got:
    """One answer as a client saw it.

    Attributes:
        status: 0 where no head came.
        whole: the framing said so; for a body without framing: the connection ended by FIN.
        framed: the body has a length or chunks.
        lost: the connection ended first; the exception's name, `fin` for none.
        at: monotonic time of its end.
    """

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    framed: bool = True
    keeps: bool = False
    lost: str = ""
    at: float = 0.0


class Client(asyncio.Protocol):
    """One connection; answers come in order. The parser calls the `on_` methods."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._expected: deque[tuple[Got, asyncio.Future[None]]] = deque()
        self._moved = asyncio.Event()
        self._begun = False
        self.surplus = self.last = b""
        self.read_pause: float | None = None
        self.closed = False
        self.transport: asyncio.Transport

    # -- what a visit does -----------------------------------------------------------------------

    def expect(self) -> tuple[Got, asyncio.Future[None]]:
        """Announce that one more answer is to come."""
        pair = (Got(), asyncio.get_running_loop().create_future())
        self._expected.append(pair)
        if self.closed:
            self._lose("fin")
        return pair

    async def body_bytes(self, got: Got, count: int) -> None:
        """Wait until so much of the body is there, or the answer is over."""
        while len(got.body) < count and not (got.whole or got.lost):
            self._moved.clear()
            await self._moved.wait()

    def leave(self, *, reset: bool) -> None:
        if reset and not self.closed:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()

    # -- what the transport tells ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if not self._expected:
            self.surplus += data[:200]
            return
        if self.read_pause is not None:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(self.read_pause, self._read_on)
        self.last = data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lose(f"not HTTP: {error}")
            self.transport.abort()
        self._moved.set()

    def eof_received(self) -> bool:
        self._close("fin")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._close(type(exc).__name__ if exc else "fin")

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _close(self, how: str) -> None:
        self.closed = True
        self._lose(how)

    def _lose(self, how: str) -> None:
        while self._expected:
            got, _ = self._expected[0]
            got.lost = how
            got.whole = self._begun and not got.framed and how == "fin"
            self._end(got)
        self._moved.set()

    def _end(self, got: Got) -> None:
        _, future = self._expected.popleft()
        got.at = time.monotonic()
        self._begun = False
        if not future.done():
            future.set_result(None)

    # -- what the parser tells -------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if not self._expected:
            self.surplus += b"(an answer too many) " + self.last[-300:]

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._expected:
            self._expected[0][0].headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if not self._expected or self._parser.get_status_code() == 100:
            return
        got = self._expected[0][0]
        got.status = self._parser.get_status_code()
        got.keeps = self._parser.should_keep_alive()
        got.framed = b"content-length" in got.headers or b"transfer-encoding" in got.headers
        self._begun = True

    def on_body(self, body: bytes) -> None:
        if self._expected:
            self._expected[0][0].body += body

    def on_message_complete(self) -> None:
        if self._expected and self._begun:
            got = self._expected[0][0]
            got.whole = True
            self._end(got)


async def connect(port: int, receive_buffer: int | None = None) -> Client:
    """A new connection to the router."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    _, client = await loop.create_connection(Client, sock=sock)
    return client


class Crowd:
    """Makes visits; keeps connections that may carry another request.

    Args:
        port: of the router.
        limit_s: longer than any answer may take; what takes longer has no end.
    """

    def __init__(self, port: int, limit_s: float) -> None:
        self._port = port
        self._limit_s = limit_s
        self._idle: list[Client] = []

    async def make(self, visit: Visit) -> list[Got]:
        """Make one visit; what it got, in order. Empty where it left or has nothing to get."""
        if visit.bad is not None:
            return [await self._say(visit.bad.data)]
        match visit.manner:
            case "reuse":
                return [await self._reuse(visit)]
            case "leave":
                await self._leave(visit)
                return []
            case "late-head" | "late-body":
                return [await self._stop_half_way(visit)]
            case "no-reader":
                return [await self._read_nothing(visit)]
            case _:
                return await self._ask(visit)

    def close(self) -> None:
        for client in self._idle:
            client.transport.abort()
        self._idle.clear()

    async def _end(self, client: Client, got: Got, future: asyncio.Future[None]) -> Got:
        try:
            async with asyncio.timeout(self._limit_s):
                await future
        except TimeoutError:
            got.lost = "never ended"
            client.transport.abort()
        if client.surplus:
            got.lost = f"surplus bytes: {client.surplus[:500]!r}"
        return got

    async def _say(self, data: bytes) -> Got:
        client = await connect(self._port)
        got, future = client.expect()
        client.transport.write(data)
        await self._end(client, got, future)
        client.transport.abort()
        return got

    async def _reuse(self, visit: Visit) -> Got:
        client = None
        while self._idle and (client is None or client.closed):
            client = self._idle.pop()
        if client is None or client.closed:
            client = await connect(self._port)
        got, future = client.expect()
        client.transport.write(on_the_wire(visit.wishes[0], visit.manner, _rng(visit)))
        await self._end(client, got, future)
        if got.whole and got.keeps and got.framed and not client.closed:
            self._idle.append(client)
        else:
            client.transport.abort()
        return got

    async def _ask(self, visit: Visit) -> list[Got]:
        slow = visit.manner == "slow-reader"
        client = await connect(self._port, 8192 if slow else None)
        client.read_pause = 0.003 if slow else None
        pairs = [client.expect() for _ in visit.wishes]
        data = b"".join(on_the_wire(wish, visit.manner, _rng(visit)) for wish in visit.wishes)
        if visit.manner == "drip":
            await _drip(client, data, _rng(visit))
        else:
            client.transport.write(data)
        if visit.manner == "half-close":
            client.transport.write_eof()
        answers = [await self._end(client, got, future) for got, future in pairs]
        client.transport.abort()
        return answers

    async def _leave(self, visit: Visit) -> None:
        wish = visit.wishes[0]
        client = await connect(self._port)
        got, _ = client.expect()
        client.transport.write(_said_before_leaving(visit, wish))
        if visit.phase in {"first", "some"}:
            count = 1 if visit.phase == "first" else 1 + int(visit.spot * 600)
            try:
                async with asyncio.timeout(self._limit_s):
                    await client.body_bytes(got, count)
            except TimeoutError:
                pass
        else:
            await asyncio.sleep(visit.delay)
        client.leave(reset=visit.resets)

    async def _stop_half_way(self, visit: Visit) -> Got:
        wish = visit.wishes[0]
        client = await connect(self._port)
        got, future = client.expect()
        cut = len(wish.head) // 2 if visit.manner == "late-head" else len(wish.head) + 5
        client.transport.write((wish.head + wish.body)[:cut])
        await self._end(client, got, future)
        client.transport.abort()
        return got

    async def _read_nothing(self, visit: Visit) -> Got:
        """Read the head at most, then nothing for longer than the router may wait."""
        client = await connect(self._port, 8192)
        client.read_pause = self._limit_s / 2
        got, future = client.expect()
        client.transport.write(on_the_wire(visit.wishes[0], visit.manner, _rng(visit)))
        try:
            async with asyncio.timeout(self._limit_s / 2 + 0.5):
                await future
        except TimeoutError:
            got.lost = "left"
        client.transport.abort()
        return got


def _rng(visit: Visit) -> random.Random:
    return random.Random(visit.number)


def _said_before_leaving(visit: Visit, wish: Wish) -> bytes:
    if visit.phase == "connect":
        return b""
    if visit.phase == "head":
        return wish.head[: 1 + int(visit.spot * (len(wish.head) - 2))]
    if visit.phase == "body":
        return wish.head + wish.body[: int(visit.spot * (len(wish.body) - 1))]
    return wish.head + wish.body


async def _drip(client: Client, data: bytes, rng: random.Random) -> None:
    at = 0
    while at < len(data):
        size = rng.randint(1, 1 + len(data) // 10)
        client.transport.write(data[at : at + size])
        at += size
        await asyncio.sleep(rng.uniform(0, 0.01))
