"""Blocking work in threads that never hold up the end of the process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from router.discovery.container import ContainerEvent
from router.discovery.engine import Engine, EngineError, EngineIdle, Events

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Do `work` in a thread of its own and give what it gives or raises.

    The loop's executor would not do: the end of the loop waits for it, and an engine that hangs
    would hold it up. When the caller is cancelled, the thread goes on and its result is dropped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001 - it is raised again where it is awaited
            error = raised
        post(loop, settle, result, error)

    threading.Thread(target=run, name="discovery", daemon=True).start()
    return await future


def post(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *values: object) -> None:
    """Call `callback` in the loop's thread; nothing happens where the loop has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *values)


class EventPump(threading.Thread):
    """Reads an engine's events in a thread of its own; every call back is in the loop's.

    Args:
        engine: what is listened to.
        loop: whose thread is called.
        on_open: a stream is being opened or has been: events before it may have been missed.
        on_event: an event.
        on_end: there will be no more, and why; called once, also when it was stopped.
    """

    def __init__(
        self,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        *,
        on_open: Callable[[], None],
        on_event: Callable[[ContainerEvent], None],
        on_end: Callable[[str], None],
    ) -> None:
        super().__init__(name="docker-events", daemon=True)
        self._engine = engine
        self._loop = loop
        self._on_open = on_open
        self._on_event = on_event
        self._on_end = on_end
        self._stopping = threading.Event()
        self._stream: Events | None = None

    def run(self) -> None:
        """Read until the engine ends the stream, it fails, or `stop` is called."""
        why = "reading its events failed"
        try:
            while not self._stopping.is_set():
                why = self._read()
                if why:
                    break
        except EngineError as error:
            why = str(error)
        finally:
            post(self._loop, self._on_end, why)

    def _read(self) -> str:
        """Read one stream; empty where it was silent for long and another is to be opened."""
        post(self._loop, self._on_open)
        try:
            self._stream = self._engine.events()
            post(self._loop, self._on_open)
            if self._stopping.is_set():
                self._stream.close()
            for event in self._stream:
                post(self._loop, self._on_event, event)
        except EngineIdle:
            return ""
        return "it ended the stream of events"

    def stop(self) -> None:
        """Have it end soon; a stream that has not begun is left to its time limit."""
        self._stopping.set()
        if self._stream is not None:
            self._stream.close()
