"""One connection to an engine: its events as they come, and looks at its containers beside them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from functools import partial
from time import monotonic

from router.discovery.container import ContainerEvent, Fate
from router.discovery.engine import Engine, EngineError
from router.discovery.labels import Finding, ReadKey, View, judge
from router.discovery.registry import Change, Registry
from router.discovery.threads import EventPump, in_thread

# Where a stream is opened, what happened before the engine noted the listener is missed: another
# look when that must be over makes it good. And one now and then, for what nobody thought of.
_SETTLED_S = 0.5
_LOOK_S = 30.0
_MOST_DIRTY = 1000

Look = Callable[[View, ReadKey], Mapping[str, Finding]]


class Session:
    """Follows an engine until that fails.

    It listens first and looks then, so that nothing falls between. What an event says of a
    container while a look is under way is newer than what the look finds.

    Args:
        engine: to follow.
        registry: takes over what is found.
        view: asked for anew at each look.
        read_key: reads the file of an engine's key.
        changed: told of each change, and of a look at everything without one.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        view: Callable[[], View],
        read_key: ReadKey,
        changed: Callable[[Change], None],
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._view = view
        self._read_key = read_key
        self._changed = changed
        self._wake = asyncio.Event()
        self._dirty: dict[str, None] = {}
        self._touched: set[str] = set()
        self._look_at = monotonic()
        self._failure: str | None = None
        self._is_over = False

    def look_again(self) -> None:
        """Look at everything now: it is looked at in another way than before."""
        self._look_within(0)

    async def run(self) -> None:
        """Follow until cancelled.

        Raises:
            EngineError: it does not answer any more, or has ended the stream.
        """
        pump = EventPump(
            self._engine,
            asyncio.get_running_loop(),
            on_open=partial(self._look_within, _SETTLED_S),
            on_event=self._on_event,
            on_end=self._on_end,
        )
        pump.start()
        try:
            while self._failure is None:
                await self._next()
            raise EngineError(self._failure)
        finally:
            self._is_over = True
            pump.stop()

    # -- what the pump tells -------------------------------------------------------------------

    def _on_event(self, event: ContainerEvent) -> None:
        if self._is_over:
            return
        self._touched.add(event.id)
        if event.fate is not Fate.CHANGED:
            self._tell(self._registry.note(event))
        if event.fate is not Fate.REMOVED:
            self._dirty[event.id] = None
        self._wake.set()

    def _on_end(self, why: str) -> None:
        self._failure = why
        self._wake.set()

    def _look_within(self, seconds: float) -> None:
        self._look_at = min(self._look_at, monotonic() + seconds)
        self._wake.set()

    # -- looks ---------------------------------------------------------------------------------

    async def _next(self) -> None:
        """Look at what must be looked at, or wait until something must."""
        self._wake.clear()
        wait_s = self._look_at - monotonic()
        if wait_s <= 0 or len(self._dirty) > _MOST_DIRTY:
            self._look_at = monotonic() + _LOOK_S
            await self._look(partial(look_at_all, self._engine), is_whole=True)
        elif self._dirty:
            ids = tuple(self._dirty)
            await self._look(partial(look_at, self._engine, ids), is_whole=False)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _look(self, look: Look, *, is_whole: bool) -> None:
        self._dirty.clear()
        self._touched.clear()
        found = await in_thread(partial(look, self._view(), self._read_key))
        change = self._registry.found(found, passed_over=self._touched, is_whole=is_whole)
        self._tell(change, is_whole=is_whole)

    def _tell(self, change: Change, *, is_whole: bool = False) -> None:
        if is_whole or not change.is_empty:
            self._changed(change)


def look_at_all(engine: Engine, view: View, read_key: ReadKey) -> dict[str, Finding]:
    """Inspect every running container that carries the label.

    Raises:
        EngineError: no answer.
    """
    return look_at(engine, engine.labelled(), view, read_key)


def look_at(
    engine: Engine, ids: Collection[str], view: View, read_key: ReadKey
) -> dict[str, Finding]:
    """Inspect containers; None for those that are none of the router's business.

    Raises:
        EngineError: no answer.
    """
    found: dict[str, Finding] = {}
    for id_ in ids:
        container = engine.inspect(id_)
        found[id_] = None if container is None else judge(container, view, read_key)
    return found
