"""A client that does not read holds its engine back, also while an earlier answer is unread."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from time import monotonic

import pytest

from router.config.settings import ServerSettings
from router.proxy.downstream import ClientExchange, Downstream

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


@asynccontextmanager
async def serving(handler):
    """A server on loopback whose handler gets each exchange."""

    async def serve(request):
        exchange = ClientExchange(request, request.protocol, downstream, monotonic())
        await handler(exchange)
        return exchange.ended()

    downstream = Downstream(serve, ServerSettings)
    server = await asyncio.get_running_loop().create_server(downstream, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()
        await downstream.shutdown(1)


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


@pytest.mark.xfail(
    strict=True,
    reason="a transport that an earlier answer has filled says `pause_writing` no second time: "
    "the next answer of a client that pipelines and does not read is buffered without a bound",
)
async def test_an_earlier_answer_that_is_still_unread_pauses_the_next_engine_too():
    flows = [Flow(), Flow()]
    written = asyncio.Event()
    answers = iter(flows)

    async def handler(exchange):
        exchange.flow = flow = next(answers)
        exchange.start(200, b"OK", b"", len(LARGE), LARGE)
        exchange.finish()
        if flow is flows[1]:
            written.set()

    async with serving(handler) as (_, writer), asyncio.timeout(10):
        writer.write(REQUEST * 2)
        await written.wait()
    assert flows[1].asked[:1] == ["pause"]
