"""Timeouts: one coarse look at everything that runs, instead of a timer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from router.config.settings import ServerSettings
from router.fleet.fleet import Fleet
from router.log import get_logger
from router.metrics import Metrics
from router.proxy.downstream import Downstream
from router.proxy.forward import Forwarder
from router.proxy.upstream import Upstreams

_log = get_logger("router.proxy")
_SHORTEST_S = 0.02
_LONGEST_S = 0.25
_SHARE = 10


def period(settings: ServerSettings) -> float:
    """Seconds between two looks: a tenth of the shortest limit, 20 to 250 ms.

    What open reservations have used is noted in it too, and a crash may cost one second of that.
    """
    shortest = min(settings.header_timeout_s, settings.request_timeout_s, settings.idle_timeout_s)
    return min(_LONGEST_S, max(_SHORTEST_S, shortest / _SHARE))


class Sweeper:
    """Looks at what runs and what waits, for ever."""

    def __init__(
        self,
        settings: Callable[[], ServerSettings],
        *,
        downstream: Downstream,
        forwarder: Forwarder,
        upstreams: Upstreams,
        fleet: Fleet,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._downstream = downstream
        self._forwarder = forwarder
        self._upstreams = upstreams
        self._fleet = fleet
        self._metrics = metrics

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            wait_s = period(self._settings())
            due = monotonic() + wait_s
            await asyncio.sleep(wait_s)
            self._metrics.loop_lag.observe(max(0.0, monotonic() - due))
            try:
                self.sweep(monotonic())
            except Exception as error:  # noqa: BLE001 - without the sweep no timeout holds
                _log.error("sweep_failed", exc_info=error)

    def sweep(self, now: float) -> None:
        """End late heads and answers, silent streams, idle connections and long waits."""
        for relay in tuple(self._forwarder.running):
            relay.note_progress()
            relay.check(now)
        self._forwarder.budget.roll(now)
        self._fleet.review(now)
        self._downstream.sweep(now)
        self._upstreams.sweep()
        self._metrics.fold()
