"""Hostile engines: every request gets the act drawn for it, and the weather does the rest."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from e2e.chaos.acts import Act, End
from support.upstream import RESET_ON_CLOSE
from support.wire import Request, answer, take_request

BACKLOG = 512
PROBES = {"/health", "/v1/models", "/metrics"}


@dataclass(slots=True)
class Attempt:
    """What one engine did with one request.

    Attributes:
        engine: its name.
        act: what it was to do.
        shown: what of that the client may see: without the usage that it did not ask for.
        at: monotonic time at which the request was whole.
        done: every piece has been written, and the end done.
        disturbed: the weather was at it, so it may not have got through.
        left_at: when the router closed the connection before it was done; 0.0 else.
    """

    engine: str
    act: Act
    shown: bytes
    at: float
    done: bool = False
    disturbed: bool = False
    left_at: float = 0.0


Play = Callable[[str, Request], Attempt | None]
"""Names the act for a request (and remembers it); None: not one of the exchanges."""


@dataclass(slots=True)
class Weather:
    """What is wrong with an engine as a whole, for now.

    Attributes:
        health: status that `/health` answers; 0: nothing, the probe hangs.
        thawed: cleared while the process is stopped.
        accepts: cleared while connections are left in the backlog.
    """

    health: int = 200
    thawed: asyncio.Event = field(default_factory=asyncio.Event)
    accepts: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.thawed.set()
        self.accepts.set()


class Engine:
    """One engine on a port of its own, which it keeps over its deaths."""

    def __init__(self, name: str, models: tuple[str, ...], play: Play) -> None:
        self.name = name
        self.models = models
        self.play = play
        self.weather = Weather()
        self.disturbed_until = 0.0
        self.port = 0
        self.connections: set[_Connection] = set()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen; the same port as before, if there was one."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(BACKLOG)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept(listener))

    async def refuse(self) -> None:
        """Stop listening; what is open stays."""
        task, self._accepting = self._accepting, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def die(self) -> None:
        """Refuse, and break every connection by RST."""
        await self.refuse()
        for connection in list(self.connections):
            connection.disturb()
            connection.reset()

    async def recover(self) -> None:
        """Fair weather, whatever was interrupted."""
        self.weather.thawed.set()
        self.weather.accepts.set()
        self.weather.health = 200
        if self._listener is None:
            await self.start()

    def freeze(self) -> None:
        """Neither read nor write, as a stopped process."""
        self.weather.thawed.clear()
        for connection in self.connections:
            connection.disturb()

    def close_idle(self) -> None:
        """End by FIN what carries no request, as vLLM does at SIGTERM."""
        for connection in list(self.connections):
            if connection.attempt is None:
                connection.transport.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self.weather.accepts.wait()
            await self.weather.thawed.wait()
            with contextlib.suppress(OSError):
                peer, _ = await loop.sock_accept(listener)
                await loop.connect_accepted_socket(lambda: _Connection(self), peer)

    def probe(self, request: Request) -> bytes | None:
        """The answer to a probe; None: none at all."""
        if request.path == "/health":
            return answer(b"", self.weather.health) if self.weather.health else None
        if request.path == "/metrics":
            return answer({"detail": "Not Found"}, 404)
        rows = [{"id": m, "object": "model", "max_model_len": 4096} for m in self.models]
        return answer({"object": "list", "data": rows})

    @staticmethod
    def count(request: Request) -> bytes:
        """The answer to `/tokenize`: right, wrong or none."""
        fate = random.random()
        if fate < 0.7:
            return answer({"count": 9, "max_model_len": 4096, "tokens": []})
        return answer({"error": "no"}, 500) if fate < 0.85 else b"\x00garbage"


class _Connection(asyncio.Protocol):
    """One connection from the router."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._last: Attempt | None = None
        self.attempt: Attempt | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._engine.connections.add(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.connections.discard(self)
        if self.attempt is not None and not self.attempt.done:
            self.attempt.left_at = time.monotonic()
        self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def disturb(self) -> None:
        """Note that what is under way, or has just been, may not get through."""
        if self._last is not None:
            self._last.disturbed = True

    def reset(self) -> None:
        """End by RST, what is unsent with it."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()

    async def _serve(self) -> None:
        while not self.transport.is_closing():
            raw = take_request(self._buffer)
            if raw is None:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            await self._engine.weather.thawed.wait()
            await self._answer(Request(raw, 0, time.monotonic()))

    async def _answer(self, request: Request) -> None:
        if request.method == "GET" and request.path in PROBES:
            reply = self._engine.probe(request)
            if reply is not None:
                self.transport.write(reply)
            return
        if request.path == "/tokenize":
            self.transport.write(Engine.count(request))
            return
        before = self._last
        self.attempt = self._last = self._engine.play(self._engine.name, request)
        if self.attempt is not None:
            # Bytes that followed the answer before may be taken for the beginning of this one.
            late = before is not None and before.act.name.startswith("trailing")
            self.attempt.disturbed = late or time.monotonic() < self._engine.disturbed_until
            await self._act(self.attempt)
            self.attempt = None

    async def _act(self, attempt: Attempt) -> None:
        for piece in attempt.act.pieces:
            if isinstance(piece, float):
                await asyncio.sleep(piece)
                continue
            await self._writable.wait()
            await self._engine.weather.thawed.wait()
            if self.transport.is_closing():
                return
            try:
                self.transport.write(piece)
            except RuntimeError:  # uvloop may have closed it without having told of it yet
                return
        match attempt.act.end:
            case End.STALL:
                await asyncio.get_running_loop().create_future()
            case End.FIN:
                attempt.done = True
                self.transport.close()
            case End.RST:
                attempt.done = True
                self.reset()
        attempt.done = True


async def rain(engines: list[Engine], rng: random.Random, note: Callable[[float], None]) -> None:
    """Have one engine after the other suffer something, for ever; `note` gets each one's length."""
    while True:
        await asyncio.sleep(rng.uniform(0.05, 0.6))
        engine, kind = rng.choice(engines), rng.choice(list(KINDS))
        length = rng.uniform(0.1, 0.8) if rng.random() < 0.9 else 1.6
        note(length)
        engine.disturbed_until = time.monotonic() + 3 * length + 1
        await KINDS[kind](engine, length)


async def _kill(engine: Engine, length: float) -> None:
    await engine.die()
    await asyncio.sleep(length)
    await engine.start()


async def _terminate(engine: Engine, length: float) -> None:
    """As vLLM's SIGTERM: no new connections, idle ones closed, open requests left in silence."""
    await engine.refuse()
    engine.close_idle()
    engine.freeze()
    await asyncio.sleep(length)
    await engine.die()
    engine.weather.thawed.set()
    await engine.start()


async def _stop(engine: Engine, length: float) -> None:
    """As SIGSTOP and SIGCONT."""
    engine.freeze()
    await asyncio.sleep(length)
    engine.weather.thawed.set()


async def _slow_accept(engine: Engine, length: float) -> None:
    engine.weather.accepts.clear()
    await asyncio.sleep(length)
    engine.weather.accepts.set()


async def _health(engine: Engine, status: int, length: float) -> None:
    engine.weather.health = status
    await asyncio.sleep(length * 3)
    engine.weather.health = 200


KINDS = {
    "kill": _kill,
    "terminate": _terminate,
    "stop": _stop,
    "slow-accept": _slow_accept,
    "health-500": lambda engine, length: _health(engine, 500, length),
    "health-503": lambda engine, length: _health(engine, 503, length),
    "health-silent": lambda engine, length: _health(engine, 0, length),
}


def asked_of(request: Request) -> tuple[bool, bool, bool]:
    """(streams, usage, usage in each event) as the engine reads them."""
    content = json.loads(request.body)
    options = content.get("stream_options") or {}
    usage = bool(options.get("include_usage"))
    return bool(content.get("stream")), usage, usage and bool(options.get("continuous_usage_stats"))
