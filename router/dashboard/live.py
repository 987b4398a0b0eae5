"""Who looks on, and what they are sent: all of it once, then once a second what has changed.

Nothing here runs while nobody looks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from time import monotonic
from typing import Any

import msgspec

from router.dashboard.entrance import Access
from router.dashboard.history import STEP_S, History, Point
from router.dashboard.picture import PRIVATE, Picture, difference, told
from router.errors import Overloaded
from router.events import Event, EventLog
from router.proxy.websocket import GOING_AWAY, LOGGED_OUT, WebSocket

_TICK_S = 1.0
_MOST = 32
_EVENTS = 200
_PRIVATE_EVENTS = frozenset({"quota"})
_SERIES = (("tokens_per_s", 1), ("in_flight", 0), ("kv_cache", 4), ("ttft_p95", 4))

_encode = msgspec.json.encode


class Viewer:
    """One open page.

    Attributes:
        access: how much it sees.
        whole: it is to be sent all again: it has missed a change, or has just come.
    """

    def __init__(self, socket: WebSocket, access: Access, allowed: Callable[[], Access]) -> None:
        self.socket = socket
        self.access = access
        self.allowed = allowed
        self.whole = True


class Hub:
    """Owner of the viewers; tells them what changes.

    Args:
        paint: the router as it is now.
        history: of the services.
        events: what happened.
        later: `loop.call_later`.
    """

    def __init__(
        self,
        paint: Callable[[], Picture],
        history: History,
        events: EventLog,
        later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
    ) -> None:
        self._paint = paint
        self._history = history
        self._events = events
        self._later = later
        self._viewers: set[Viewer] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._picture: Picture = {}
        self._event = 0
        self._sample = 0

    def __len__(self) -> int:
        return len(self._viewers)

    def check_room(self) -> None:
        """Return if another viewer may come.

        Raises:
            Overloaded: there are too many.
        """
        if len(self._viewers) >= _MOST:
            raise Overloaded(f"{_MOST} pages show the dashboard already.", retry_after_s=60)

    def join(self, socket: WebSocket, access: Access, allowed: Callable[[], Access]) -> None:
        """Show the router to one more, from now on and as long as `allowed` says the same."""
        viewer = Viewer(socket, access, allowed)
        socket.on_close = lambda: self._viewers.discard(viewer)
        self._viewers.add(viewer)
        if self._timer is None:
            self._look()
            self._timer = self._later(_TICK_S, self._tick)
        self._send_whole(viewer)

    def close(self) -> None:
        """The router ends: say so to all."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for viewer in tuple(self._viewers):
            viewer.socket.close(GOING_AWAY, "the router ends")

    # -- once a second -------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = None
        if not self._viewers:
            self._picture = {}
            return
        self._timer = self._later(_TICK_S, self._tick)
        self._tell()

    def _tell(self) -> None:
        """Send every viewer what has changed since the last look."""
        before, event, sample = self._picture, self._event, self._sample
        self._look()
        change = self._change(before, event, sample)
        texts = {access: _encode(_for(access, change)) for access in (Access.READER, Access.ADMIN)}
        now = monotonic()
        for viewer in tuple(self._viewers):
            viewer.socket.check(now)
            if viewer.allowed() is not viewer.access:
                viewer.socket.close(LOGGED_OUT, "logged out")
            elif viewer.whole:
                if viewer.socket.keeps_up:  # or all would be made and encoded for nobody
                    self._send_whole(viewer)
            elif not viewer.socket.send(texts[viewer.access]):
                viewer.whole = True

    def _look(self) -> None:
        self._picture = self._paint()
        self._event = self._events.count
        self._sample = self._history.number

    # -- messages ------------------------------------------------------------------------------

    def _send_whole(self, viewer: Viewer) -> None:
        message = {
            "type": "all",
            "at": time.time(),
            **difference({}, self._picture),
            "events": list(self._events.since(max(0, self._event - _EVENTS))),
            "history": self._all_points(),
        }
        viewer.whole = not viewer.socket.send(_encode(_for(viewer.access, message)))

    def _change(self, before: Picture, event: int, sample: int) -> dict[str, Any]:
        message: dict[str, Any] = {
            "type": "change",
            "at": time.time(),
            **difference(before, self._picture),
        }
        if self._event > event:
            message["events"] = list(self._events.since(event))
        if self._sample > sample:
            message["points"] = self._last_points()
        return message

    def _all_points(self) -> dict[str, Any]:
        services = {
            name: {
                series: told((point[place] for point in points), digits)
                for place, (series, digits) in enumerate(_SERIES)
            }
            for name, points in self._history.whole()
        }
        return {"number": self._history.number, "step_s": STEP_S, "services": services}

    def _last_points(self) -> dict[str, Any]:
        services = {name: _point(point) for name, point in self._history.latest()}
        return {"number": self._sample, "services": services}


def _point(point: Point) -> dict[str, float | None]:
    return {
        series: told([value], digits)[0]
        for (series, digits), value in zip(_SERIES, point, strict=True)
    }


def _for(access: Access, message: dict[str, Any]) -> dict[str, Any]:
    """The part of a message that this viewer may see."""
    if access is Access.ADMIN:
        return message
    shown = {name: part for name, part in message.items() if name != PRIVATE}
    if "events" in shown:
        shown["events"] = [event for event in shown["events"] if _is_public(event)]
    return shown


def _is_public(event: Event) -> bool:
    return event.kind not in _PRIVATE_EVENTS
