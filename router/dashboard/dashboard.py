"""`/dashboard`: its page, its door, and its live view, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from router.api.answer import Asking
from router.config.settings import ServerSettings
from router.dashboard.assets import Assets
from router.dashboard.entrance import Entrance, is_same_origin
from router.dashboard.history import STEP_S, History
from router.dashboard.live import Hub
from router.dashboard.picture import Painter, Sources
from router.errors import BadRequest
from router.events import EventLog
from router.log import get_logger
from router.proxy.websocket import Upgrade, WebSocket, handshake

_log = get_logger("router.dashboard")


class Dashboard:
    """What answers under `/dashboard`.

    While nobody looks it costs a sample of every service each five seconds, for the sparklines.

    Args:
        sources: whom it asks.
        events: what happened.
        settings: asked for anew at each use, so that a reload counts.
        loop: that it lives on.
    """

    def __init__(
        self,
        sources: Sources,
        events: EventLog,
        settings: Callable[[], ServerSettings],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        assets = Assets()
        self._entrance = Entrance(settings)
        self._history = History()
        self._painter = Painter(sources, self._history)
        self._hub = Hub(self._painter.picture, self._history, events, loop.call_later)
        self.page = assets.page
        self.asset = assets.asset
        self.session = self._entrance.session
        self.log_in = self._entrance.log_in
        self.log_out = self._entrance.log_out

    def live(self, asking: Asking) -> Upgrade:
        """`GET /dashboard/live`, a WebSocket: the router as it is, then what changes.

        Raises:
            MissingApiKey: the caller may not look.
            BadRequest: a page of another site asks, or it is no good handshake.
            Overloaded: too many look already.
        """
        if not is_same_origin(asking.header(b"origin"), asking.header(b"host")):
            raise BadRequest("Only the router's own page may look (Origin must be Host).")
        access = self._entrance.check(asking)
        self._hub.check_room()

        def opened(socket: WebSocket) -> None:
            self._hub.join(socket, access, lambda: self._entrance.access(asking))

        return handshake(asking.path, asking.header, opened)

    def sample(self) -> None:
        """Add a point to every sparkline."""
        self._history.sample(monotonic(), self._painter.readings())

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            try:
                self.sample()
            except Exception as error:  # noqa: BLE001 - a page for people must not end the router
                _log.error("sample_failed", exc_info=error)
            await asyncio.sleep(STEP_S)

    def close(self) -> None:
        """Say goodbye to who looks on."""
        self._hub.close()
