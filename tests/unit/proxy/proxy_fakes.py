"""Stand-ins for what the data plane touches: a socket, an engine's connection, a client."""

from __future__ import annotations

import asyncio
import time

from router.config.settings import ServerSettings
from router.fleet.service import Service
from router.metrics import ServiceCells
from router.model import ServiceSpec
from router.openai.paths import CHAT, InferencePath
from router.proxy.answer import Head
from router.proxy.exchange import Call
from router.proxy.headers import to_downstream
from router.proxy.meter import Unmetered
from router.proxy.upstream import UpstreamPool
from router.proxy.upstream_connection import Target, UpstreamConnection

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
UNARY = HEAD + b"content-length: 5\r\n\r\nhello"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


class FakeTransport(asyncio.Transport):
    """Remembers what was written and asked."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False
        self.reading = True

    def write(self, data) -> None:
        self.written += data

    def writelines(self, pieces) -> None:
        self.written += b"".join(pieces)

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Heard:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self.heads = 0
        self.pieces: list[bytes] = []
        self.end: str | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def on_head(self, head: Head) -> None:
        assert not self.pieces
        self.head = head
        self.heads += 1

    def on_data(self, data: bytes) -> None:
        assert self.head is not None
        assert self.end is None
        assert data
        self.pieces.append(data)

    def on_end(self) -> None:
        assert self.head is not None
        assert self.end is None
        self.end = "end"

    def on_broken(self, error) -> None:
        assert self.end is None
        self.end = type(error).__name__


def pool_of(loop=None) -> UpstreamPool:
    return UpstreamPool(Target.of("http://engine:8000"), loop, to_downstream())


def opened(pool: UpstreamPool) -> tuple[UpstreamConnection, FakeTransport]:
    """A new connection of the pool, over a fake transport."""
    connection, transport = UpstreamConnection(pool), FakeTransport()
    connection.connection_made(transport)
    return connection, transport


class FakeConnection:
    """What a relay sees of an engine's connection."""

    def __init__(self, *, reused: bool = False) -> None:
        self.reused = reused
        self.sent: list[bytes] = []
        self.listener = None
        self.did: list[str] = []

    @property
    def is_unanswered(self) -> bool:
        return self.listener is None or self.listener.head is None

    def send(self, head, body, listener) -> None:
        self.sent.append(head + body)
        self.listener = listener

    def abort(self) -> None:
        self.did.append("abort")

    def pause(self) -> None:
        self.did.append("pause")

    def resume(self) -> None:
        self.did.append("resume")


class FakeExchange:
    """A client that writes down its answer."""

    def __init__(self) -> None:
        self.request_id = b"req-1"
        self.started = time.monotonic()
        self.begun = False
        self.flow = None
        self.journey = None
        self.rate_lines = b""
        self.tasks: list[asyncio.Task[None]] = []
        self.ended = asyncio.get_running_loop().create_future()
        self.status = 0
        self.reason = b""
        self.lines = b""
        self.length: int | None = None
        self.pieces: list[bytes] = []
        self.ends: list[str] = []

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def start(self, status, reason, lines, length, first) -> None:
        assert not self.begun
        self.begun = True
        self.status, self.reason, self.lines, self.length = status, reason, lines, length
        self.pieces.append(first)

    def write(self, data) -> None:
        assert self.begun
        assert not self.ends
        self.pieces.append(data)

    def finish(self) -> None:
        self._end("finish")

    def cut(self) -> None:
        self._end("cut")

    def _end(self, how: str) -> None:
        self.ends.append(how)
        if not self.ended.done():
            self.ended.set_result(None)

    def refused(self, error) -> None:
        self.ended.set_exception(error)

    def spawn(self, work) -> None:
        self.tasks.append(asyncio.create_task(work))

    def client_gone(self) -> None:
        for task in self.tasks:
            task.cancel()
        if self.journey is not None:
            self.journey.client_gone()


class FakeLease:
    """A slot; writes down what it is told."""

    def __init__(self) -> None:
        self.service = service()
        self.told: list[str] = []

    def succeeded(self) -> None:
        self.told.append("succeeded")

    def failed(self, reason: str, wait_s: float | None = None) -> None:
        self.told.append(reason)


def service(name: str = "a", url: str = "http://engine:8000") -> Service:
    return Service(ServiceSpec(name, url, "yaml", ("m",)), ServiceCells(), 0.0)


def call_of(exchange: FakeExchange, path: InferencePath = CHAT, body: bytes = b'{"model":"m"}'):
    return Call(
        path=path,
        model="m",
        request_id=exchange.request_id,
        body=body,
        lines=b"content-type: application/json\r\n",
        limits=ServerSettings(),
        started=exchange.started,
        admitted=exchange.started,
        meter=Unmetered(),
    )
