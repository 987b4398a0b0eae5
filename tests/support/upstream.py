"""A scripted engine: a raw TCP server on loopback whose every byte and moment a test decides.

It lives in its own thread with its own loop, so that a test may block. `GET /health`, `/v1/models`
and `/metrics` are answered as a healthy engine would, unless `probe` says otherwise; every other
request is recorded and answered by `script`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from support.wire import Request, answer, chat_answer, take_request


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes in one piece and wait until the kernel has taken all but a little."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """Say nothing for some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reset:
    """End the connection by RST."""


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection by FIN, after everything that was sent."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Say nothing until the peer has gone."""


class Gate:
    """Holds a script until the test opens it; tells the test that the script has come so far."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened: concurrent.futures.Future[None] = concurrent.futures.Future()

    def open(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    async def pass_through(self) -> None:
        self.reached.set()
        await asyncio.shield(asyncio.wrap_future(self._opened))


Step = Send | Pause | Gate | Reset | Close | Stall
Script = Callable[[Request], Iterable[Step]]
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Connection:
    """What is known of one connection the router made.

    Attributes:
        number: from 1, in the order accepted.
        closed_at: `time.monotonic()` when the peer's end was seen, or ours; None while open.
        ending: `eof`, `reset` (by the peer) or `own`.
    """

    number: int
    closed_at: float | None = None
    ending: str = ""
    requests: int = 0
    scripted: int = 0


@dataclass(slots=True)
class Seen:
    """Everything recorded; read it under the upstream's lock or when nothing moves."""

    requests: list[Request] = field(default_factory=list)
    probes: list[Request] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)


class ScriptedUpstream:
    """An engine that does what its script says.

    Args:
        script: steps for each request that is no probe; default: one unary chat answer.
        models: names listed on `/v1/models`.
    """

    def __init__(
        self, script: Script | None = None, *, models: tuple[str, ...] = ("tiny",)
    ) -> None:
        self.script: Script = script or (lambda _: [Send(chat_answer())])
        self.models = models
        self.probe: Script = self._healthy
        self.seen = Seen()
        self.changed = threading.Condition()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._protocols: set[_Protocol] = set()
        self._thread = threading.Thread(target=self._run, name="scripted-upstream", daemon=True)

    # -- life ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen(0))
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def die(self) -> None:
        """Break every connection by RST and refuse new ones, as a killed process would."""
        self._call(self._shut())

    def revive(self) -> None:
        """Listen again on the same port."""
        self._call(self._listen(self.port))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # -- what a test asks ------------------------------------------------------------------------

    @property
    def requests(self) -> list[Request]:
        """Requests that were no probes, in order."""
        with self.changed:
            return list(self.seen.requests)

    @property
    def connections(self) -> list[Connection]:
        """Connections that carried at least one request that was no probe."""
        with self.changed:
            return [c for c in self.seen.connections if c.scripted]

    @property
    def open_count(self) -> int:
        """Connections open now, probes' included."""
        with self.changed:
            return sum(c.closed_at is None for c in self.seen.connections)

    def connection_of(self, request: Request) -> Connection:
        with self.changed:
            return self.seen.connections[request.connection - 1]

    def wait(self, what: Callable[[], Any], timeout: float = 10) -> Any:
        """Block until `what()` is true; looked at again whenever anything happens here."""
        with self.changed:
            if not self.changed.wait_for(what, timeout):
                raise AssertionError(f"not within {timeout} s; seen: {self.seen.connections[-5:]}")
            return what()

    def wait_requests(self, count: int, timeout: float = 10) -> list[Request]:
        """Block until so many requests have been read whole."""
        self.wait(lambda: len(self.seen.requests) >= count, timeout)
        return self.requests

    def wait_closed(self, request: Request, timeout: float = 10) -> Connection:
        """Block until the connection of this request has ended."""
        connection = self.connection_of(request)
        self.wait(lambda: connection.closed_at is not None, timeout)
        return connection

    def forget(self) -> None:
        """Start the list of requests anew."""
        with self.changed:
            self.seen.requests.clear()

    # -- inside the loop -------------------------------------------------------------------------

    def _healthy(self, request: Request) -> list[Step]:
        if request.path.startswith("/v1/models"):
            rows = [
                {"id": m, "object": "model", "created": 1, "owned_by": "vllm", "max_model_len": 512}
                for m in self.models
            ]
            return [Send(answer({"object": "list", "data": rows}))]
        return [Send(answer(b"", content_type="text/plain"))]

    def steps_for(self, request: Request) -> Iterable[Step]:
        """Records a request and says what to do for it."""
        path = request.path.split("?")[0]
        is_probe = request.method == "GET" and path in {"/health", "/v1/models", "/metrics"}
        with self.changed:
            (self.seen.probes if is_probe else self.seen.requests).append(request)
            if not is_probe:
                self.seen.connections[request.connection - 1].scripted += 1
            self.changed.notify_all()
        return self.probe(request) if is_probe else self.script(request)

    def opened(self, protocol: _Protocol) -> Connection:
        """Records a new connection."""
        self._protocols.add(protocol)
        with self.changed:
            connection = Connection(len(self.seen.connections) + 1)
            self.seen.connections.append(connection)
            self.changed.notify_all()
        return connection

    def ended(self, protocol: _Protocol, connection: Connection, how: str) -> None:
        """Records a connection's end; the first account of it counts."""
        self._protocols.discard(protocol)
        with self.changed:
            if connection.closed_at is None:
                connection.closed_at = time.monotonic()
                connection.ending = how
            self.changed.notify_all()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self, port: int) -> None:
        self._server = await self._loop.create_server(
            lambda: _Protocol(self), "127.0.0.1", port, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for protocol in list(self._protocols):
            protocol.reset()
        await asyncio.sleep(0)


class _Protocol(asyncio.Protocol):
    """One connection: reads requests, runs their scripts one after the other."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._ending = "own"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._record = self._upstream.opened(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._arrived.set()

    def eof_received(self) -> None:
        self._ending = "eof"
        self._upstream.ended(self, self._record, "eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.ended(self, self._record, "reset" if exc is not None else self._ending)
        self._writable.set()
        self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def reset(self) -> None:
        """End by RST at once."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._transport.abort()

    async def _serve(self) -> None:
        while True:
            raw = take_request(self._buffer)
            if raw is None:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            self._record.requests += 1
            request = Request(raw, self._record.number, time.monotonic())
            for step in self._upstream.steps_for(request):
                await self._do(step)

    async def _do(self, step: Step) -> None:
        match step:
            case Send(data):
                self._transport.write(data)
                await self._writable.wait()
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Gate():
                await step.pass_through()
            case Reset():
                self.reset()
            case Close():
                self._transport.close()
        if isinstance(step, Reset | Close | Stall):
            await asyncio.get_running_loop().create_future()
