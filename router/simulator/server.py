"""One engine on one port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web

from router.simulator.app import make_app
from router.simulator.engine import Engine
from router.simulator.frontend import FRONTEND
from router.simulator.settings import SimulatorSettings

_BACKLOG = 2048
#: Open requests are cut off after this long when the engine ends.
_SHUTDOWN_S = 0.1


@dataclass(frozen=True, slots=True)
class RunningEngine:
    """An engine that has its port.

    Attributes:
        host: address it is bound to.
        port: the real port, also where 0 was asked for.
        engine: the model behind it, to look at (counters, running, waiting).
        ready: set once connections are taken, after `startup_delay_s`.
    """

    host: str
    port: int
    engine: Engine
    ready: asyncio.Event

    @property
    def url(self) -> str:
        """Base URL, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@contextlib.asynccontextmanager
async def serve(
    settings: SimulatorSettings, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[RunningEngine]:
    """Run an engine for as long as the context lasts.

    With a `startup_delay_s` the port is known at once, and refuses connections until `ready`.

    Raises:
        OSError: the address cannot be had.
    """
    app = make_app(settings)
    runner = web.AppRunner(
        app,
        handle_signals=False,
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=settings.keep_alive_s,
        shutdown_timeout=_SHUTDOWN_S,
    )
    async with contextlib.AsyncExitStack() as stack:
        bound = stack.enter_context(_bind(host, port))
        running = RunningEngine(host, bound.getsockname()[1], app[FRONTEND].engine, asyncio.Event())
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        if settings.startup_delay_s:
            starting = asyncio.create_task(_start(runner, bound, running.ready, settings))
            stack.push_async_callback(_end, starting)
        else:
            await _start(runner, bound, running.ready, settings)
        yield running


def _bind(host: str, port: int) -> socket.socket:
    """A socket that has the port and does not listen yet, so connections are refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


async def _start(
    runner: web.AppRunner, bound: socket.socket, ready: asyncio.Event, settings: SimulatorSettings
) -> None:
    await asyncio.sleep(settings.startup_delay_s)
    await web.SockSite(runner, bound, backlog=_BACKLOG).start()
    ready.set()


async def _end(starting: asyncio.Task[None]) -> None:
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting
