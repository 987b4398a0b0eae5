"""Timeouts: one coarse look at everything that runs, instead of a timer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from router.config.settings import ServerSettings
from router.proxy.downstream import Downstream
from router.proxy.forward import Forwarder
from router.proxy.upstream import Upstreams

_SHORTEST_S = 0.02
_LONGEST_S = 1.0
_SHARE = 10


def period(settings: ServerSettings) -> float:
    """Seconds between two looks: a tenth of the shortest limit, 20 ms to 1 s."""
    shortest = min(settings.header_timeout_s, settings.request_timeout_s, settings.idle_timeout_s)
    return min(_LONGEST_S, max(_SHORTEST_S, shortest / _SHARE))


async def sweep(
    settings: Callable[[], ServerSettings],
    downstream: Downstream,
    forwarder: Forwarder,
    upstreams: Upstreams,
) -> None:
    """Look, for ever: late heads, late answers, silent streams, idle connections."""
    while True:
        limits = settings()
        await asyncio.sleep(period(limits))
        now = monotonic()
        for relay in tuple(forwarder.running):
            relay.note_progress()
            relay.check(now, limits.request_timeout_s, limits.idle_timeout_s)
        downstream.sweep()
        upstreams.sweep()
