"""A client that does not read holds its engine back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from router.config.settings import ServerSettings
from router.proxy.downstream import Downstream

REQUEST = b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"
LARGE = b"x" * (8 * 1024 * 1024)


class Flow:
    """Remembers what the client asked of its engine."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.resumed = asyncio.Event()

    def pause(self) -> None:
        self.asked.append("pause")

    def resume(self) -> None:
        self.asked.append("resume")
        self.resumed.set()


class Handing:
    """Hands each whole request to a coroutine."""

    def __init__(self, handler) -> None:
        self._handler = handler

    def head(self, exchange) -> None: ...

    def again(self, exchange) -> None: ...

    def request(self, exchange) -> None:
        exchange.spawn(self._handler(exchange))


@asynccontextmanager
async def serving(handler):
    """A server on loopback whose handler gets each exchange."""

    downstream = Downstream(Handing(handler), ServerSettings, asyncio.get_running_loop())
    server = await asyncio.get_running_loop().create_server(downstream, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()
        downstream.close()


async def test_a_client_that_does_not_read_pauses_its_engine_and_resumes_it_when_it_reads():
    flow, written = Flow(), asyncio.Event()

    async def handler(exchange):
        exchange.flow = flow
        exchange.start(200, b"OK", b"", len(LARGE), LARGE)
        written.set()
        await flow.resumed.wait()
        exchange.finish()

    async with serving(handler) as (reader, writer), asyncio.timeout(10):
        writer.write(REQUEST)
        await written.wait()
        assert flow.asked == ["pause"]
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(LARGE)) == LARGE
        await flow.resumed.wait()
    assert flow.asked == ["pause", "resume"]


async def test_a_request_behind_an_unread_answer_waits_until_it_is_read():
    taken: list[int] = []
    written = asyncio.Event()

    async def handler(exchange):
        taken.append(len(taken))
        exchange.start(200, b"OK", b"", len(LARGE), LARGE)
        exchange.finish()
        written.set()

    async with serving(handler) as (reader, writer), asyncio.timeout(10):
        writer.write(REQUEST * 2)
        await written.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert taken == [0]
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(len(LARGE)) == LARGE
    assert taken == [0, 1]
